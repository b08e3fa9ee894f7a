"""Which kernels of this backend are launched, by name; and all that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "src" / "albireo" / "backends" / "cuda" / "kernels"


@contextmanager
def noted() -> Iterator[set[str]]:
    """Meanwhile, in Triton's interpreter, which a dry run is in; elsewhere none is seen."""
    from triton.runtime.interpreter import InterpretedFunction

    launched: set[str] = set()
    launch = InterpretedFunction.__getitem__

    def noting(self: InterpretedFunction, grid: object) -> object:
        launched.add(self.fn.__name__.removesuffix("_kernel"))
        return launch(self, grid)

    InterpretedFunction.__getitem__ = noting
    try:
        yield launched
    finally:
        InterpretedFunction.__getitem__ = launch


def all_kernels() -> set[str]:
    """Those that a launcher of kernels/ launches."""
    text = "\n".join(path.read_text() for path in sorted(KERNELS.glob("*.py")))
    return set(re.findall(r"^def (\w+)_kernel\(", text, re.MULTILINE))
