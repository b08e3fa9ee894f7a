"""The tokenizer of a SentencePiece model file, built for the tokenizers library.

Called by vocabularies.py; gguf_tokenizer.py shares the merges. The file says how text is cut; what goes round it, and
which ids are not those of the file, hangs on tokenizer_class of tokenizer_config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from albireo.errors import ModelError, short
from albireo.text.sentencepiece_file import BYTE, CONTROL, NORMAL, UNKNOWN, USER, SentencePieceModel, read_sentencepiece

if TYPE_CHECKING:
    import tokenizers

#: What stands for a space in pieces.
SPACE = "▁"
#: Squared lengths of all tokens, which is what looking for their parts costs: real ones have 2 million.
_MAX_WORK = 2**26
#: Sentinels of T5 where its config does not count them, and how many it may have.
_NUM_SENTINELS, _MAX_SENTINELS = 100, 2**16
#: A word that is the name of a byte, up to where it is cut.
_NAME_OF_BYTE = r"\A<0x(?=[0-9A-F]{2}>\z)"


def _sentinels(count: int) -> tuple[str, ...]:
    return tuple(f"<extra_id_{i}>" for i in reversed(range(count)))


@dataclass(frozen=True, slots=True)
class PieceClass:
    """What a class of tokenizers implies.

    Fields:
        roles: special tokens where tokenizer_config.json does not name them.
        begins: BOS goes before a text where add_bos_token does not say; None: only add_bos_token says.
        around: what an encoder's text, and a pair of texts, stand between; None: see begins.
        in_front: what has the first ids, in place of the file's first three pieces.
        behind: what has the ids behind the file's.
        has_sentinels: those behind are as many as extra_ids says.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    begins: bool | None = None
    around: tuple[str, str] | None = None
    in_front: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    has_sentinels: bool = False


_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_BERT = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "unk", "pad", "mask")}
_ROBERTA = {**_LLAMA, "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>", "mask_token": "<mask>"}

CLASSES: Mapping[str, PieceClass] = {
    "LlamaTokenizer": PieceClass(_LLAMA, begins=True),
    "CodeLlamaTokenizer": PieceClass(_LLAMA, begins=True),
    "InternLM2Tokenizer": PieceClass({**_LLAMA, "pad_token": "</s>"}, begins=True),
    "InternLM3Tokenizer": PieceClass(_LLAMA, begins=True),
    # of ERNIE 4.5 VL as its authors publish it: nothing goes round a text
    "Ernie4_5_VLTokenizer": PieceClass(_LLAMA, begins=False),
    "GemmaTokenizer": PieceClass(
        {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}, begins=True
    ),
    "T5Tokenizer": PieceClass(
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        around=("$A </s>", "$A </s> $B </s>"),
        behind=_sentinels(_NUM_SENTINELS),
        has_sentinels=True,
    ),
    "DebertaV2Tokenizer": PieceClass(
        _BERT, around=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"), behind=("[MASK]",)
    ),
    "XLMRobertaTokenizer": PieceClass(
        _ROBERTA,
        around=("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
        in_front=("<s>", "<pad>", "</s>", "<unk>"),
        behind=("<mask>",),
    ),
}


def piece_backend(path: Path, config: Mapping[str, Any], kind: PieceClass) -> tokenizers.Tokenizer:
    """The tokenizer in a SentencePiece model, with the ids that a class gives its pieces.

    Args: config: of tokenizer_config.json, in which a piece may have another name (added_tokens_decoder).
    Raises: ModelError naming the file and the value that is damaged; UnsupportedModel for ways to cut text that are not
        known here. Cost: 0.3 s for 32,000 pieces.
    """
    from tokenizers import AddedToken, processors

    model = read_sentencepiece(path)
    if config.get("do_lower_case") or config.get("split_by_punct"):
        raise ModelError(
            f"{path.with_name('tokenizer_config.json')}: do_lower_case and split_by_punct are not supported beside "
            f"{path.name}; convert it with transformers, which writes a tokenizer.json"
        )
    backend, names = _backend(model, config, kind)
    special = [AddedToken(names[i], special=True, normalized=False) for i in _ids(model, names, CONTROL, UNKNOWN)]
    backend.add_special_tokens(special)
    backend.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=token == "<mask>")
            for token in (*kind.in_front, *_behind(path, config, kind))
        ]
    )
    bos = config.get("bos_token", kind.roles.get("bos_token"))
    bos = bos.get("content") if isinstance(bos, Mapping) else bos
    begins = config.get("add_bos_token", kind.begins)
    around = (f"{bos} $A", f"{bos} $A {bos} $B") if begins and bos else kind.around
    if around is None:
        return backend
    found = dict.fromkeys(part.partition(":")[0] for part in " ".join(around).split() if not part.startswith("$"))
    ids = {token: backend.token_to_id(token) for token in found}
    lacking = next((token for token, token_id in ids.items() if token_id is None), None)
    if lacking is not None:
        raise ModelError(f"{path}: has no piece {lacking!r}, which goes round a text")
    backend.post_processor = processors.TemplateProcessing(
        single=around[0], pair=around[1], special_tokens=list(ids.items())
    )
    return backend


def _behind(path: Path, config: Mapping[str, Any], kind: PieceClass) -> tuple[str, ...]:
    count = config.get("extra_ids")
    if not kind.has_sentinels or count is None:
        return kind.behind
    if type(count) is not int or not 0 <= count <= _MAX_SENTINELS:
        raise ModelError(
            f"{path.with_name('tokenizer_config.json')}: extra_ids={short(count)} must be 0 to {_MAX_SENTINELS}"
        )
    return _sentinels(count)


def merges_of_scores(ids: Mapping[str, int], scores: Sequence[float], where: str) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, the best score first.

    Args: scores: by id. Raises: ModelError for tokens of no real length.
    """
    work = sum(len(token) ** 2 for token in ids)
    if work > _MAX_WORK:
        raise ModelError(f"{where}: the tokens are too long for a vocabulary: squared lengths add up to {work}")
    found = []
    for token, token_id in ids.items():
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                found.append((-scores[token_id], left, right, token[:cut], token[cut:]))
    return [(left, right) for *_, left, right in sorted(found)]


def _backend(
    model: SentencePieceModel, config: Mapping[str, Any], kind: PieceClass
) -> tuple[tokenizers.Tokenizer, list[str]]:
    """The tokenizer without what goes round a text, and its tokens by id, those of the file alone."""
    from tokenizers import Tokenizer, models

    shift = len(kind.in_front) - 3 if kind.in_front else 0
    names = [*model.pieces]
    for key, token in (config.get("added_tokens_decoder") or {}).items():
        at = int(key) - shift
        if 0 <= at < len(names) and isinstance(token, Mapping) and isinstance(token.get("content"), str):
            names[at] = token["content"]
    tokens = [*kind.in_front, *names[3:]] if kind.in_front else names
    scores = [*(0.0 for _ in kind.in_front), *model.scores[3:]] if kind.in_front else model.scores
    unknown = kind.roles.get("unk_token") if kind.in_front else names[model.kinds.index(UNKNOWN)]
    users = [names[i] for i in _ids(model, names, USER)]
    falls_back = BYTE in model.kinds
    if model.algorithm == "unigram":
        scored = list(zip(tokens, scores, strict=True))
        backend = Tokenizer(models.Unigram(scored, tokens.index(str(unknown)), byte_fallback=falls_back))
    else:
        vocab = {token: token_id for token_id, token in enumerate(tokens)}
        normal = {names[i]: vocab[names[i]] for i in _ids(model, names, NORMAL) if names[i] in vocab}
        merges = merges_of_scores(normal, scores, model.where)
        backend = Tokenizer(
            models.BPE(
                vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=falls_back, ignore_merges=bool(users)
            )
        )
    _cut_as_the_file_says(backend, model, users, _prefix(model, config))
    return backend, names


def _ids(model: SentencePieceModel, names: Sequence[str], *kinds: int) -> list[int]:
    """Ids in the file of pieces of some kinds that have no other name."""
    return [i for i, kind in enumerate(model.kinds) if kind in kinds and names[i] == model.pieces[i]]


def _prefix(model: SentencePieceModel, config: Mapping[str, Any]) -> Literal["always", "first", "never"]:
    """Where a space is put: before each text between added tokens, as it always was, or with "legacy": false before
    the first alone."""
    given = config.get("add_prefix_space")
    if not (model.adds_prefix if given is None else given):
        return "never"
    return "first" if config.get("legacy") is False else "always"


def _cut_as_the_file_says(
    backend: tokenizers.Tokenizer, model: SentencePieceModel, users: Sequence[str], prefix: str
) -> None:
    """What is done to a text before it is cut into pieces, in SentencePiece's order, and the way back. Pieces of users
    are found first, and are never part of another."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.trims:
        # runs first: in a long one the search for the end of a text begins anew at each blank
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex(r"\A +| +\z"), "")]
    if prefix == "always":
        steps.append(normalizers.Prepend(SPACE))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    cuts: list[Any] = []
    if prefix == "first":
        cuts.append(pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False))
    if users:
        pattern = "|".join(re.escape(piece) for piece in sorted(users, key=len, reverse=True))
        cuts.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
        # a word that is a piece is that piece, then; what a text calls as a byte is called is no byte
        cuts.append(pre_tokenizers.Split(Regex(_NAME_OF_BYTE), "isolated"))
    if cuts:
        backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    strip = [decoders.Strip(" ", 1, 0)] if prefix != "never" else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
