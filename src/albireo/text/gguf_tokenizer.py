"""The tokenizer in the settings of a GGUF file, built for the tokenizers library.

Called by api. Four kinds: byte-level BPE with merges (gpt2: Llama 3, Qwen, gpt-oss), whose words are those of
gguf_words.py; SentencePiece's BPE by scores with bytes for what it lacks (llama: Llama 2, Mistral; gemma4: by a list of
merges); its pieces that are likeliest together (t5: XLM-RoBERTa); and BERT's pieces of words (bert). Does not know the
file: settings come as a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

from albireo.errors import ModelError, UnsupportedModel
from albireo.text.gguf_words import WORDS
from albireo.text.panics import is_panic, told
from albireo.text.sentence_pieces import merges_of_scores
from albireo.text.tokenizer import Tokenizer
from albireo.text.tokenizer_files import TokenizerFiles
from albireo.text.word_pieces import word_piece_backend

if TYPE_CHECKING:
    import tokenizers

_PREFIX = "tokenizer.ggml."
_UNKNOWN, _CONTROL, _USER = 2, 3, 4
_ROLES = ("bos", "eos", "unknown", "padding", "seperator", "mask", "cls")
_NAMES = {"unknown": "unk_token", "padding": "pad_token", "seperator": "sep_token"}

#: tokenizer.ggml.model; the last is SentencePiece's with a list of merges.
_KINDS = ("gpt2", "llama", "bert", "t5", "gemma4")
_WITH_MERGES = _KINDS[-1]
#: What begins the first piece of a word, where others of BERT's have "##".
_BEGINS = "▁"


def gguf_tokenizer(settings: Mapping[str, Any], where: str) -> Tokenizer:
    """Args: settings: of the file, arrays of numbers as numpy arrays.

    Raises: ModelError for settings that are missing or contradict each other; UnsupportedModel for another kind.
    """
    from tokenizers import AddedToken

    read = _Settings(settings, where)
    kind, tokens = read.text("model"), read.strings("tokens")
    if kind not in _KINDS:
        read.unsupported("model", kind, f"supported: {', '.join(_KINDS)}")
    types = read.numbers("token_type", len(tokens))
    if kind == "bert":
        tokens = [_word_piece(token, token_type) for token, token_type in zip(tokens, types, strict=True)]
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise ModelError(f"{where}: tokenizer.ggml.tokens names {len(tokens) - len(vocab)} tokens twice")
    named = _named(read, tokens)
    try:
        if kind == "bert":
            backend = _word_pieces(read, vocab, named)
        elif kind == "t5":
            backend = _likely_pieces(read, tokens, named)
        else:
            backend = _byte_level(read, vocab) if kind == "gpt2" else _sentence_piece(read, kind, vocab, types, named)
        special = (_CONTROL,) if kind == "gpt2" else (_CONTROL, _UNKNOWN)
        found = [(t, i in special) for t, i in zip(tokens, types, strict=True) if i in (*special, _USER)]
        backend.add_tokens([AddedToken(t, special=s, normalized=False) for t, s in found if t])
        if kind not in ("bert", "t5"):
            _add_ends(backend, read, named, _begins(kind, read))
    except ModelError:
        raise
    except BaseException as error:
        # The library panics on some damaged vocabularies; its panic is not an Exception.
        if isinstance(error, Exception) or is_panic(error):
            raise ModelError(f"{where}: its tokenizer is not usable: {told(error)}") from None
        raise
    files = TokenizerFiles(Path(where), named, (), (), None, read.chat_templates())
    return Tokenizer(backend, files)


class _Settings:
    """Checked access to the settings of the tokenizer."""

    def __init__(self, settings: Mapping[str, Any], where: str) -> None:
        self._settings, self.where = settings, where

    @property
    def embeds(self) -> bool:
        """Whether the file says how texts are pooled, or that tokens see those behind them, as an encoder's."""
        kind = self._settings.get("general.architecture")
        is_pooled = self._settings.get(f"{kind}.pooling_type") not in (None, 0)
        return is_pooled or self._settings.get(f"{kind}.attention.causal") is False

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self._settings.get(_PREFIX + key)
        if value is None:
            return default
        if type(value) is not kind:
            raise ModelError(f"{self.where}: {_PREFIX}{key}={short(value)} must be of type {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        value = self.get(key, str)
        if value is None:
            raise ModelError(f"{self.where}: {_PREFIX}{key} is missing; name a directory as tokenizer")
        return str(value)

    def strings(self, key: str) -> list[str]:
        value = self.get(key, list)
        if value is None or not all(isinstance(item, str) for item in value):
            raise ModelError(f"{self.where}: {_PREFIX}{key} must be an array of strings; name a directory as tokenizer")
        return list(value)

    def numbers(self, key: str, count: int) -> list[Any]:
        value: Any = self._settings.get(_PREFIX + key)
        numbers = value.tolist() if hasattr(value, "tolist") else None
        if not isinstance(numbers, list) or len(numbers) != count:
            raise ModelError(f"{self.where}: {_PREFIX}{key} must be an array of {count} numbers, one for each token")
        return numbers

    def array(self, key: str) -> Any:
        """An array of bytes, or None."""
        value: Any = self._settings.get(_PREFIX + key)
        if value is not None and getattr(value, "dtype", None) not in ("uint8", "int8"):
            raise ModelError(f"{self.where}: {_PREFIX}{key} must be an array of bytes")
        return value

    def chat_templates(self) -> dict[str, str]:
        """Name -> source: tokenizer.chat_template, and tokenizer.chat_template.NAME for others."""
        templates = {}
        for key, value in self._settings.items():
            stem, dot, name = key.partition(".chat_template")
            if stem != "tokenizer" or not dot or name == "s":  # chat_templates lists the names of the others
                continue
            if not isinstance(value, str):
                raise ModelError(f"{self.where}: {key}={short(value)} must be a string")
            templates[name.removeprefix(".") or "default"] = value
        return templates

    def unsupported(self, key: str, value: str, what: str) -> None:
        raise UnsupportedModel(
            f"{self.where}: {_PREFIX}{key}={short(value)} is not supported; {what}; or name a directory as tokenizer"
        )


def _named(read: _Settings, tokens: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for role in _ROLES:
        token_id = read.get(f"{role}_token_id", int)
        if token_id is None or token_id == 2**32 - 1:  # llama.cpp's "none"
            continue
        if not 0 <= token_id < len(tokens):
            raise ModelError(f"{read.where}: {_PREFIX}{role}_token_id={token_id} is none of {len(tokens)} tokens")
        named[_NAMES.get(role, f"{role}_token")] = tokens[token_id]
    return named


def _byte_level(read: _Settings, vocab: dict[str, int]) -> tokenizers.Tokenizer:
    """Source: encoder.py of GPT-2."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    pre = read.get("pre", str, "default")
    if pre not in WORDS:
        read.unsupported("pre", pre, f"supported: {', '.join(WORDS)}")
    merges = [_pair(merge, read) for merge in read.strings("merges")]
    backend = Tokenizer(models.BPE(vocab, merges, ignore_merges=WORDS[pre].keeps_whole))
    if WORDS[pre].is_composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = WORDS[pre].pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    return backend


def _pair(merge: str, read: _Settings) -> tuple[str, str]:
    # a token may begin with a space only where none is written as a byte, which none is
    left, _, right = merge.partition(" ")
    if not left or not right:
        raise ModelError(f"{read.where}: {_PREFIX}merges holds {short(merge)}, which is no pair of tokens")
    return left, right


def _sentence_piece(
    read: _Settings, kind: str, vocab: dict[str, int], types: list[int], named: dict[str, str]
) -> tokenizers.Tokenizer:
    """SentencePiece's BPE merges the pair whose result has the highest score; written as a list of merges, as it lies
    in files of Gemma 4."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = named.get("unk_token") or next((t for t, i in vocab.items() if types[i] == _UNKNOWN), None)
    if kind == _WITH_MERGES:
        merges = [_pair(merge, read) for merge in read.strings("merges")]
    else:
        merges = merges_of_scores(vocab, read.numbers("scores", len(vocab)), read.where)
    backend = Tokenizer(models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    has_prefix = read.get("add_space_prefix", bool, kind != _WITH_MERGES)
    prepend, strip = ([normalizers.Prepend("▁")], [decoders.Strip(" ", 1, 0)]) if has_prefix else ([], [])
    backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return backend


def _word_piece(token: str, token_type: int) -> str:
    """As it lies in a vocab.txt."""
    if token_type == _CONTROL:
        return token
    return token.removeprefix(_BEGINS) if token.startswith(_BEGINS) else f"##{token}"


def _word_pieces(read: _Settings, vocab: dict[str, int], named: dict[str, str]) -> tokenizers.Tokenizer:
    """Of a vocabulary without capitals: llama.cpp makes all letters small, whatever it was converted from."""
    roles = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    for role, default in roles.items():
        named.setdefault(role, default)
    return word_piece_backend(vocab, named, f"{read.where}: {_PREFIX}tokens")


def _likely_pieces(read: _Settings, tokens: list[str], named: dict[str, str]) -> tokenizers.Tokenizer:
    """The cut of a word whose pieces have the highest scores together. Source: Kudo 2018, subword regularization."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    scores = read.numbers("scores", len(tokens))
    unknown = named.get("unk_token")
    if unknown is None:
        raise ModelError(f"{read.where}: {_PREFIX}unknown_token_id is missing; name a directory as tokenizer")
    scored = list(zip(tokens, map(float, scores), strict=True))
    backend = Tokenizer(models.Unigram(scored, tokens.index(unknown), byte_fallback=False))
    characters: Any = read.array("precompiled_charsmap")
    if characters is not None:
        backend.normalizer = normalizers.Precompiled(characters.astype("uint8").tobytes())
    begins = "always" if read.get("add_space_prefix", bool, True) else "never"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=_BEGINS, prepend_scheme=begins)]
    )
    backend.decoder = decoders.Metaspace(replacement=_BEGINS, prepend_scheme=begins)
    first, behind = (
        [named[role]] if role in named and read.get(f"add_{role}", bool, True) else []
        for role in ("bos_token", "eos_token")
    )
    special = [(token, tokens.index(token)) for token in (*first, *behind)]
    backend.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *behind], pair=[*first, "$A", *behind, *behind, "$B", *behind], special_tokens=special
    )
    return backend


def _begins(kind: str, read: _Settings) -> bool:
    """Whether BOS goes before a text where the file does not say."""
    return kind != "gpt2" or WORDS[read.text("pre")].begins


def _add_ends(backend: tokenizers.Tokenizer, read: _Settings, named: dict[str, str], default: bool) -> None:
    """BOS before a prompt, where the model wants it; EOS behind it where it wants that and embeds texts, as
    Qwen3-Embedding does: any other prompt is to be continued."""
    from tokenizers import processors

    first = [named["bos_token"]] if "bos_token" in named and read.get("add_bos_token", bool, default) else []
    ends = read.embeds and read.get("add_eos_token", bool, False)
    behind = [named["eos_token"]] if "eos_token" in named and ends else []
    if not first and not behind:
        return
    backend.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *behind],
        pair=[*first, "$A", *behind, *first, "$B", *behind],
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys((*first, *behind))],
    )
