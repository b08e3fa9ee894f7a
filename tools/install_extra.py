"""Install what extras of pyproject.toml ask for, beside the project; without a name, what the project itself asks for.

Run by `make`. Naming the project once more, as in `pip install --editable ".[test]"`, would build it once more: pip's
environment for building has another path each time, so everything that includes nanobind is compiled again.

Tests take the versions of tests/constraints.txt, so that no library's new release makes them fail on new machines only.
--newest takes the newest of all, to write that file anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT, VERSIONS = ROOT / "pyproject.toml", ROOT / "tests" / "constraints.txt"
NEWEST = "--newest"
#: How an extra names others of the project: albireo[serve].
OWN = re.compile(r"albireo\[([\w,\s-]+)\]$")


def requirements(extras: Mapping[str, Sequence[str]], name: str) -> Iterator[str]:
    """What an extra asks for, with what those that it names ask for. Raises: KeyError when there is no such extra."""
    for wanted in extras[name]:
        own = OWN.match(wanted)
        if own is None:
            yield wanted
            continue
        for other in own[1].split(","):
            yield from requirements(extras, other.strip())


def main() -> int:
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    names = [each for each in sys.argv[1:] if each != NEWEST]
    options = ["--upgrade"] if NEWEST in sys.argv else ["--constraint", str(VERSIONS)] if "test" in names else []
    wanted = [each for name in names for each in requirements(extras, name)] if names else project["dependencies"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, *wanted]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
