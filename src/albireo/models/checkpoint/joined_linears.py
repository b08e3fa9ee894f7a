"""Linears of encoders that lie in one tensor, as they were first published: q, k and v, or what an FFN is made of; and
those that lie with adapters of tasks. Of HRM-Text likewise, which has a gate of attention among them.

Called by rearranged.py, behind first_names.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.task_adapters import ADAPTERS, ORIGINAL, WHY_UNREAD, task_of, with_adapter
from albireo.models.checkpoint.text_tensors import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan

_Tensors = SafetensorsFiles | TextTensors
#: What holds the rows of several linears, one below the other, each with as many.
_JOINED = {
    ".self_attn.qkv_proj.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
    ".attention.self.qkv.": (".attention.self.query.", ".attention.self.key.", ".attention.self.value."),
    ".mlp.up_gate_proj.": (".mlp.up_proj.", ".mlp.gate_proj."),
    ".attn.gqkv_proj.": tuple(f".self_attn.{part}_proj." for part in ("gate", "q", "k", "v")),
}
_OF_HRM = {".mlp.gate_up_proj.": (".mlp.gate_proj.", ".mlp.up_proj.")}
#: Whose linears are joined as published, and apart as transformers has them in memory.
HRM = "hrm_text"
_WORDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


def apart(stored: _Tensors, config: Mapping[str, Any]) -> Plan:
    """The linears of an encoder, or of HRM-Text, that lie in one tensor, or with adapters of tasks.

    Args: config: what config.json holds.
    Raises: ModelError for a task that is none.
    """
    plan, where = Plan(), f"{stored.directory}/config.json"
    task = task_of(config, where)
    known = {**_JOINED, **(_OF_HRM if config.get("model_type") == HRM else {})}
    for name in stored.names:
        joined = next((each for each in known if each in name), None)
        dtype = stored.dtype(name)
        sources: tuple[str, ...] = (name,)
        if dtype is None or (joined is None and not name.endswith((ORIGINAL, *ADAPTERS))):
            continue
        if name.endswith(ADAPTERS):
            if task is None:
                plan.unread[name] = WHY_UNREAD
            continue
        whole: Callable[[], NDArray[np.generic]] = partial(_whole, stored, name, dtype)
        made = name
        if name.endswith(ORIGINAL):
            module = name.removesuffix(ORIGINAL)
            made, dtype = f"{module}.weight", "float32"
            whole = partial(with_adapter, stored, module, config, task)
            sources = (name, *(f"{module}{each}" for each in ADAPTERS)) if task is not None else sources
        shape = stored.shape(name)
        for part, first, rows in _parts(made, joined, known.get(joined or "", ()), shape[0]):
            read = partial(_rows, whole, first, rows)
            plan.add(Matrix(part, (rows, *shape[1:]), None, sources, read, dtype=dtype))
    return plan


def _parts(name: str, joined: str | None, parts: Sequence[str], rows: int) -> Iterator[tuple[str, int, int]]:
    """What a tensor is made of: name, first row and number of rows of each."""
    if joined is None or rows % len(parts):
        yield name, 0, rows
        return
    for place, part in enumerate(parts):
        yield name.replace(joined, part), place * (rows // len(parts)), rows // len(parts)


def _whole(stored: _Tensors, name: str, dtype: str) -> NDArray[np.generic]:
    numbers: NDArray[np.generic] = np.frombuffer(stored.buffer(name), _WORDS[dtype])
    return numbers.reshape(stored.shape(name))


def _rows(whole: Callable[[], NDArray[np.generic]], first: int, count: int) -> NDArray[np.generic]:
    return whole()[first : first + count]
