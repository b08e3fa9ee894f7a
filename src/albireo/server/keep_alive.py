"""How long a model stays ready once nobody wants anything of it, as a request says it: Ollama's keep_alive.

Read by the dialect of Ollama, kept by serving.py: the last request decides, and one that says nothing leaves it to the
server's sleep_after.
"""

from __future__ import annotations

import math
import re

from albireo.server.errors import HttpError

#: Key of a scope: seconds of a request that says some.
KEEP_ALIVE = "albireo.keep_alive"
#: Least seconds where anybody may ask: what loads a model each second is no courtesy.
LEAST_S = 60.0

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"-?(?:{_PART.pattern})+")


def seconds(given: float | str) -> float:
    """Of a number of seconds, or "5m", "1h30m", "300"; a negative one is forever, math.inf. Raises: HttpError 400."""
    try:
        found = float(given)
    except ValueError:
        assert isinstance(given, str), "a number is one"
        if _WHOLE.fullmatch(given) is None:
            raise _wrong(given) from None
        found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(given))
        found = -found if given.startswith("-") else found
    if math.isnan(found):
        raise _wrong(given)
    return math.inf if found < 0 else found


def _wrong(given: float | str) -> HttpError:
    return HttpError(
        400,
        f"keep_alive={given!r:.60} is no length of time; give seconds, or text as '5m' or '1h30m', below 0 for ever",
        param="keep_alive",
    )
