"""Every ALBIREO_* environment variable, in one place. They exist to test and measure, never to configure.

ALBIREO_ISA_MAX   cap the CPU instruction-set level: scalar, avx2, avx512 or avx512bf16
"""

from __future__ import annotations

import os


def isa_max() -> str | None:
    """The cap on the CPU level, or None. Validated where levels are known (backends.cpu)."""
    return os.environ.get("ALBIREO_ISA_MAX") or None
