"""python -m albireo.engine_process SOCKET LEDGER: what the client starts."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    # What is imported stays until the end: to look through it for garbage would take a tenth of the start, and time of
    # steps later.
    gc.disable()
    from albireo.engine_process.worker import run

    gc.freeze()
    gc.enable()
    run(sys.argv[1], sys.argv[2])
