"""albireo serve, with an engine process that some requests kill: see poisoned_worker.py."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import albireo.cli.serve
import albireo.replicas.place
from albireo.cli.main import main
from albireo.engine_process.spawned import Spawned

sys.path.append(str(Path(__file__).parents[1]))
from step_gate import VARIABLE

WORKER = (sys.executable, str(Path(__file__).parent / "poisoned_worker.py"))

if __name__ == "__main__":
    albireo.cli.serve.Spawned = partial(Spawned, WORKER)  # type: ignore[assignment,misc]
    local_places = albireo.replicas.place.local_places
    albireo.replicas.place.local_places = partial(local_places, command=WORKER)  # type: ignore[assignment]
    if "ray" in sys.argv:  # whose nodes have another environment
        import albireo.distributed.places

        command = ("env", f"{VARIABLE}={os.environ[VARIABLE]}", *WORKER)
        ray_places = albireo.distributed.places.ray_places
        albireo.distributed.places.ray_places = partial(ray_places, command=command)  # type: ignore[assignment]
    main(["serve", *sys.argv[1:]])
