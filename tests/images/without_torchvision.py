"""Modules of transformers that import torchvision, which is not installed: with empty ones in its place. What they call
of it has to be given by whoever tests them.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from types import ModuleType
from typing import Any

_NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2", "torchvision.transforms.v2.functional")


def imported(name: str) -> Any:
    """The module of transformers; torchvision is as missing afterwards as it was before."""
    if "torchvision" in sys.modules:
        return importlib.import_module(name)
    for each in _NAMES:
        sys.modules[each] = ModuleType(each)
    for outer, inner in itertools.pairwise(_NAMES):
        setattr(sys.modules[outer], inner.rpartition(".")[2], sys.modules[inner])
    # what annotations name
    sys.modules[_NAMES[-1]].InterpolationMode = object  # type: ignore[attr-defined]
    try:
        return importlib.import_module(name)
    finally:
        for each in _NAMES:
            del sys.modules[each]
