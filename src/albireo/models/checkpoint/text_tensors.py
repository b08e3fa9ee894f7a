"""Tensors of the text part of a model, by the names of one of text alone. And those of a model that was written without
its head, whose names lack what they begin with; or as a part of another, whose names have more.

Called by weights.py. Does not know what the other parts compute: they are left where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from albireo.errors import ModelError, WeightMismatch, short
from albireo.json_file import Fields, read_json
from albireo.models.checkpoint.conformer_names import OF_WHOLE, SUBSAMPLING, names_of_decoder
from albireo.models.checkpoint.first_names import name_of_block, renames
from albireo.models.checkpoint.safetensors_file import RawTensor, raw_tensor
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.sample_tower_names import OMNI
from albireo.models.settings.rope_settings import MAX_POSITIONS

#: What names begin with, and what they are to begin with: of several the first.
Prefixes = Sequence[tuple[str, str]]
#: What names of tensors of the text part begin with, and what with in a model of text alone: as transformers writes
#: them, and as it did before 4.52.
_PREFIXES = (
    # of ColQwen, whose last linear has another name in some files
    ("vlm.model.language_model.", "model."),
    ("vlm.language_model.model.", "model."),
    ("vlm.language_model.", "model."),
    *(
        (f"{whole}{part}", f"model.{part}")
        for whole in ("vlm.model.", "vlm.", "language_model.")
        for part in ("embed_tokens.", "layers.", "norm.")
    ),
    ("vlm.lm_head.", "lm_head."),
    ("embedding_proj_layer.", "embedding_proj_layer."),
    ("custom_text_proj.", "embedding_proj_layer."),
    # of HyperCLOVA X Vision, as published
    ("model.language_model.model.", "model."),
    ("model.language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("model.text_model.", "model."),
    ("language_model.backbone.", "backbone."),
    # as transformers 5.24 writes those of Qianfan-OCR
    ("language_model.model.encoder.layers.", "model.layers."),
    # and those of Kimi K2.5
    ("language_model.model.blocks.", "model.layers."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    # of InternLM 2, see first_names.py
    ("language_model.output.", "output."),
    ("thinker.model.", "model."),
    # of MiniCPM-V, as published
    ("llm.model.", "model."),
    ("llm.lm_head.", "lm_head."),
    ("thinker.lm_head.", "lm_head."),
    ("lm_head.", "lm_head."),
)
#: Of a model whose text part has the names of one of text alone, beside its tower.
_BESIDE_A_TOWER = (("model.", "model."), ("lm_head.", "lm_head."))
_TOWER = ("visual.", "vit.", "vit_large_projector.", "vision_tower.patch_embed.patchifier.")
#: And of one whose other parts have names that begin as those do; what tells it: ERNIE 4.5 VL's resampler, what Phi-4
#: multimodal has beside its table of embeddings, and the encoders of DeepSeek-OCR and Phi-3-vision.
_AMONG_OTHERS = tuple((part, part) for part in ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."))
_OTHERS = ("model.resampler_model.", "model.embed_tokens_extend.", "model.sam_model.", "model.vision_embed_tokens.")
#: Of Mistral Large 4, as published, what the text part has; see first_names.py.
_LARGE4 = (
    ("layers.", "model.layers."),
    ("tok_embeddings.", "model.embed_tokens."),
    ("lerope.", "model.rotary_emb."),
    ("norm.", "model.norm."),
    ("output.", "lm_head."),
)
_LARGE4_ALPHA = "lerope.alpha"
#: Of Dory's attention.
_DORY = (".mixer.sqk", ".self_attn.sqk")
#: Of which a model with parts has some.
_WITH_PARTS = ("language_model.", "model.language_model.", "model.text_model.", "thinker.model.", "vlm.", "llm.model.")
#: A tensor of a model written without its head -> what names are to begin with.
_HEADLESS = {
    "tokens_embed.weight": (("lm_head.", "lm_head."), ("", "transformer.")),
    **dict.fromkeys(("wte.weight", "word_embeddings.weight"), (("lm_head.", "lm_head."), ("", "transformer."))),
    "decoder.embed_tokens.weight": (("lm_head.", "lm_head."), ("decoder.", "model.decoder.")),
    "embed_tokens.weight": (("lm_head.", "lm_head."), ("score.", "score."), ("", "model.")),
    "embeddings.word_embeddings.weight": (("", ""),),
    "bert.embeddings.word_embeddings.weight": (("bert.", ""), ("", "")),
    "roberta.embeddings.word_embeddings.weight": (("roberta.", ""), ("", "")),
    "roberta.embeddings.word_embeddings.parametrizations.weight.original": (("roberta.", ""), ("", "")),
    "embeddings.word_embeddings.parametrizations.weight.original": (("", ""),),
    "mpnet.embeddings.word_embeddings.weight": (("mpnet.", ""), ("", "")),
    "distilbert.embeddings.word_embeddings.weight": (("distilbert.", ""), ("", "")),
    "deberta.embeddings.word_embeddings.weight": (("deberta.", ""), ("", "")),
    "albert.embeddings.word_embeddings.weight": (("albert.", ""), ("", "")),
    "ernie.embeddings.word_embeddings.weight": (("ernie.", ""), ("", "")),
    "electra.embeddings.word_embeddings.weight": (("electra.", ""), ("", "")),
    "nomic_bert.embeddings.word_embeddings.weight": (("nomic_bert.", ""), ("", "")),
    "gte.embeddings.word_embeddings.weight": (("gte.", ""), ("", "")),
    "new.embeddings.word_embeddings.weight": (("new.", ""), ("", "")),
    # the decoder among ModernBERT's, whose queries lie by themselves
    "layers.0.attn.q_proj.weight": (("", "model."),),
    "model.layers.0.attn.q_proj.weight": (("", ""),),
    "model.embeddings.tok_embeddings.weight": (("model.", ""), ("", "")),
}
#: Of a model that writes down what is said; its encoder's first tensor tells it.
_DECODER = (("model.decoder.", "model.decoder."), ("proj_out.", "lm_head."))
ENCODER = "model.encoder.conv1.weight"
#: Of one whose encoder is a FastConformer, by NeMo's names.
CONFORMER = tuple(f"{whole}encoder.pre_encode.out.weight" for whole in ("model.", ""))
NEMO_POSITIONS = "transf_decoder._embedding.position_embedding.pos_enc"
_NEMO_TABLE = "transf_decoder._embedding.token_embedding.weight"
_NEMO_DECODER = (
    *((f"{whole}transf_decoder.", "transf_decoder.") for whole in ("model.", "")),
    ("log_softmax.mlp.layer0.", "lm_head."),
)
#: Of LASR's encoder.
LASR = "encoder.subsampler.dense_0.weight"
#: Of one by the names of transformers, whose decoder is a head: of CTC, or of what joins encoder and LSTM.
_HEADS = (("ctc_head.", "lm_head."), ("joint.head.", "lm_head."))
#: Of DeepSeek V4: as its authors have them, as transformers writes them, and as it has them in memory. Layers that
#: guess further tokens have other names.
_V4 = (
    *(("model.", "model."), ("lm_head.", "lm_head."), ("head.", "lm_head."), ("layers.", "model.layers.")),
    *(("embed.", "model.embed_tokens."), ("norm.", "model.norm."), ("hc_head_", "model.hc_head.hc_")),
)
_OF_V4 = ".attn.attn_sink"
#: Of it the experts of each token, whole numbers.
_TABLE, _ROUTER = ".gate.tid2eid", ".gate.weight"
_WHOLE = {"I64": "<i8", "I32": "<i4"}
#: What norms were called in files that were converted long ago.
_OLD_NORMS = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}


def open_tensors(directory: Path) -> SafetensorsFiles | TextTensors:
    """The tensors of a directory, by the names of a model of text alone."""
    files = SafetensorsFiles(directory)
    if any(name.startswith(_WITH_PARTS) for name in files.names):
        return TextTensors(files, _PREFIXES)
    if any(name.endswith((_OF_V4, _TABLE)) for name in files.names):
        return _WithTables(files, _V4)
    if any(name.startswith(_OTHERS) for name in files.names):
        return TextTensors(files, _AMONG_OTHERS)
    if any(name.endswith(_DORY) for name in files.names):
        return TextTensors(files, name_of_block)
    if _LARGE4_ALPHA in files:
        return TextTensors(files, _LARGE4)
    if any(name.startswith(_TOWER) for name in files.names):
        return TextTensors(files, _BESIDE_A_TOWER)
    if ENCODER in files:
        return TextTensors(files, _DECODER)
    if any(name in files for name in CONFORMER):
        return TextTensors(files, _NEMO_DECODER)
    is_heard = SUBSAMPLING in files or LASR in files or any(name.startswith(OMNI) for name in files.names)
    if is_heard and any(name.startswith(old) for name in files.names for old, _ in _HEADS):
        return _OfFrames(files, _HEADS)
    if OF_WHOLE in files:
        return _WithPositions(files, tuple(names_of_decoder(files.names).items()))
    prefixes = next((prefixes for name, prefixes in _HEADLESS.items() if name in files), None)
    if prefixes is None and renames(files.names):
        prefixes = (("", ""),)
    return files if prefixes is None else TextTensors(files, prefixes)


def text_name(name: str) -> str:
    """A name of the text part of a model with other parts, as a model of text alone has it; any other as it is."""
    found = next(((old, new) for old, new in _PREFIXES if name.startswith(old)), ("", ""))
    return found[1] + name.removeprefix(found[0])


class TextTensors:
    """Tensors of a directory whose names begin with one of prefixes, which becomes another; see SafetensorsFiles.

    Args: prefixes: or what says of a name which one it begins with, and what that becomes.
    """

    def __init__(self, files: SafetensorsFiles, prefixes: Prefixes | Callable[[str], tuple[str, str] | None]) -> None:
        self.directory = files.directory
        self._files = files
        self._stored: dict[str, str] = {}
        first = renames(files.names)
        for name in files.names:
            if callable(prefixes):
                found = prefixes(name)
            else:
                found = next(((old, new) for old, new in prefixes if name.startswith(old)), None)
            if found is None:
                continue
            renamed = found[1] + name.removeprefix(found[0])
            for old, new in _OLD_NORMS.items():
                renamed = renamed.removesuffix(old) + new if renamed.endswith(old) else renamed
            for old, new in first.items():
                renamed = renamed.replace(old, new)
            if renamed in self._stored:
                files.close()
                raise ModelError(
                    f"{files.directory}: {short(renamed)} is there twice, also as {short(name)}; one must go"
                )
            self._stored[renamed] = name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._stored))

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def stored(self) -> dict[str, tuple[str, tuple[int, ...], memoryview]]:
        """Each as the files have it: its name there -> type as the format names it, shape, bytes."""
        names, files = sorted(self._stored.values()), self._files
        return {name: (files.type_name(name), files.shape(name), files.buffer(name)) for name in names}

    def shape(self, name: str) -> tuple[int, ...]:
        return self._files.shape(self._name(name))

    def tensor(self, name: str) -> RawTensor:
        return self._files.tensor(self._name(name))

    def release(self, name: str) -> None:
        self._files.release(self._name(name))

    def dtype(self, name: str) -> str | None:
        return self._files.dtype(self._name(name))

    def type_name(self, name: str) -> str:
        return self._files.type_name(self._name(name))

    def buffer(self, name: str) -> memoryview:
        return self._files.buffer(self._name(name))

    @property
    def settings(self) -> Mapping[str, str]:
        return self._files.settings

    def close(self) -> None:
        self._files.close()

    def _name(self, name: str) -> str:
        """As stored; an unknown one stays, and is refused as such."""
        return self._stored.get(name, name)


class _WithTables(TextTensors):
    """Of a model some of whose layers have experts by token: tables of whole numbers, which are read as float32, and
    are held until they are released."""

    def __init__(self, files: SafetensorsFiles, prefixes: Prefixes) -> None:
        super().__init__(files, prefixes)
        self._tables: dict[str, RawTensor] = {}

    def dtype(self, name: str) -> str | None:
        return "float32" if name.endswith(_TABLE) else super().dtype(name)

    def type_name(self, name: str) -> str:
        return "F32" if name.endswith(_TABLE) else super().type_name(name)

    def tensor(self, name: str) -> RawTensor:
        """Raises: WeightMismatch for a table of other numbers than those of experts."""
        if not name.endswith(_TABLE):
            return super().tensor(name)
        if name not in self._tables:
            self._tables[name] = self._table(name)
        return self._tables[name]

    def release(self, name: str) -> None:
        self._tables.pop(name, None)
        super().release(name)

    def _table(self, name: str) -> RawTensor:
        kind, numbers = super().type_name(name), f"{self.directory}: tensor {short(name)}"
        if kind not in _WHOLE:
            raise WeightMismatch(f"{numbers} has type {kind}; numbers of experts must be {', '.join(_WHOLE)}")
        found = np.frombuffer(self.buffer(name), _WHOLE[kind]).reshape(self.shape(name))
        router = name.removesuffix(_TABLE) + _ROUTER
        count = self.shape(router)[0] if router in self else 0
        if found.size and not (found.min() >= 0 and found.max() < count):
            raise WeightMismatch(f"{numbers} has {found.min()} to {found.max()}; there are {count} experts")
        return raw_tensor(name, "float32", found.astype(np.float32))


class _OfFrames(TextTensors):
    """Of a head that is a convolution of one frame: a linear, whose weight has two dimensions here."""

    def shape(self, name: str) -> tuple[int, ...]:
        shape = super().shape(name)
        return shape[:2] if shape[2:] == (1,) else shape

    def tensor(self, name: str) -> RawTensor:
        return replace(super().tensor(name), shape=self.shape(name))


class _WithPositions(TextTensors):
    """Of a decoder whose table of positions is in no file: sines, then cosines, of each position, divided by the root
    of how many they are. Source: NVIDIA NeMo, FixedPositionalEncoding."""

    def __init__(self, files: SafetensorsFiles, prefixes: Prefixes) -> None:
        super().__init__(files, prefixes)
        path = files.directory / "config.json"
        decoder = Fields(Fields(read_json(path), str(path)).table("decoder_config") or {}, f"{path}: decoder_config")
        self._count = decoder.integer("max_position_embeddings", 1, MAX_POSITIONS, 1024)
        self._table: RawTensor | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted((*self._stored, NEMO_POSITIONS)))

    def __contains__(self, name: object) -> bool:
        return name == NEMO_POSITIONS or super().__contains__(name)

    def shape(self, name: str) -> tuple[int, ...]:
        if name != NEMO_POSITIONS:
            return super().shape(name)
        table = super().shape(_NEMO_TABLE)
        if len(table) != 2:
            raise WeightMismatch(
                f"{self.directory}: tensor {_NEMO_TABLE} is {list(table)}; it must be a table of tokens"
            )
        return self._count, table[1]

    def tensor(self, name: str) -> RawTensor:
        if name != NEMO_POSITIONS:
            return super().tensor(name)
        if self._table is None:
            count, width = self.shape(name)
            speeds = 10000.0 ** (-np.arange(0, width, 2) / width)
            angles = np.arange(count)[:, None] * speeds
            waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1) / np.sqrt(width)
            self._table = raw_tensor(name, "float32", np.ascontiguousarray(waves, np.float32))
        return self._table

    def release(self, name: str) -> None:
        if name != NEMO_POSITIONS:
            super().release(name)

    def dtype(self, name: str) -> str | None:
        return "float32" if name == NEMO_POSITIONS else super().dtype(name)

    def type_name(self, name: str) -> str:
        return "F32" if name == NEMO_POSITIONS else super().type_name(name)
