"""A sound at another rate.

Called by the front doors. soxr is imported here only, and when it is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvalidParams


def resampled(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """samples [n], of which rate are a second, as wanted a second. Raises: InvalidParams where soxr is missing."""
    if rate == wanted:
        return samples
    try:
        import soxr
    except ImportError:
        raise InvalidParams(
            f"a sound has {rate} samples a second, and {wanted} are heard: to change that needs soxr, which is not "
            "installed: pip install 'albireo[audio]'"
        ) from None
    return np.asarray(soxr.resample(samples, rate, wanted, quality="HQ"), np.float32)
