"""A layer of experts by itself, in the shape of Qwen3-30B-A3B: its matrices, random routes, and its four launches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from setup import Setup

if TYPE_CHECKING:
    from albireo.backends.cuda.expert_list import ExpertList
    from albireo.backends.cuda.expert_plan import ExpertPlan

#: Experts, of a token, hidden size, and channels of an expert.
SHAPE, TINY = (128, 8, 2048, 768), (4, 2, 64, 64)
#: Few, whose tiles are few in prompts, too; of the parts of gate's and up's sums the last would be empty.
FEW = (4, 2, 2304, 2048)


@dataclass(frozen=True)
class ExpertLayer:
    """kind: of x where it is not the weight's own. room: of parts of sums. shape: as SHAPE."""

    setup: Setup
    dtype: str
    kind: str | None
    gate_up: Any
    down: Any
    lists: ExpertList
    room: torch.Tensor
    shape: tuple[int, int, int, int]

    @classmethod
    def of(
        cls,
        setup: Setup,
        dtype: str,
        most_tokens: int,
        kind: str | None = None,
        shape: tuple[int, int, int, int] = SHAPE,
    ) -> ExpertLayer:
        from model import fill_matrix

        from albireo.backends.cuda.encoded_matrix import empty_matrix
        from albireo.backends.cuda.expert_linear import workspace_size
        from albireo.backends.cuda.expert_list import expert_list
        from albireo.backends.cuda.expert_plan import widest

        count, top_k, hidden, inner = shape = setup.pick(shape, TINY)
        shapes = ((2 * inner, hidden), (hidden, inner))
        matrices = [empty_matrix(dtype, count * rows, cols, setup.device) for rows, cols in shapes]
        for seed, matrix in enumerate(matrices):
            fill_matrix(matrix, setup, seed)
        lists = expert_list(count, top_k, most_tokens, setup.device, widest(dtype, setup.chip))
        size = max(workspace_size(count, top_k, dtype, *each, setup.device) for each in shapes)
        room = torch.zeros(max(size, 4096), dtype=torch.uint8, device=setup.device)
        return cls(setup, dtype, kind, *matrices, lists, room, shape)  # type: ignore[call-arg]

    def step(self, num_tokens: int, seed: int = 5) -> ExpertStep:
        """Tokens whose experts are drawn alike."""
        from inputs import activations

        setup, (count, top_k, hidden, inner) = self.setup, self.shape
        device = setup.device
        x, values = activations(setup, self.dtype, num_tokens, hidden, self.kind)
        # what the activation gives is codes where x is: those of random numbers stand for it
        middle = x.new_empty(0)
        if x.dtype in (torch.uint8, torch.float8_e4m3fn):
            middle, _ = activations(setup, self.dtype, num_tokens * top_k, inner, self.kind)
        kept = x.dtype if x.dtype in (torch.float32, torch.float16) else torch.bfloat16
        return ExpertStep(
            self,
            x,
            values,
            setup.random(num_tokens, count, seed=seed),
            torch.empty((num_tokens, top_k), dtype=torch.int32, device=device),
            torch.empty((num_tokens, top_k), device=device),
            torch.empty((num_tokens * top_k, inner), dtype=kept, device=device),
            middle,
            torch.empty((num_tokens * top_k, hidden), device=device),
            torch.empty((num_tokens, hidden), device=device),
            torch.tensor([num_tokens], dtype=torch.int32, device=device),
        )

    @property
    def bytes_of_expert(self) -> float:
        """Of both matrices of one expert."""
        names = ("codes", "scale", "zero", "gamma", "offset")
        arrays = [getattr(m, name) for m in (self.gate_up, self.down) for name in names]
        size = sum(array.numel() * array.element_size() for array in arrays if array is not None)
        return size / self.lists.num_experts


@dataclass(frozen=True)
class ExpertStep:
    """What one step reads and writes, and its launches in order.

    middle: rows of codes that down reads; empty: it reads gated.
    """

    layer: ExpertLayer
    x: torch.Tensor
    values: torch.Tensor
    logits: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor
    gated: torch.Tensor
    middle: torch.Tensor
    pairs: torch.Tensor
    out: torch.Tensor
    num_real: torch.Tensor

    def route(self, width: int | None = None) -> ExpertList:
        """width: of tiles; None: the one that is taken."""
        from albireo.backends.cuda.kernels.moe_route import Rules, moe_route

        lists = self.layer.lists if width is None else replace(self.layer.lists, fixed=width)
        moe_route(self.logits, self.ids, self.weights, lists, self.num_real, Rules(renormalize=True))
        return lists

    def gate_up(self) -> None:
        from albireo.backends.cuda.expert_linear import expert_linear

        layer = self.layer
        expert_linear(self.x, layer.gate_up, self.gated, layer.lists, act="silu_mul", workspace=layer.room)

    def down(self) -> None:
        from albireo.backends.cuda.expert_linear import expert_linear

        layer, x = self.layer, self.middle if self.middle.numel() else self.gated
        expert_linear(x, layer.down, self.pairs, layer.lists, workspace=layer.room)

    def combine(self) -> None:
        from albireo.backends.cuda.kernels.moe_combine import moe_combine

        moe_combine(self.pairs, self.weights, self.out, None, self.num_real)

    def whole(self) -> None:
        self.route()
        self.gate_up()
        self.down()
        self.combine()

    def planned(self, name: str, lists: ExpertList, plan: ExpertPlan, programs: int | None) -> None:
        """gate_up or down, cut in another way; numbers only."""
        from albireo.backends.cuda.kernels.moe_grouped_matmul import moe_grouped_matmul

        layer, is_down = self.layer, name == "down"
        x, matrix, out = (self.gated, layer.down, self.pairs) if is_down else (self.x, layer.gate_up, self.gated)
        act = 0 if is_down else 1
        moe_grouped_matmul(x, matrix, out, out.shape[1], lists, act, None, None, layer.room, plan, programs)

    @property
    def experts_read(self) -> int:
        return len(self.ids.unique())

    @property
    def flops(self) -> int:
        count, hidden, inner = len(self.pairs), self.pairs.shape[1], self.gated.shape[1]
        return 2 * count * 3 * hidden * inner


def products_of(
    matrix: Any, rows: torch.Tensor, x: torch.Tensor, ids: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each pair, float64, with its expert's matrix, of count; and what the sums may be off by. rows: as they are
    read; x: the numbers that they stand for, a row a pair."""
    from checks_of_linears import unit_of
    from inputs import numbers_of

    numbers = numbers_of(matrix).view(count, -1, matrix.cols)
    wanted = x.new_empty(len(x), numbers.shape[1])
    sizes = torch.empty_like(wanted)
    for expert, weight in enumerate(numbers):
        mine = (ids.flatten() == expert).nonzero().flatten()
        wanted[mine], sizes[mine] = x[mine] @ weight.T, x[mine].abs() @ weight.T.abs()
    return wanted, unit_of(rows, matrix.cols) * sizes
