"""python -m albireo.engine_process SOCKET LEDGER: what the client starts."""

from __future__ import annotations

import sys

from albireo.engine_process.worker import run

if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
