"""Nested weights (the K types of GGUF) become ones with a float32 for each group before ranks cut them."""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter
from albireo.encodings import encoding, is_encoding, plain_encoding
from albireo.graph.node import Graph, TensorType
from albireo.graph.report import PassRecord

WHY = "ranks cut within nests; see quantization/nested.py"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "plain_scales", WHY, "quantizes")
    for value in graph.constants.values():
        dtype = value.type.dtype
        if is_encoding(dtype) and encoding(dtype).is_nested:
            value.type = TensorType(plain_encoding(encoding(dtype)).name, value.type.dims)
            rw.record.notes.append(f"{value.name}: {dtype} is held as {value.type.dtype}")
    return rw.finish()
