"""The tokenizer of a list of tokens in base64 and their ranks, as tiktoken reads one, built for the tokenizers library.

Called by vocabularies.py. The file does not say how text is cut into words, nor which special tokens come behind its
own: both hang on the model it was published with.
"""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.errors import ModelError, short
from albireo.json_file import read_bytes
from albireo.text.byte_ranks import merges, ranked
from albireo.text.gguf_words import WORDS, Words

if TYPE_CHECKING:
    import tokenizers

#: Real files have 160,000 tokens and 3 MB, and 256 special tokens.
_MAX_BYTES, _MAX_SPECIAL = 64 * 2**20, 2**16


#: Of Kimi K2, Kimi Linear, Moonlight. It also puts the keys of tools in order before a template sees them.
KIMI = "TikTokenTokenizer"


@dataclass(frozen=True, slots=True)
class RankedClass:
    """What a class of tokenizers implies.

    Fields:
        words: how text is cut.
        special: tokens behind those of the file, in order.
        num_reserved: how many there are at least; unnamed ones are called by their ids.
        roles: special tokens where tokenizer_config.json does not name them.
    """

    words: Words
    special: tuple[str, ...] = ()
    num_reserved: int = 0
    roles: Mapping[str, str] = field(default_factory=dict)


CLASSES: Mapping[str, RankedClass] = {
    KIMI: RankedClass(WORDS["kimi-k2"], num_reserved=256, roles={"bos_token": "[BOS]", "eos_token": "[EOS]"}),
    # Qwen 1
    "QWenTokenizer": RankedClass(
        WORDS["qwen2"],
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))),
        roles={"eos_token": "<|endoftext|>"},
    ),
    # Hunyuan
    "HYTokenizer": RankedClass(
        WORDS["qwen2"],
        (
            *("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"),
            *(f"<|extra_{i}|>" for i in range(205)),
        ),
    ),
}


def ranked_backend(path: Path, config: Mapping[str, Any], kind: RankedClass) -> tokenizers.Tokenizer:
    """The tokenizer in a file of tokens and ranks. Nothing goes before a text.

    Args: config: of tokenizer_config.json, which names special tokens by id (added_tokens_decoder).
    Raises: ModelError naming the file and the line that is damaged. Cost: 1 s for a vocabulary of 150,000.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    ranks = ranked(_tokens(path), f"{path}: token")
    names = _special(path, len(ranks), config, kind)
    both = next((name for name in names if name in ranks), None)
    if both is not None or len(set(names)) != len(names):
        twice = both or Counter(names).most_common(1)[0][0]
        raise ModelError(f"{path}: the special token {short(twice)} is there twice")
    vocab = ranks | {name: len(ranks) + i for i, name in enumerate(names)}
    backend = Tokenizer(models.BPE(vocab, merges(ranks), ignore_merges=True))
    if kind.words.is_composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = kind.words.pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    listed = config.get("added_tokens_decoder") or {}
    told = {int(key): token for key, token in listed.items() if isinstance(token, Mapping)}
    plain = {i for i, token in told.items() if token.get("special") is False}
    backend.add_tokens([AddedToken(name, special=vocab[name] not in plain, normalized=False) for name in names])
    return backend


def _special(path: Path, num_tokens: int, config: Mapping[str, Any], kind: RankedClass) -> list[str]:
    """Names of the ids behind the file's own."""
    listed = config.get("added_tokens_decoder") or {}
    told = {int(key): token.get("content") for key, token in listed.items() if isinstance(token, Mapping)}
    count = max([len(kind.special), kind.num_reserved, *(i + 1 - num_tokens for i in told)])
    if count > _MAX_SPECIAL:
        raise ModelError(
            f"{path.with_name('tokenizer_config.json')}: added_tokens_decoder names the id {num_tokens + count - 1}, "
            f"and {path.name} has {num_tokens} tokens; at most {_MAX_SPECIAL} may be behind them"
        )
    known = dict(enumerate(kind.special, num_tokens))
    return [
        str(told.get(i) or known.get(i) or f"<|reserved_token_{i}|>") for i in range(num_tokens, num_tokens + count)
    ]


def _tokens(path: Path) -> list[bytes]:
    """Tokens by rank. A token that is there twice has its first place, and those behind it move up, as with Hunyuan."""
    found: dict[bytes, None] = {}
    for number, line in enumerate(read_bytes(path, _MAX_BYTES).split(b"\n"), 1):
        if not line.strip():
            continue
        encoded, _, rank = line.strip().partition(b" ")
        try:
            token = b64decode(encoded, validate=True)
        except ValueError:
            token = b""
        if not token or not rank.isdigit() or int(rank[:9]) != number - 1:
            raise ModelError(
                f"{path}: line {number} is {short(line.decode('utf-8', 'replace'))}; it needs a token in base64 and "
                f"the rank {number - 1}"
            )
        found.setdefault(token)
    return list(found)
