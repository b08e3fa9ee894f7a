"""TowerTensors: the tensors of a vision tower and its projector, by the names that graphs use.

Called by tower.py, read by whoever packs weights. Names are those of transformers' model without its head, whatever
they begin with in the file. Weights of convolutions have two dimensions here: they are linears of patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from albireo.errors import WeightMismatch, short
from albireo.models.checkpoint.conformer_names import names_of_conformer
from albireo.models.checkpoint.safetensors_file import RawTensor, raw_tensor, stored_bytes
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.sample_tower_names import names_of_sample_tower
from albireo.models.checkpoint.text_tensors import CONFORMER, ENCODER, LASR, TextTensors
from albireo.models.gguf.files import is_gguf
from albireo.models.settings import deepseek_ocr, internvl_chat, minicpmv, phi3_v
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32
from albireo.quantization.encoded import Encoded

if TYPE_CHECKING:
    from albireo.models.gguf.projectors.file import ProjectorFile

#: What names begin with here, and in files with or without "model." before it.
_PARTS = (
    *("vision_model.", "connector.", "visual.", "vision_tower.", "multi_modal_projector.", "embed_vision."),
    *("vision_embedder.", "merger.", "vit.", "aligner.", "mlp1.", "vision_projector."),
    *("visual_embeddings_table.", "mm_projector.", "layerwise_projectors.", "spatial_projectors.", "patch_merge_mlp."),
    "resampler_model.",
)
_WHOLES = ("vlm.model.", "vlm.", "model.", "thinker.", "")
_PREFIXES = (
    # as transformers 5.24 writes that of Kimi K2.5
    ("vision_tower.encoder.patch_embed.", "vision_tower.patch_embed."),
    *(
        (f"{whole}{part}{more}", part)
        for part in _PARTS
        for whole in _WHOLES
        # SigLIP was once a model within another
        for more in (("vision_model.", "") if part in ("vision_tower.", "vision_model.") else ("",))
    ),
    # of LLaVA-NeXT
    *((f"{whole}image_newline", "image_newline") for whole in ("model.", "")),
    # of LightOnOCR, whose tower is a Pixtral
    *((f"{whole}vision_encoder.", "vision_tower.") for whole in ("model.", "")),
    *((f"{whole}vision_projection.", "multi_modal_projector.") for whole in ("model.", "")),
    # of CLIP
    ("visual_projection.", "visual_projection."),
    # of Phi-4 multimodal
    ("model.embed_tokens_extend.image_embed.", "image_embed."),
    # of Mistral Large 4, whose tower is a Pixtral too
    ("pre_mm_projector_norm.", "multi_modal_projector.norm."),
    ("patch_merger.", "multi_modal_projector.patch_merger."),
    *(
        (f"vision_language_adapter.{name}.", f"multi_modal_projector.linear_{n}.")
        for n, name in ((1, "w_in"), (2, "w_out"))
    ),
    # of PaddleOCR-VL, as it was first published and since
    *((name, "projector.") for name in ("mlp_AR.", "model.projector.", "projector.")),
)
#: Of which a model that sees has some, whatever it hears.
_VISION = tuple(f"{whole}{part}" for whole in _WHOLES for part in _PARTS if part != "multi_modal_projector.")
#: Of a tower that hears. As Qwen3-ASR was first published, and as Qwen3-Omni is, it is a part of a whole, and the
#: projector one of the tower.
_AUDIO_TOWER = "audio_tower."
_BEHIND = ("multi_modal_projector.", "embed_audio.")
_OF_SOUNDS = (
    *(
        (f"{whole}audio_tower.proj{n}.", f"multi_modal_projector.linear_{n}.")
        for whole in ("thinker.", "")
        for n in (1, 2)
    ),
    *((f"{whole}{part}", part) for part in (_AUDIO_TOWER, *_BEHIND) for whole in _WHOLES),
    # of Phi-4 multimodal
    ("model.embed_tokens_extend.audio_embed.", "audio_embed."),
)
#: Of Granite Speech.
_GRANITE = tuple(f"{whole}encoder.input_linear.weight" for whole in ("model.", ""))
_OF_GRANITE = tuple((f"{whole}{part}", part) for part in ("encoder.", "projector.") for whole in ("model.", ""))
#: Of a model that listens: its encoder, and what listens to it in each layer of the decoder; likewise of NeMo's.
_HEARD, _LISTENS = (
    ("model.encoder.", "encoder."),
    (".encoder_attn.k_proj.", ".encoder_attn.v_proj.", ".second_sub_layer.key_net.", ".second_sub_layer.value_net."),
)
_OF_CONFORMER = tuple(
    (f"{whole}{part}", part) for part in ("encoder.", "encoder_decoder_proj.") for whole in ("model.", "")
)
#: Matrices that files hold as [in, out].
_TRANSPOSED = (
    *("multi_modal_projector.mm_input_projection_weight", "visual_embeddings_table.weight"),
    "resampler.proj.weight",
)
#: Convolutions of several channels, whose weights files hold as [out, in, band, frame]: here the channel is last.
_CHANNEL_LAST = (
    *("audio_tower.conv2d2.weight", "audio_tower.conv2d3.weight"),
    *(f"audio_tower.subsample_conv_projection.{part}.conv.weight" for part in ("layer1", "conv_1")),
)
#: Vectors that graphs read as tables of one row.
_OF_ONE_ROW = (".lambda_1", ".lambda_2")


#: What has the rows of queries, of keys and of values, one third each, where others have a tensor of each.
_JOINED = ".attention.qkv."


class TowerTensors:
    """Implements backends.weights.Weights."""

    def __init__(self, stored: TextTensors | ProjectorFile) -> None:
        self.directory = stored.directory
        self._stored = stored
        #: name -> that it is a third of, and which
        self._thirds = {
            name.replace(_JOINED, f".attention.{part}_proj."): (name, place)
            for name in stored.names
            if _JOINED in name
            for place, part in enumerate("qkv")
        }
        self._made: Mapping[str, Made] = {}
        #: what is read otherwise than it lies, until release(): whoever packs it knows no more than its address
        self._turned: dict[str, RawTensor] = {}

    def make(self, made: Mapping[str, Made]) -> None:
        """From now on these are there, too, made of others when they are read."""
        self._made = made

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self._thirds, *(name for name in self._stored.names if _JOINED not in name)}))

    @property
    def encodings(self) -> Mapping[str, str]:
        """None: towers are read as numbers."""
        return {}

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._thirds or name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: WeightMismatch for an unknown name."""
        if name in self._made:
            return self._made[name].shape
        if name in self._thirds:
            return self.tensor(name).shape
        shape = _flat(name, self._stored.shape(name))
        return shape[::-1] if name in _TRANSPOSED else shape

    def kind(self, name: str) -> str:
        """Element type of a weight. Raises: WeightMismatch for an unknown name."""
        if name in self._made:
            return "float32"
        name, _ = self._thirds.get(name, (name, 0))
        return self._stored.dtype(name) or self._stored.type_name(name)

    def check_readable(self, name: str) -> None:
        """Raises: WeightMismatch for an element type that tensor() does not read."""
        for source in self._made[name].sources if name in self._made else (name,):
            self.tensor(source)

    def tensor(self, name: str) -> RawTensor:
        """Raises: WeightMismatch for an unknown name or an element type not read."""
        if name in self._made:
            if name not in self._turned:
                self._turned[name] = raw_tensor(name, "float32", np.ascontiguousarray(self._numbers(name)))
            return self._turned[name]
        if name in self._thirds:
            return self._third(*self._thirds[name])
        found = self._stored.tensor(name)
        if name in (*_TRANSPOSED, *_CHANNEL_LAST):
            if name not in self._turned:
                turned = found.to_float32()
                turned = turned.T if name in _TRANSPOSED else np.moveaxis(turned, 1, -1).reshape(len(turned), -1)
                self._turned[name] = raw_tensor(name, "float32", np.ascontiguousarray(turned))
            return self._turned[name]
        return replace(found, shape=_flat(name, found.shape))

    def _numbers(self, name: str) -> F32:
        """What is made of others. Raises: WeightMismatch where these have other shapes than config.json implies."""
        made = self._made[name]
        sources = [self.tensor(source).to_float32() for source in made.sources]
        told = f"{self.directory}: {short(name)} is made of {', '.join(made.sources)}, which have other shapes than"
        try:
            numbers = made.make(*sources)
        except (ValueError, IndexError) as error:
            raise WeightMismatch(f"{told} config.json implies: {error}") from None
        if numbers.shape != made.shape:
            raise WeightMismatch(f"{told} config.json implies: it is {numbers.shape}; wanted {made.shape}")
        return numbers

    def _third(self, name: str, place: int) -> RawTensor:
        found = self._stored.tensor(name)
        rows, *others = found.shape
        if rows % 3:
            raise WeightMismatch(f"{self.directory}: {short(name)} has {rows} rows; wanted three parts of one size")
        size = found.num_bytes // 3
        part, address = found.buffer[place * size : (place + 1) * size], found.address + place * size
        return replace(found, shape=(rows // 3, *others), buffer=part, address=address)

    def encoded(self, name: str) -> Encoded:
        raise WeightMismatch(f"{self.directory}: {short(name)} is not encoded; it can be read as numbers")

    def blocks(self, name: str) -> None:
        """There are none."""

    def release(self, name: str) -> None:
        self._turned.pop(name, None)
        if name in self._made:
            for source in self._made[name].sources:
                self._stored.release(source)
            return
        self._stored.release(self._thirds.get(name, (name, 0))[0])

    def close(self) -> None:
        """Give the mappings up; tensors still held stay valid."""
        self._stored.close()


def tower_tensors(directory: Path, hears: bool | None = None) -> TowerTensors:
    """Those of a directory in Hugging Face layout, or of a projector's GGUF file. Args: hears: of the tower that does,
    or of the one that sees; None: of the only one that is read.

    Raises: ModelError when there are no safetensors, or two of a name; WeightMismatch when they are damaged.
    """
    return TowerTensors(_stored(directory, hears))


def tower_file(directory: Path, *towers: bool | None) -> bytearray:
    """A safetensors file of those of a directory, as they lie there. Args: towers: of each, see tower_tensors(); none:
    of the only one. Raises: as tower_tensors()."""
    opened = [_stored(directory, hears) for hears in towers or (None,)]
    try:
        return stored_bytes({name: each for stored in opened for name, each in stored.stored().items()})
    finally:
        for stored in opened:
            stored.close()


def _stored(directory: Path, hears: bool | None) -> TextTensors | ProjectorFile:
    if is_gguf(directory):
        from albireo.models.gguf.projectors.file import ProjectorFile

        return ProjectorFile(directory, hears)
    files = SafetensorsFiles(directory)
    if any(name in files for name in CONFORMER):
        heard = [name for name in files.names if any(part in name for part in _LISTENS)]
        return TextTensors(files, (*_OF_CONFORMER, *((name, name.removeprefix("model.")) for name in heard)))
    if names := names_of_conformer(files.names):
        return TextTensors(files, tuple(names.items()))
    if LASR in files:
        return TextTensors(files, (("encoder.", "encoder."),))
    if names := names_of_sample_tower(files.names):
        return TextTensors(files, tuple(names.items()))
    if any(name in files for name in _GRANITE):
        return TextTensors(files, _OF_GRANITE)
    for family in (internvl_chat, deepseek_ocr, minicpmv, phi3_v):
        if published := family.names_of_tower(files.names):
            return TextTensors(files, tuple(published.items()))
    if ENCODER not in files:
        sees = any(name.startswith(_VISION) for name in files.names)
        if hears is None:
            hears = not sees and any(_AUDIO_TOWER in name for name in files.names)
        return TextTensors(files, _OF_SOUNDS if hears else _PREFIXES)
    listening = (name for name in files.names if any(part in name for part in _LISTENS))
    return TextTensors(files, (_HEARD, *((name, name) for name in listening)))


def _flat(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a convolution [out, in, ...]: [out, all the rest]; of a number that is no row: a row of one."""
    if not shape:
        return (1,)
    if len(shape) == 1 and name.endswith(_OF_ONE_ROW):
        return 1, *shape
    return shape if len(shape) < 3 else (shape[0], math.prod(shape[1:]))
