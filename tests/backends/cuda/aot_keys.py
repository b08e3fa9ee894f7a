"""Keys of kernels that lie in directories side by side, `small.py` in each: the directory above in, JSON out.

A process of its own: kernels that are interpreted have none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.aot_ledger import key_of

#: What another case says, and whether the compiler is told of it.
OTHERS: dict[str, tuple[dict[str, Any], bool]] = {
    "bounds": ({"max_registers": 40, "max_shared": 0, "max_spills": 1}, False),
    "words": ({"words": {90: ("HMMA",)}}, False),
    "stages": ({"num_stages": 4}, True),
    "warps": ({"num_warps": 8}, True),
    "alignment": ({"aligned": ("x",)}, True),
    "fusion": ({"fp_fusion": True}, True),
    "asked registers": ({"asked_registers": 64}, True),
    "signature": ({"signature": {"x": "*bf16", "n": "i32"}}, True),
    "constants": ({"constants": {"BLOCK": 128}}, True),
}


def main(directory: Path) -> None:
    found = {}
    for place in sorted(directory.iterdir()):
        sys.path.insert(0, str(place))
        from small import kernel

        sys.path.remove(str(place))
        for name in ("small", "called", "width"):
            del sys.modules[name]
        told = {"name": "case", "kernel": kernel, "signature": {"x": "*fp32", "n": "i32"}, "constants": {"BLOCK": 64}}
        found[place.name] = key_of(AotCase(**told), 90)
        if place.name == "as it is":
            found["architecture"] = key_of(AotCase(**told), 80)
            found |= {name: key_of(AotCase(**(told | other)), 90) for name, (other, _) in OTHERS.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
