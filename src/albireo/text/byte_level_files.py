"""The tokenizer of a vocab.json and a merges.txt, byte-level BPE as GPT-2 brought it, built for the tokenizers library.

Called by tokenizer.py; tokenizer_files.py asks for classes. Neither file says how text is cut into words before pairs
are merged: that hangs on tokenizer_class of tokenizer_config.json, and only classes named here are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.errors import ModelError, short
from albireo.json_file import read_json, read_text
from albireo.text.gguf_words import WORDS, Words

if TYPE_CHECKING:
    import tokenizers

VOCAB, MERGES = "vocab.json", "merges.txt"
#: Merges of 150,000 tokens have 2 MB.
_MAX_MERGES_BYTES = 64 * 2**20
_END_ID = 2**31
_END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """What a class of tokenizers implies.

    Fields: roles: special tokens where tokenizer_config.json does not name them. is_encoder: a text stands between <s>
        and </s>, and two more of the latter part a pair.
    """

    words: Words
    roles: Mapping[str, str]
    is_encoder: bool = False


CLASSES: Mapping[str, TokenizerClass] = {
    "GPT2Tokenizer": TokenizerClass(
        WORDS["gpt2"], dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT)
    ),
    "Qwen2Tokenizer": TokenizerClass(
        WORDS["qwen2"], dict.fromkeys(("eos_token", "unk_token", "pad_token"), _END_OF_TEXT)
    ),
    "RobertaTokenizer": TokenizerClass(
        WORDS["gpt2"],
        {
            **dict.fromkeys(("bos_token", "cls_token"), "<s>"),
            **dict.fromkeys(("eos_token", "sep_token"), "</s>"),
            **{f"{role}_token": f"<{role}>" for role in ("unk", "pad", "mask")},
        },
        is_encoder=True,
    ),
}


def byte_level_backend(vocab_path: Path, kind: TokenizerClass) -> tokenizers.Tokenizer:
    """The tokenizer in vocab.json at vocab_path and the merges.txt beside it.

    Raises: ModelError naming the file and the value that is damaged.
    Cost: 0.9 s for a vocabulary of 150,000.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    vocab = read_json(vocab_path)
    check_ids(vocab, vocab_path)
    backend = Tokenizer(models.BPE(vocab, _merges(vocab_path.with_name(MERGES), vocab)))
    if kind.words.is_composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = kind.words.pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    if kind.is_encoder:
        ends = [kind.roles[role] for role in ("bos_token", "eos_token")]
        lacking = next((token for token in ends if token not in vocab), None)
        if lacking is not None:
            raise ModelError(f"{vocab_path}: has no {lacking}, which goes round a text")
        first, last = ends
        backend.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}",
            pair=f"{first} $A {last} {last} $B {last}",
            special_tokens=[(token, vocab[token]) for token in ends],
        )
        if (mask := kind.roles["mask_token"]) in vocab:
            backend.add_special_tokens([AddedToken(mask, lstrip=True, special=True, normalized=False)])
    return backend


def check_ids(vocab: Mapping[str, Any], path: Path) -> None:
    """Raises: ModelError where two tokens of a vocab.json have one id, or one has none."""
    tokens: dict[int, str] = {}
    for token, token_id in vocab.items():
        if type(token_id) is not int or not 0 <= token_id < _END_ID:
            raise ModelError(f"{path}: {short(token)} has the id {short(token_id)}; it must be 0 to {_END_ID - 1}")
        if token_id in tokens:
            raise ModelError(f"{path}: {short(tokens[token_id])} and {short(token)} have one id, {token_id}")
        tokens[token_id] = token


def _merges(path: Path, vocab: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of tokens, a line each with a space between, the first to be joined first."""
    found: dict[tuple[str, str], int] = {}
    for number, line in enumerate(read_text(path, _MAX_MERGES_BYTES).rstrip("\r\n").split("\n"), 1):
        if number == 1 and line.startswith("#version"):
            continue
        left, _, right = line.removesuffix("\r").partition(" ")
        if not left or not right or " " in right:
            raise ModelError(f"{path}: line {number} is {short(line)}, which is no pair of tokens")
        unknown = next((token for token in (left, right, left + right) if token not in vocab), None)
        if unknown is not None:
            raise ModelError(f"{path}: line {number} needs the token {short(unknown)}, which {VOCAB} lacks")
        if (left, right) in found:
            raise ModelError(f"{path}: line {number} is {short(line)}, and so is line {found[left, right]}")
        found[left, right] = number
    return list(found)
