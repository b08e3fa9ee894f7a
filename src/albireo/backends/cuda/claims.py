"""Claims: which of several processes compiles a kernel that all of them would launch: whoever meets it first.

Called in processes that compile for an absent GPU (api/machine/compile_ahead.py). These begin together and launch much
of the same, in much the same order: without a word between them each would compile it. What another has claimed is not
launched, which computes nothing there anyway. Should that one end before it is compiled, whoever serves compiles it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import triton


def claim_kernels(directory: Path) -> None:
    """From now on compile, in this process, what no other one has claimed. Args: directory: there, the same of all."""
    before = triton.knobs.runtime.jit_cache_hook

    def is_passed_over(*, fn: Any, compile: dict[str, Any], **more: Any) -> bool:
        name = hashlib.sha256(f"{fn.module} {fn.name} {compile['key']}".encode()).hexdigest()
        try:
            (directory / name).touch(exist_ok=False)
        except FileExistsError:
            return True
        except OSError:
            pass  # a full disk, or the directory is gone: compiled twice, then
        return before is not None and bool(before(fn=fn, compile=compile, **more))

    triton.knobs.runtime.jit_cache_hook = is_passed_over
