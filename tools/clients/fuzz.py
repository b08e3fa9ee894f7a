"""`make fuzz-routes`: schemathesis, which makes requests of the document that the server has of itself, against it.

Run with the project's Python. Every answer of a status from 500 on, every one that the document does not have, and
every request that is taken though the document forbids it is a fault of the server or of the document. It lives in an
environment of its own, as the clients of check.py do; --schemathesis names the command where it is installed already.
Exit status: 0 when it found nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from check import HERE, KEY, Server, home_of_clients, python_of

PACKAGES = ("schemathesis>=4,<5",)
#: Not asked: whether what the document allows is taken. It cannot say all that a model cannot do.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
#: A body that is too large is refused before it is read.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "408", "409", "411", "413", "415", "422", "429", "503"]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemathesis", type=Path, help="its command; by default it is installed beside the clients")
    parser.add_argument("--seconds", type=int, default=600, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the requests; by default another one each time")
    parser.add_argument("options", nargs="*", help="further ones of schemathesis, behind --")
    args = parser.parse_args()
    command = args.schemathesis
    if command is None:
        command = python_of(home_of_clients() / "schemathesis", PACKAGES).with_name("schemathesis")
    words = ["--max-time", str(args.seconds), "--phases", "coverage,fuzzing,stateful", "--request-timeout", "60"]
    words += [
        "--checks",
        ",".join(CHECKS),
        "--continue-on-failure",
        "--generation-database",
        "none",
        "--warnings",
        "off",
    ]
    words += ["--suppress-health-check", "all", "-H", f"Authorization: Bearer {KEY}", *args.options]
    if args.seed is not None:
        words += ["--seed", str(args.seed)]
    with Server() as url, tempfile.TemporaryDirectory(prefix="albireo-fuzz-") as folder:
        config = Path(folder, "schemathesis.toml")
        config.write_text(CONFIG)
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "fuzz_hooks.py"), "PYTHONPATH": str(HERE)}
        start = [str(command), "--config-file", str(config), "run", f"{url}/openapi.json", *words]
        return subprocess.run(start, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
