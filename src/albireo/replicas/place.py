"""Where an engine of several runs: how its process is reached, and what it may take of its machine.

Made here for engines on this machine, by distributed for others; used by replicas.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from albireo.api.machine.share import ALONE, Share
from albireo.engine_process.link import Launch
from albireo.engine_process.process import EngineProcess
from albireo.engine_process.spawned import COMMAND, Spawned


@dataclass(frozen=True, slots=True)
class Place:
    """Fields:
    launch: makes the link to one run of its process.
    where: the machine, in words; "": this one.
    settings: fields of EngineConfig that are others here.
    """

    launch: Launch
    share: Share = ALONE
    where: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def local_places(
    num_engines: int = 1, command: Sequence[str] = COMMAND, spawned: Sequence[Spawned] = ()
) -> list[Place]:
    """Places for engines on this machine, each with an equal part of it.

    Args: command: starts an engine process. spawned: first runs that began already; each is taken over by one.
    """
    waiting = list(spawned)

    def launch(on_payload: Callable[[bytes], None], on_end: Callable[[int, list[int]], None]) -> EngineProcess:
        return EngineProcess(on_payload, on_end, command, waiting.pop() if waiting else None)

    return [Place(launch, Share(index, num_engines)) for index in range(num_engines)]
