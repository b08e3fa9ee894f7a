"""Places for engines on the nodes of a Ray cluster, for the server to start them at.

Called by cli/serve.py. The cluster is the one that RAY_ADDRESS names, or else the one this machine belongs to.
"""

from __future__ import annotations

from functools import partial

import ray

from albireo.config import EngineConfig
from albireo.distributed.placement import Node, place
from albireo.distributed.ray_link import RayLink
from albireo.errors import ConfigError
from albireo.replicas.place import Place


def ray_places(config: EngineConfig, command: tuple[str, ...] = ()) -> list[Place]:
    """Join the cluster and find a place for each engine.

    Args: command: starts an engine process on a node; empty: the node's own interpreter.
    Raises: ConfigError when there is no cluster, or it is too small.
    """
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=True, logging_level="warning")
        except (ConnectionError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise ConfigError(
                f"distributed_executor_backend=ray: there is no Ray cluster to join ({first:.120}); start one with "
                "`ray start --head`, or name it in RAY_ADDRESS"
            ) from None
    nodes = [
        Node(
            found["NodeID"], found["NodeManagerAddress"], int(found["Resources"].get("CPU", 0)),
            int(found["Resources"].get("GPU", 0)),
        )
        for found in ray.nodes()
        if found["Alive"]
    ]  # fmt: skip
    return [
        Place(
            partial(RayLink, seat, command),
            seat.share,
            f"node {seat.node.address}",
            {} if seat.num_threads is None else {"num_threads": seat.num_threads, "device": "cpu"},
        )
        for seat in place(nodes, config)
    ]
