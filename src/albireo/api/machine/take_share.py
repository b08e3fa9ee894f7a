"""Take one's part of a machine, before anything is loaded: a GPU, or processors and threads.

Called by load.py in the engine processes of `albireo serve --data-parallel-size`; memory is shared out by memory.py.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from albireo import devflags
from albireo.api.machine.share import Share, cut, threads_of
from albireo.backends.cpu.machine import num_threads_of, usable_cpus
from albireo.backends.cpu.nodes import numa_nodes
from albireo.backends.cuda.device import driver_version, gpu_names
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.system import keep_to_processors


def require_alone(config: EngineConfig) -> None:
    """Raises: ConfigError where one engine is all there can be, and several are asked for."""
    if config.data_parallel_size > 1:
        raise ConfigError(
            f"data_parallel_size={config.data_parallel_size}: several engines run behind `albireo serve` only; start "
            "that, or leave it out"
        )


def take_gpu(config: EngineConfig, share: Share) -> None:
    """See no other GPUs than one's own, from now on; nothing where GPUs are not used, or the engine is alone.

    Before torch is imported. Raises: ConfigError when there are fewer GPUs than engines, or ranks of all of them.
    """
    if share.count == 1 or config.device == "cpu" or driver_version() is None:
        return
    if config.device == "auto" and not (find_spec("torch") and find_spec("triton")):
        return
    given = devflags.cuda_visible_devices()
    names = gpu_names() if given is None else given
    size = config.tensor_parallel_size or 1
    if names and len(names) < size * share.count:
        most = len(names) // size
        lower = f"lower it to {most}" if most else f"lower tensor_parallel_size to {len(names)} at most"
        raise ConfigError(
            f"data_parallel_size={share.count}, and {len(names)} GPUs can be used here; each engine needs "
            f"{'one' if size == 1 else size} of its own: {lower}, or use --device cpu"
        )
    if names:
        devflags.use_cuda_devices(names[size * share.index : size * (share.index + 1)])


def take_processors(config: EngineConfig, share: Share) -> EngineConfig:
    """Settings with one's own number of threads, which run on one's own processors from now on.

    Raises: ConfigError when there are fewer processors, or threads, than engines.
    """
    if share.count == 1:
        return config
    cpus = usable_cpus()
    own, num_threads = cut(cpus, numa_nodes(), share), threads_of(config.num_threads, num_threads_of(None), share)
    if num_threads <= len(own):
        keep_to_processors(own)
    return replace(config, num_threads=num_threads)
