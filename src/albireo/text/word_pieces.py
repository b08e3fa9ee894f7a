"""The tokenizer of a vocab.txt, pieces of words as BERT brought them, built for the tokenizers library.

Called by vocabularies.py; gguf_tokenizer.py builds the same of a GGUF file's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.errors import ModelError, short
from albireo.json_file import read_text

if TYPE_CHECKING:
    import tokenizers

#: Real files have 250,000 lines and 2 MB.
_MAX_BYTES = 64 * 2**20
_LONGEST_WORD = 100

_BERT = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "unk", "pad", "mask")}
_MPNET = {"cls_token": "<s>", "sep_token": "</s>", "unk_token": "[UNK]", "pad_token": "<pad>", "mask_token": "<mask>"}
#: Special tokens by class, where tokenizer_config.json does not name them.
CLASSES: Mapping[str, Mapping[str, str]] = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "MPNetTokenizer": {**_MPNET, "bos_token": "<s>", "eos_token": "</s>"},
}


def word_piece_backend(
    vocab: Mapping[str, int],
    named: Mapping[str, str],
    where: str,
    *,
    is_lower: bool = True,
    parts_chinese: bool = True,
    strips_accents: bool | None = None,
    has_types: bool = True,
) -> tokenizers.Tokenizer:
    """Args: named: cls_token, sep_token and unk_token at least; is_lower: letters are made small; parts_chinese: each
        Chinese character is a word; strips_accents: None: as is_lower; has_types: the second text of a pair is of
        another type; else two separators part them.
    Raises: ModelError for a vocabulary that lacks one of the three.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    first, behind, unknown = (named[f"{role}_token"] for role in ("cls", "sep", "unk"))
    for token in (first, behind, unknown):
        if token not in vocab:
            raise ModelError(f"{where} has no {token}, which each text needs")
    backend = Tokenizer(models.WordPiece(dict(vocab), unk_token=unknown, max_input_chars_per_word=_LONGEST_WORD))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=is_lower, handle_chinese_chars=parts_chinese, strip_accents=strips_accents
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    pair = f"$B:1 {behind}:1" if has_types else f"{behind} $B {behind}"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {behind}",
        pair=f"{first} $A {behind} {pair}",
        special_tokens=[(token, vocab[token]) for token in (first, behind)],
    )
    return backend


def vocab_txt_backend(
    path: Path, config: Mapping[str, Any], named: Mapping[str, str], name: str
) -> tokenizers.Tokenizer:
    """The tokenizer in a vocab.txt, a token a line. Args: name: of its class.

    Raises: ModelError naming the file and what is wrong with it.
    """
    flags = {key: config.get(key, True) for key in ("do_lower_case", "tokenize_chinese_chars", "do_basic_tokenize")}
    strips = config.get("strip_accents")
    odd = next((key for key, value in flags.items() if not isinstance(value, bool)), None)
    if odd is not None or not flags["do_basic_tokenize"] or not (strips is None or isinstance(strips, bool)):
        key = odd or ("do_basic_tokenize" if not flags["do_basic_tokenize"] else "strip_accents")
        raise ModelError(f"{path.with_name('tokenizer_config.json')}: {key}={short(config[key])} is not supported")
    return word_piece_backend(
        _vocab(path),
        named,
        str(path),
        is_lower=flags["do_lower_case"],
        parts_chinese=flags["tokenize_chinese_chars"],
        strips_accents=strips,
        has_types=name != "MPNetTokenizer",
    )


def _vocab(path: Path) -> dict[str, int]:
    lines = read_text(path, _MAX_BYTES).split("\n")
    if lines[-1] == "":
        lines.pop()
    # of a token that is there twice the last counts, as transformers reads it; its id is its line
    return {line.removesuffix("\r"): i for i, line in enumerate(lines)}
