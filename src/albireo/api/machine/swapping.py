"""How many blocks of host memory preempted sequences get, and what moving one costs beside computing it again.

Called by cuda_device.py for a device that has memory of its own. Does not allocate, and does not know the engine's rule
(engine/preemption.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.api.machine.memory import available_bytes
from albireo.config import EngineConfig
from albireo.errors import ConfigError, OutOfMemory
from albireo.graph.program import Program

#: Between page-locked memory and a GPU, one way: PCIe 4.0 x16 moves 20 to 25 GB/s, 5.0 twice that. Not measured here.
LINK_BYTES_PER_S = 20e9
#: Products while a prompt is computed again: half of what an H100 is sold for in bfloat16. Not measured here.
PREFILL_FLOPS_PER_S = 4e14

_LINEARS = ("linear", "linear_norm", "linear_parts", "qkv_rope_kv")


@dataclass(frozen=True, slots=True)
class Swapping:
    """num_blocks of host memory; cost_tokens: see EngineSettings.swap_cost_tokens."""

    num_blocks: int = 0
    cost_tokens: float = 0.0


def plan_swapping(config: EngineConfig, program: Program, block_bytes: int) -> Swapping:
    """What swap_space holds, and the cost of a block.

    The time of both is taken as proportional, to bytes there and back, and to the weights' products: attention, which
    makes computing again dearer, is left out, and so is that a step may have room for it anyway.
    Args: block_bytes: of one block over all layers.
    Raises: ConfigError when swap_space holds no block; OutOfMemory when the machine has not so much.
    """
    if config.swap_space == 0:
        return Swapping()
    wanted, there = int(config.swap_space * 2**30), available_bytes()
    if wanted > there:
        raise OutOfMemory(
            f"swap_space={config.swap_space:g} GiB exceed the {there / 2**30:.2f} GiB of host memory that are "
            "available; lower it"
        )
    if wanted < block_bytes:
        raise ConfigError(
            f"swap_space={config.swap_space:g} GiB are {wanted} bytes, a KV block takes {block_bytes}; raise it, or "
            "leave it out"
        )
    move_s = 2 * block_bytes / LINK_BYTES_PER_S
    token_s = 2 * _products(program) / PREFILL_FLOPS_PER_S
    return Swapping(wanted // block_bytes, move_s / token_s)


def _products(program: Program) -> int:
    """Multiplications of a token of a prompt with the weights, its head left out."""
    products = 0
    for call in program.calls:
        roles = [role for role in ("weight", "v_weight") if role in call.args]
        if call.family == "expert_linear":
            matrix = program.constants[call.args["weight"]]
            products += matrix.rows * matrix.cols * call.attrs["top_k"] // call.attrs["num_experts"]
        elif call.family in _LINEARS and call.rows == "T":
            matrices = [program.constants[call.args[role]] for role in roles]
            products += sum(matrix.rows * matrix.cols for matrix in matrices)
    return max(1, products)
