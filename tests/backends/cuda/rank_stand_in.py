"""python rank_stand_in.py SOCKET LIFELINE: a rank's process where there is no GPU, its kernels interpreted."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from albireo.api.ranks import rank_process
    from albireo.backends.cuda import model
    from backends.cuda.interpreter import hasten
    from backends.cuda.test_model import Recorder

    hasten()
    # in place of CUDA graphs
    model.DirectLaunches = Recorder  # type: ignore[misc, assignment]
    rank_process.run(int(sys.argv[1]), int(sys.argv[2]))
