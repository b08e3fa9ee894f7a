"""The tokenizer of a tekken.json, as Mistral ships it, built for the tokenizers library.

Called by tokenizer.py and tokenizer_files.py. Such a file holds a vocabulary of tiktoken's kind: byte strings by rank,
and a pattern that cuts text into words; of the bytes of a word those two neighbours are joined first whose union has
the lowest rank. The ids of special tokens come before all others. Does not know the files beside it.
"""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.json_file import Fields, read_json
from albireo.text.byte_ranks import merges, ranked

if TYPE_CHECKING:
    import tokenizers

TEKKEN = "tekken.json"
#: Roles of special tokens, the same in every such file.
ROLES: Mapping[str, str] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

#: Those of files that list none, by rank. Versions since v11 list theirs.
_FIXED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
_LISTS_NONE = ("v1", "v2", "v3", "v7")
#: What ranks without a token are called.
_FILLER = "<SPECIAL_{}>"

#: A file for each version of which a way to write chats is known, and what they have in common.
_CHATS = Path(__file__).with_name("tekken_chats")
_CHAT_VERSIONS = ("v3", "v7", "v11", "v13")
#: Of all tokens, special ones included; real files have 131,072.
_MAX_VOCAB = 2**22


def read_tekken(path: Path) -> Fields:
    """Raises: ModelError for a file that is too large, or no JSON object. Cost: 0.3 s."""
    return Fields(read_json(path), str(path))


def chat_template(file: Fields) -> str | None:
    """Mistral's way to write chats for files of this version, which name none themselves; None for other versions."""
    version = (file.table("config") or {}).get("version")
    if version not in _CHAT_VERSIONS:
        return None
    return "".join((_CHATS / f"{name}.jinja").read_text("utf-8") for name in (version, "turns"))


def tekken_backend(file: Fields) -> tokenizers.Tokenizer:
    """The tokenizer in a file, with the ids that Mistral's own gives. BOS goes before a text.

    Raises: ModelError naming the file and the value that is damaged; UnsupportedModel for special tokens that are
        ordinary ones, too.
    Cost: 1.2 s for a vocabulary of 131,072, most of it with the interpreter lock held.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    path = file.where
    config = Fields(file.table("config") or {}, f"{path}: config")
    size = config.integer("default_vocab_size", 1, _MAX_VOCAB)
    num_special = config.integer("default_num_special_tokens", 1, size)
    special = _special_tokens(file.raw("special_tokens"), num_special, config, path)
    ranks = _ordinary_tokens(file.raw("vocab"), size - num_special, path)
    vocab = {text: i for i, text in enumerate((*special, *ranks))}
    if len(vocab) != size:
        both = next(text for text in special if text in ranks)
        raise UnsupportedModel(f"{path}: {both!r} is a special token and one of vocab, too; the two have one name here")
    backend = Tokenizer(models.BPE(vocab, merges(ranks), ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [_words(config), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    bos = ROLES["bos_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
    )
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return backend


def _words(config: Fields) -> Any:
    from tokenizers import Regex, pre_tokenizers

    pattern = config.text("pattern")
    try:
        return pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception as error:
        config.fail("pattern", pattern, f"is no regular expression: {error}")


def _special_tokens(entries: Any, count: int, config: Fields, path: str) -> list[str]:
    """Texts by rank, count of them."""
    if entries is None:
        if config.text("version") not in _LISTS_NONE:
            raise ModelError(f"{path}: special_tokens is missing, which files of version {config.text('version')} have")
        entries = [{"rank": i, "token_str": text} for i, text in enumerate(_FIXED)]
    if not isinstance(entries, list):
        raise ModelError(f"{path}: special_tokens={short(entries)} must be a list of tokens")
    texts: dict[int, str] = {}
    for entry in entries:
        rank, text = (entry.get("rank"), entry.get("token_str")) if isinstance(entry, dict) else (None, None)
        if type(rank) is not int or not 0 <= rank < count or rank in texts or not isinstance(text, str) or not text:
            raise ModelError(
                f"{path}: special_tokens holds {short(entry)}; it needs a token_str and a rank of its own below {count}"
            )
        texts[rank] = text
    found = [texts.get(rank, _FILLER.format(rank)) for rank in range(count)]
    twice = [text for text, times in Counter(found).items() if times > 1]
    if twice:
        raise ModelError(f"{path}: special_tokens holds {short(twice[0])} twice")
    if ROLES["bos_token"] not in found:
        raise ModelError(f"{path}: special_tokens has no {ROLES['bos_token']}, which goes before every text")
    return found


def _ordinary_tokens(entries: Any, count: int, path: str) -> dict[str, int]:
    """Token, a character for each byte, -> rank: of the first count tokens of the file, by rank."""
    if not isinstance(entries, list) or not 256 <= count <= len(entries):
        there = len(entries) if isinstance(entries, list) else short(entries)
        raise ModelError(f"{path}: vocab has {there} tokens; config asks for {count} of them, 256 at least")
    tokens = [_bytes_of(entry, rank, path) for rank, entry in enumerate(entries[:count])]
    odd = next((rank for rank, data in enumerate(tokens[:256]) if data != bytes([rank])), None)
    if odd is not None:
        raise ModelError(
            f"{path}: vocab[{odd}] is {short(tokens[odd])}; the first 256 tokens must be the bytes, in order"
        )
    return ranked(tokens, f"{path}: vocab")


def _bytes_of(entry: Any, rank: int, path: str) -> bytes:
    if not isinstance(entry, dict) or type(entry.get("rank")) is not int or entry["rank"] != rank:
        raise ModelError(f"{path}: vocab[{rank}]={short(entry)} must be an object with rank {rank}")
    text: Any = entry.get("token_bytes")
    try:
        data = b64decode(text, validate=True)
    except (TypeError, ValueError):
        data = b""
    if not data:
        raise ModelError(f"{path}: vocab[{rank}] has token_bytes={short(text)}, which must be bytes in base64")
    return data
