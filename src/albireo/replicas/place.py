"""Where an engine of several runs: how its process is reached, and what it may take of its machine.

Made here for engines on this machine, by distributed for others; used by replicas.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from albireo.api.share import ALONE, Share
from albireo.engine_process.link import Launch
from albireo.engine_process.process import COMMAND, EngineProcess


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


def local_places(num_engines: int = 1, command: Sequence[str] = COMMAND) -> list[Place]:
    """Places for engines on this machine, each with an equal part of it. Args: command: starts an engine process."""
    launch = partial(EngineProcess, command=command)
    return [Place(launch, Share(index, num_engines)) for index in range(num_engines)]
