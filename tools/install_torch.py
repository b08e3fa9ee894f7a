"""Install torch as its CPU build, for the tests that compare with transformers.

Run by `make test`. On most systems the package index serves a build with gigabytes of CUDA by default, so the CPU
index is asked first; where it cannot be reached, the pinned version is taken only if its file is a CPU build.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

VERSION = "2.13.0"
NEEDS = ("filelock", "typing-extensions>=4.10", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2", "fsspec", "setuptools")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def pip(*args: str) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *args]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    if importlib.util.find_spec("torch") is not None:
        return 0
    if pip("--retries", "0", "--timeout", "15", "--index-url", CPU_INDEX, f"torch=={VERSION}"):
        return 0
    # Dependencies later and by name: a CUDA build would name its own packages here.
    if pip("--no-deps", f"torch=={VERSION}") and pip(*NEEDS):
        return 0
    print(f"could not install the CPU build of torch {VERSION}; install it by hand, then make test", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
