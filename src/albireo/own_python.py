"""How a module of albireo is started in a process of its own: by this interpreter, with no path that this one has not.

Used by what starts processes. Does not know what they do.
"""

from __future__ import annotations

import sys


def command_of(module: str) -> tuple[str, ...]:
    """The command that runs a module. `python -m` alone looks for modules in the working directory first, so that a
    numpy.py beside a model would be run."""
    flags = ["-I"] if sys.flags.isolated else ["-P"]
    flags += ["-E"] * (sys.flags.ignore_environment and not sys.flags.isolated)
    flags += ["-s"] * (sys.flags.no_user_site and not sys.flags.isolated)
    return sys.executable, *flags, "-m", module
