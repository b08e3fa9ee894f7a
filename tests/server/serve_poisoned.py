"""albireo serve, with an engine process that some requests kill: see poisoned_worker.py."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import albireo.replicas.place
from albireo.cli.main import main

WORKER = (sys.executable, str(Path(__file__).parent / "poisoned_worker.py"))

if __name__ == "__main__":
    local_places = albireo.replicas.place.local_places
    albireo.replicas.place.local_places = partial(local_places, command=WORKER)  # type: ignore[assignment]
    main(["serve", *sys.argv[1:]])
