"""layer_runs: a program cut where its layers begin to see another cut of a step's rows into sequences.

Called by the backends, for towers some of whose layers see windows: those write a KV layer of their own, and their part
of a step has a sequence for each window.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.graph.program import Call


def layer_runs(calls: Sequence[Call]) -> list[tuple[int, range]]:
    """Runs of calls, in order, and the layer of the KV cache that all of a run read and write; what does neither is of
    the run before."""
    layers = [call.attrs.get("layer") for call in calls]
    current, start = next((int(layer) for layer in layers if layer is not None), 0), 0
    found: list[tuple[int, range]] = []
    for index, layer in enumerate(layers):
        if layer is not None and layer != current:
            found.append((current, range(start, index)))
            current, start = int(layer), index
    return [*found, (current, range(start, len(calls)))]
