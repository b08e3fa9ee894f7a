"""Checkpoints that hold all experts of a layer in one tensor, read as a matrix for each.

transformers has them so in memory, and writes them so where it is told not to restore the names that models were
published with. Called by weights.py. Does not know graphs.

    X.mlp.experts.gate_up_proj  [experts, 2 F, H], gate first    X.mlp.experts.down_proj  [experts, H, F]

Gemma 4's are X.experts, beside X.mlp; Granite's are X.block_sparse_moe.input_linear.weight and output_linear.weight.
Qwen 3 VL's are published with columns first, [experts, H, 2 F] and [experts, F, H], as Llama 4's X.feed_forward.experts
are; their matrices are copies. Scales of quantized ones lie beside, X.mlp.experts.gate_up_proj_scale_inv and so on: one
for each expert, or rows as the matrices have them (Mistral Small 4's, and what ModelOpt writes).

ERNIE's biases of a choice, [1, experts], are read as vectors here, too, and convolutions of Qwen 3.5, Kimi Linear, LFM2
and Mamba layers, [channels, 1, width], as matrices, and norms of Cohere's heads, [heads, D], and Kimi Linear's A_log,
[1, 1, heads, 1], as vectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.models.checkpoint.experts_of_pictures import WHOLE
from albireo.models.checkpoint.interleaved_experts import INTERLEAVED
from albireo.models.checkpoint.safetensors_file import RawTensor
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.text_tensors import TextTensors
from albireo.models.settings.text_part import inner, text_type
from albireo.quantization.formats.matrix import Matrix, Plan

_GATE_UP = (".experts.gate_up_proj", ".block_sparse_moe.input_linear.weight")
_DOWN = (".experts.down_proj", ".block_sparse_moe.output_linear.weight")
#: JetMoE's, of its FFNs and of its queries and what attention gives.
_JETMOE: dict[str, tuple[str, ...]] = {
    ".mlp.input_linear.weight": ("gate_proj", "up_proj"),
    ".mlp.output_linear.weight": ("down_proj",),
    ".self_attention.experts.input_linear.weight": ("q_proj",),
    ".self_attention.experts.output_linear.weight": ("o_proj",),
}
#: Step 3.5's, each of all experts.
_STEP = {f".moe.{matrix}_proj.weight": (f"{matrix}_proj",) for matrix in ("gate", "up", "down")}
_BIAS = ".moe_statics.e_score_correction_bias"
_CONVS = tuple(f".{conv}.weight" for conv in ("linear_attn.conv1d", "mamba.conv1d", "mixer.conv1d", "conv.conv"))
_CONVS += tuple(f".{block}.{part}_conv1d.weight" for block in ("self_attn", "attention") for part in "qkv")
#: FFNs of Kimi Linear's dense layers, as transformers saves them; they are published as those of others.
_DENSE = tuple(f".block_sparse_moe.{part}_proj.weight" for part in ("gate", "up", "down"))
_OF_HEADS = (".self_attn.q_norm.weight", ".self_attn.k_norm.weight")
#: DBRX's matrices of all experts, one below the other: gate and up, and down, which lies transposed.
_BELOW, _BELOW_TURNED = (".ffn.experts.mlp.w1", ".ffn.experts.mlp.v1"), ".ffn.experts.mlp.w2"
#: Scales of the matrices of all experts, by what follows the matrices' name -> as a matrix by itself has them.
_SCALES = {"_scale_inv": "weight_scale_inv", "_weight_scale": "weight_scale", "_weight_scale_2": "weight_scale_2"}
_OF_ACTIVATIONS = {"_activation_scale": "activation_scale", "_input_scale": "input_scale"}
_SCALE = re.compile(rf"(.+)\.experts\.(gate_up|down)_proj({'|'.join((*_SCALES, *_OF_ACTIVATIONS))})")
_MAX_EXPERTS = 2**12
#: Models of which such tensors may lie with columns first.
_COLUMNS_FIRST = ("qwen3_vl_moe",)
#: And those of which they always do.
_ALWAYS = ("llama4", "llama4_text")
#: A number of each element type, as bits.
_WORDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
#: model_type -> how its published names differ from the names in memory.
_NAMES = {
    name: {"mlp": "block_sparse_moe", "gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
    for name in ("mixtral", "minimax", "minimax_m1", "minimax_m2", "minimax_text_01")
}
_NAMES["phimoe"] = {**_NAMES["mixtral"], "router.weight": "gate.weight"}
#: Of K-EXAONE, and what it is in memory.
_CHOICE = "e_score_correction_bias"
_NAMES["exaone_moe"] = {_CHOICE: f"gate.{_CHOICE}"}
_NAMES["lfm2_moe"] = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows first .. first + shape[0] of a tensor whose leading dims are one; or, where expert is not None, columns
    first .. first + shape[0] of that matrix of a tensor of many."""

    stored: str
    first: int
    shape: tuple[int, ...]
    expert: int | None = None


class FusedExperts:
    """As SafetensorsFiles; a tensor of all experts is there as the matrices of each.

    Raises: as SafetensorsFiles; WeightMismatch for such a tensor of another shape.
    """

    def __init__(
        self, stored: SafetensorsFiles | TextTensors, model_type: str, hidden: int | None, count: int = 0
    ) -> None:
        """Args: hidden: hidden_size, where columns of a matrix may come first. count: of experts below one another."""
        self.directory = stored.directory
        self._stored = stored
        self._parts: dict[str, _Part] = {}
        for name in stored.names:
            shape = stored.shape(name)
            below = name.endswith((*_BELOW, _BELOW_TURNED))
            found = _parts_below(name, shape, count).items() if below else ()
            for new, part in found or _parts(name, shape, _NAMES.get(model_type, {}), hidden):
                if new in self._parts:
                    first = self._parts[new].stored
                    raise WeightMismatch(
                        f"{short(new)} is there twice, in {short(first)} and {short(name)}; one must go"
                    )
                self._parts[new] = part

    @property
    def names(self) -> tuple[str, ...]:
        """Every weight, sorted."""
        return tuple(sorted(self._parts))

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: WeightMismatch for an unknown name."""
        return self._part(name).shape

    def tensor(self, name: str) -> RawTensor:
        """The matrix where it lies. Raises: WeightMismatch for an unknown name or an element type not read."""
        part = self._part(name)
        whole = self._stored.tensor(part.stored)
        start, stop = self._range(part, whole.buffer)
        return RawTensor(name, whole.dtype, part.shape, whole.buffer[start:stop], whole.address + start)

    def release(self, name: str) -> None:
        """Let the pages of its tensor go, other experts' too; using them again reads them from disk."""
        self._stored.release(self._part(name).stored)

    def dtype(self, name: str) -> str | None:
        return self._stored.dtype(self._part(name).stored)

    def type_name(self, name: str) -> str:
        return self._stored.type_name(self._part(name).stored)

    def buffer(self, name: str) -> memoryview:
        """The bytes of a weight."""
        part = self._part(name)
        whole = self._stored.buffer(part.stored)
        return whole[slice(*self._range(part, whole))]

    @property
    def settings(self) -> Mapping[str, str]:
        return self._stored.settings

    def close(self) -> None:
        self._stored.close()

    def plan(self) -> Plan:
        """The matrices whose columns come first, as copies. Raises: WeightMismatch for an element type not read."""
        plan = Plan()
        for name, part in self._parts.items():
            if part.expert is not None:
                dtype = self._stored.tensor(part.stored).dtype
                plan.add(Matrix(name, part.shape, None, (name,), partial(self._turned, part, dtype), dtype=dtype))
        return plan

    def _turned(self, part: _Part, dtype: str) -> NDArray[np.generic]:
        whole = self._stored.tensor(part.stored)
        words = np.frombuffer(whole.buffer, _WORDS[dtype]).reshape(whole.shape)
        assert part.expert is not None
        if words.ndim == 2:
            words = words.reshape(-1, part.shape[1], words.shape[1])
        return np.ascontiguousarray(words[part.expert, :, part.first : part.first + part.shape[0]].T)

    def _part(self, name: str) -> _Part:
        part = self._parts.get(name)
        if part is None:
            raise WeightMismatch(f"{self.directory}: there is no tensor {short(name)}")
        return part

    def _range(self, part: _Part, whole: memoryview) -> tuple[int, int]:
        """First and end of its bytes."""
        shape = self._stored.shape(part.stored)
        if part.shape == shape:
            return 0, len(whole)
        if part.expert is not None:  # where its matrix lies, whose columns come first
            size = len(whole) // shape[0] * (part.shape[1] if len(shape) == 2 else 1)
            return part.expert * size, (part.expert + 1) * size
        is_flat = len(part.shape) == 1 or len(shape) == len(part.shape) == 2
        row = len(whole) // (shape[0] if is_flat else shape[0] * shape[1])
        return part.first * row, (part.first + part.shape[0]) * row


def split_experts(
    stored: SafetensorsFiles | TextTensors, config: Mapping[str, Any]
) -> SafetensorsFiles | TextTensors | FusedExperts:
    """stored, or what makes matrices of its tensors of all experts where it has such.

    Args: config: of config.json, whatever it holds.
    Raises: WeightMismatch for one of another shape.
    """
    is_fused = any(
        name.endswith((*_GATE_UP, *_DOWN, *_JETMOE, *_STEP, _BIAS, *_CONVS, *_BELOW)) for name in stored.names
    )
    is_fused |= any(name.endswith(_OF_HEADS) and len(stored.shape(name)) == 2 for name in stored.names)
    is_fused |= text_type(config) == "exaone_moe" and any(name.endswith(f".mlp.{_CHOICE}") for name in stored.names)
    # of two kinds, see experts_of_pictures.py
    is_fused &= inner(config).get("model_type") != WHOLE
    if not is_fused or text_type(config) in INTERLEAVED:
        return stored
    text = config.get("text_config")
    hidden = text.get("hidden_size") if config.get("model_type") in _COLUMNS_FIRST and isinstance(text, dict) else None
    if config.get("model_type") in _ALWAYS:
        hidden = 0  # which no matrix has: none fits as it is
    of_ffn = config.get("ffn_config")
    count = of_ffn.get("moe_num_experts") if isinstance(of_ffn, Mapping) else 0
    return FusedExperts(stored, str(config.get("model_type")), hidden, count if isinstance(count, int) else 0)


def _parts_below(name: str, shape: tuple[int, ...], count: int) -> dict[str, _Part]:
    """The matrix of each expert. Raises: WeightMismatch where there are not so many, alike."""
    if len(shape) != 2 or not 0 < count <= _MAX_EXPERTS or shape[0] % count:
        raise WeightMismatch(f"tensor {short(name)} is {list(shape)}; it must be {count} matrices one below the other")
    block, _, matrix = name.rpartition(".mlp.")
    height = shape[0] // count
    if matrix == "w2":
        return {f"{block}.{e}.w2.weight": _Part(name, 0, (shape[1], height), e) for e in range(count)}
    return {f"{block}.{e}.{matrix}.weight": _Part(name, e * height, (height, shape[1])) for e in range(count)}


def _matrices(name: str, block: str, shape: tuple[int, ...], matrices: tuple[str, ...]) -> Iterator[tuple[str, _Part]]:
    """Those of each expert, one above the other. Raises: WeightMismatch for a tensor of another shape."""
    if len(shape) != 3 or shape[0] > _MAX_EXPERTS or shape[1] % len(matrices):
        raise WeightMismatch(f"tensor {short(name)} is {list(shape)}; it must be a matrix for each of its experts")
    height = shape[1] // len(matrices)
    for expert in range(shape[0]):
        for i, matrix in enumerate(matrices):
            part = _Part(name, expert * shape[1] + i * height, (height, shape[2]))
            yield f"{block}.experts.{expert}.{matrix}.weight", part


def _scales(match: re.Match[str], shape: tuple[int, ...], names: Mapping[str, str]) -> Iterator[tuple[str, _Part]]:
    """Those of each expert's matrices. Raises: WeightMismatch for a tensor of another shape."""
    name, (whole, which, end) = match[0], match.groups()
    block = f"{whole[: -len('.mlp')]}.{names.get('mlp', 'mlp')}" if whole.endswith(".mlp") else whole
    if end in _OF_ACTIVATIONS:
        yield f"{block}.experts.{which}_proj.{_OF_ACTIVATIONS[end]}", _Part(name, 0, shape)
        return
    matrices = ("gate_proj", "up_proj") if which == "gate_up" else ("down_proj",)
    is_one = bool(shape) and shape[1:] in ((), (1,), (1, 1))
    if not shape or shape[0] > _MAX_EXPERTS or not (is_one or (len(shape) == 3 and shape[1] % len(matrices) == 0)):
        raise WeightMismatch(f"tensor {short(name)} is {list(shape)}; it must have a scale, or rows of them, an expert")
    for expert in range(shape[0]):
        for i, matrix in enumerate(matrices):
            part = _Part(name, expert, (1,))
            if not is_one:
                height = shape[1] // len(matrices)
                part = _Part(name, expert * shape[1] + i * height, (height, shape[2]))
            yield f"{block}.experts.{expert}.{names.get(matrix, matrix)}.{_SCALES[end]}", part


def _parts(
    name: str, shape: tuple[int, ...], names: Mapping[str, str], hidden: int | None
) -> Iterator[tuple[str, _Part]]:
    if name.endswith(_BIAS) and len(shape) == 2 and shape[0] == 1:
        yield name.replace(".gate.moe_statics.", ".moe_statics."), _Part(name, 0, shape[1:])
        return
    if name.endswith(_CONVS) and len(shape) == 3 and shape[1] == 1:
        yield name, _Part(name, 0, (shape[0], shape[2]))
        return
    if name.endswith(".self_attn.A_log") and len(shape) == 4 and shape[:2] + shape[3:] == (1, 1, 1):  # Kimi Linear's
        yield name, _Part(name, 0, shape[2:3])
        return
    if name.endswith(_DENSE):
        yield name.replace(".block_sparse_moe.", ".mlp."), _Part(name, 0, shape)
        return
    if name.endswith(_OF_HEADS) and len(shape) == 2:
        yield name, _Part(name, 0, (shape[0] * shape[1],))
        return
    if (ending := next((each for each in _JETMOE if name.endswith(each)), None)) is not None:
        block = name.removesuffix(ending) + ending.partition(".experts.")[0].removesuffix(".input_linear.weight")
        yield from _matrices(name, block.removesuffix(".output_linear.weight"), shape, _JETMOE[ending])
        return
    if (ending := next((each for each in _STEP if name.endswith(each)), None)) is not None:
        yield from _matrices(name, f"{name.removesuffix(ending)}.mlp", shape, _STEP[ending])
        return
    if (scale := _SCALE.fullmatch(name)) is not None:
        yield from _scales(scale, shape, names)
        return
    layer, _, rest = name.partition(".mlp.")
    if rest == "post_mlp_layernorm.weight":  # A.X K1's is published beside the experts
        yield f"{layer}.{rest}", _Part(name, 0, shape)
        return
    block = f"{layer}.{names.get('mlp', 'mlp')}"
    if name.endswith((_GATE_UP[1], _DOWN[1])):
        block = name.rpartition(".")[0].rpartition(".")[0]
    elif not name.endswith((_GATE_UP[0], _DOWN[0])):
        yield (f"{block}.{names.get(rest, rest)}" if rest else name), _Part(name, 0, shape)
        return
    elif not rest:
        block = name.rpartition(".experts.")[0]
    # as transformers: turned only where it does not fit as it is
    is_turned = hidden is not None and len(shape) == 3 and shape[2 if name.endswith(_GATE_UP) else 1] != hidden
    shape = (shape[0], shape[2], shape[1]) if is_turned else shape
    if len(shape) != 3 or shape[0] > _MAX_EXPERTS or (name.endswith(_GATE_UP) and shape[1] % 2):
        raise WeightMismatch(f"tensor {short(name)} is {list(shape)}; it must be a matrix for each of its experts")
    matrices = ("gate_proj", "up_proj") if name.endswith(_GATE_UP) else ("down_proj",)
    height = shape[1] // len(matrices)
    for expert in range(shape[0]):
        for i, matrix in enumerate(matrices):
            new = f"{block}.experts.{expert}.{names.get(matrix, matrix)}.weight"
            if is_turned:
                yield new, _Part(name, i * height, (height, *shape[2:]), expert)
            else:
                yield new, _Part(name, expert * shape[1] + i * height, (height, *shape[2:]))
