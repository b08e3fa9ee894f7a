"""NCCL as several ranks use it, of one rank alone: what can be known of it on one GPU.

Whether a gather is made as backends/cuda/peers.py makes it, is recorded in a CUDA graph beside a kernel that waits for
it, and fails as RankLost once it was aborted. What ranks do to each other is in ranks.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from report import Row
from setup import Setup, attempt

if TYPE_CHECKING:
    from albireo.backends.cuda.capture import Recorder


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.peers  # noqa: F401 - where it is missing the part is skipped

    yield from attempt("one rank", lambda: _alone(setup))


def _alone(setup: Setup) -> Iterator[Row]:
    from albireo.backends.cuda.capture import CudaGraphs, DirectLaunches
    from albireo.backends.cuda.kernels.elementwise import elementwise
    from albireo.backends.cuda.peers import ProcessPeers
    from albireo.errors import RankLost

    x = setup.random(8, setup.pick(4096, 64))
    gathered, out = (torch.zeros(shape, device=setup.device) for shape in ((1, *x.shape), x.shape))
    recorder: Recorder = DirectLaunches() if setup.is_dry else CudaGraphs()
    with tempfile.TemporaryDirectory() as directory:
        peers = ProcessPeers(0, 1, str(Path(directory) / "meeting"), setup.device)

        def launches() -> None:
            peers.gather(gathered, x)
            elementwise("cast", gathered[0], None, out, x.shape[1])

        replay = recorder.record(launches)
        found = [torch.equal(out, x)]
        for _ in range(3):
            x.mul_(2)
            replay()
            found.append(torch.equal(out, x))
        note = "as it is, then replayed three times"
        yield Row("a gather, and a kernel behind it, of 4", sum(found), "", note, is_good=all(found))
        if isinstance(recorder, CudaGraphs):
            recorder.let_go()  # else NCCL does not end
        peers.abort()
        said = "gathers"
        try:
            peers.gather(gathered, x)
            setup.release()
        except RankLost as error:
            said = f"RankLost: {error}"
        yield Row("behind an abort", note=said, is_good=said != "gathers" or setup.is_dry)
