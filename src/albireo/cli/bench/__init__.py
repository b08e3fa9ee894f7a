"""Measure latency, throughput, start-up, or a server.

One file a measurement; the flags and the JSON keys of vLLM's `bench`, where the meaning is the same.
"""

from __future__ import annotations

import click

from albireo.cli.folder import FolderGroup

#: Files of this folder that are not commands.
_ROOM = frozenset(["lists", "offline", "serve_dataset", "serve_options", "serve_setup"])


@click.group(cls=FolderGroup, package=__name__, room=_ROOM)
def command() -> None:
    """Measure latency, throughput, start-up, or a server.

    latency and throughput run the engine in this process and hold each speed against the machine's limit: the floor of
    a step is the time to read its weights and KV cache at the read speed, or to multiply at the dot-product peak,
    whichever is longer. Both are measured in the same process, between the runs.
    """
