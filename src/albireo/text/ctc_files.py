"""The tokenizer of a vocab.json without merges, of characters that frames of a sound say (Wav2Vec2CTCTokenizer), built
for the tokenizers library.

Called by vocabularies.py. It makes text of tokens, of which repeats were taken together before, and tokens of a text's
characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.errors import ModelError, short
from albireo.json_file import read_json
from albireo.text.byte_level_files import check_ids

if TYPE_CHECKING:
    import tokenizers

CLASS = "Wav2Vec2CTCTokenizer"
#: Special tokens where no file names them; the class's own.
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


@dataclass(frozen=True, slots=True)
class Characters:
    """Fields: blank: the token that is written as a blank. is_lower: letters are written small."""

    blank: str
    is_lower: bool


def characters(config: Mapping[str, Any], path: Path) -> Characters:
    """What tokenizer_config.json says. Raises: ModelError for another class, and what is no text."""
    name, blank = config.get("tokenizer_class") or CLASS, config.get("word_delimiter_token", "|")
    if name != CLASS:
        raise ModelError(
            f"{path.with_name('tokenizer_config.json')}: tokenizer_class={short(name)} of a {path.name} without merges "
            f"is not known; known is {CLASS}"
        )
    blank = blank.get("content") if isinstance(blank, Mapping) else blank
    if not isinstance(blank, str) or not isinstance(config.get("do_lower_case", False), bool):
        raise ModelError(
            f"{path.with_name('tokenizer_config.json')}: word_delimiter_token={short(blank)} must be a string, and "
            f"do_lower_case={short(config.get('do_lower_case'))} true or false"
        )
    if config.get("replace_word_delimiter_char", " ") != " ":
        raise ModelError(
            f"{path.with_name('tokenizer_config.json')}: replace_word_delimiter_char="
            f"{short(config['replace_word_delimiter_char'])} is not supported; supported: a blank"
        )
    return Characters(blank, bool(config.get("do_lower_case", False)))


def character_backend(path: Path, rule: Characters, special: Mapping[str, str]) -> tokenizers.Tokenizer:
    """The tokenizer in vocab.json at path. Args: special: of named tokens, by role.

    Raises: ModelError naming what is damaged.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocab = read_json(path)
    if any(isinstance(each, Mapping) for each in vocab.values()):
        raise ModelError(f"{path}: holds a vocabulary a language, which is not supported; keep one of them")
    check_ids(vocab, path)
    kept = {*special.values(), rule.blank}
    written = {token: token.lower() if rule.is_lower and token not in kept else token for token in vocab}
    if len(set(written.values())) < len(vocab):
        raise ModelError(f"{path}: do_lower_case=true makes two of its tokens one; leave it out")
    ids, unknown = {written[token]: each for token, each in vocab.items()}, special.get("unk_token")
    # characters that are no token are left out where none stands for them
    backend = Tokenizer(models.WordLevel(ids, unknown) if unknown in ids else models.BPE(ids, []))
    lowers = [normalizers.Lowercase()] if rule.is_lower else []
    backend.normalizer = normalizers.Sequence([*lowers, normalizers.Replace(" ", rule.blank)])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Sequence([decoders.Replace(rule.blank, " "), decoders.Fuse()])
    return backend
