"""RankStart: what a process of one of several ranks is told first, and how its model is opened from that.

Used by rank_processes.py and cuda_device.py on the side of the first rank, by rank_process.py on that of the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.api.drafts.beside import Beside
from albireo.api.sources.source import ModelSource
from albireo.config import EngineConfig
from albireo.graph.program import Program

if TYPE_CHECKING:
    from albireo.backends.cuda.model import CudaModel

#: What a rank says on its way, in this order, and is waited for: it can be reached; its weights are in place; there is
#: room for adapters, where there are to be any.
HERE, PLACED, SLOTS = "here", "placed", "slots"


@dataclass(frozen=True, slots=True)
class RankStart:
    """What a rank is told first: how its program is made, not the program.

    Fields:
        config: as the source has adopted it. capability: of the GPUs, 90 is 9.0. device: torch's name of this one.
        meeting: path of the file by which ranks find each other. max_positions: of the longest sequence that there is
            room for. taps: which hidden states its steps leave, as what guesses on the first rank reads them: see
            DraftHead. options: of open_model(), of numbers.
    """

    config: EngineConfig
    directory: Path
    capability: int
    rank: int
    size: int
    vocab_size: int
    device: str
    meeting: str
    max_positions: int
    options: dict[str, Any]
    taps: tuple[int, ...] = ()

    def to_json(self) -> bytes:
        return json.dumps(asdict(self) | {"directory": str(self.directory)}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> RankStart:
        found = json.loads(data)
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in found["config"].items()}
        # what the first rank has looked at is not looked at again
        config = replace(EngineConfig.from_kwargs(**given), verify_hashes=False)
        own = {"config": config, "directory": Path(found["directory"]), "taps": tuple(found["taps"])}
        return cls(**found | own)


def say(link: Connection, what: Any) -> None:
    """As JSON; nothing that arrives is ever run."""
    link.send_bytes(json.dumps(what).encode())


def prepare(start: RankStart) -> None:
    """Of every rank, before it says that it can be reached. Raises: see backends.cuda.open_rank.prepare_device()."""
    from albireo.backends.cuda.open_rank import prepare_device

    prepare_device(start.device, start.size, start.capability)


def open_rank(
    start: RankStart,
    source: ModelSource,
    program: Program,
    before_trial: Callable[[], None],
    least: Callable[[int], int],
    advance: Callable[[int], None] = lambda _: None,
    watch: Callable[[Callable[[], None], Callable[[], None]], None] = lambda *_: None,
    beside: Callable[[CudaModel], Beside] | None = None,
) -> CudaModel:
    """The model of a rank, the first among them; those of all ranks are opened at once.

    Args: before_trial: returns when the weights of all are in place. least: see backends.cuda.peers.Seat. watch: see
        backends.cuda.open_rank. beside: see CudaModel.
    """
    from albireo.backends.cuda.open_rank import open_rank as open_part

    with source.weights(source.graph(start.max_positions), start.rank) as weights:
        return open_part(
            program,
            weights,
            rank=start.rank,
            size=start.size,
            vocab_size=start.vocab_size,
            device=start.device,
            meeting=start.meeting,
            least=least,
            watch=watch,
            before_trial=before_trial,
            advance=advance,
            max_positions=start.max_positions,
            beside=beside,
            **start.options,
        )
