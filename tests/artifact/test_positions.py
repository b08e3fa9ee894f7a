"""Tables that are read by position, in a graph that comes from outside."""

from __future__ import annotations

import pytest

from albireo.artifact.graph_fit import check_fit
from albireo.errors import Corrupt
from albireo.graph.node import ConstantDef, RowSegment, TensorType
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config


@pytest.mark.parametrize("rows", [127, 1, 129])
def test_a_table_of_positions_has_a_row_for_each(rows: int) -> None:
    """With fewer, a sequence as long as config.json allows would read behind it."""
    architecture = load_architecture("gpt2")
    config = parse_config(architecture.tiny, architecture.rules)
    graph = build_graph(config, 64)
    check_fit(graph, config, "graph.json")
    table = graph.constants["transformer.wpe.weight"]
    table.type = TensorType("float32", (rows, 48))
    table.constant = ConstantDef((RowSegment("transformer.wpe.weight", 0, rows),))
    with pytest.raises(Corrupt, match=rf"float32\[{rows}, 48\] is read by position, config.json says 128 positions"):
        check_fit(graph, config, "graph.json")
