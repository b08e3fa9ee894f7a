"""Which adapters a call of a program has: the modules of its linear, and what a rank of several has of them.

Used by the backends' slots. Knows neither devices nor what an adapter holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from albireo.graph.program import Call

#: Parts of one linear: (module, first column, end).
Modules = tuple[tuple[str, int, int], ...]
#: What is one linear's: its modules, and first and end of the inputs that it has; None: all of them.
Key = tuple[Modules, tuple[int, int] | None]


def key_of(call: Call) -> Key:
    """Of a linear with adapters, or of the call that computes x @ A^T for it."""
    return call.attrs["modules"], call.attrs.get("module_inputs")


def first_rows(call: Call) -> tuple[int, ...]:
    """Of a linear with adapters: the first row that it has of each module's B."""
    found: tuple[int, ...] = call.attrs.get("module_rows", (0,) * len(call.attrs["modules"]))
    return found


def widest(*shapes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """module -> the most outputs, and the most inputs, that any says."""
    found: dict[str, tuple[int, int]] = {}
    for each in shapes:
        for name, (outputs, inputs) in each.items():
            known = found.get(name, (0, 0))
            found[name] = max(known[0], outputs), max(known[1], inputs)
    return found
