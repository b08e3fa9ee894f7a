"""AttentionPlan: how the attention of a step is cut into work, from shapes alone; WorkList: the memory that it fills.

Shapes and memory are made by model.py once; the launchers of build_work_list and attention ask for the plan of each
step. What lies in the memory is decided on the device, by build_work_list.

A query row is one head of one token. The rows of a sequence that share a KV head are group * tokens, token by token,
and are computed in tiles of tile_rows. A context is cut into splits at fixed positions. An item is a tile of rows with
either every split of its context or just one, whose result is then a part that waits for the others; the bits are the
same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton

from albireo.backends.cuda.catalog import MAX_HEAD_DIM
from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.step import DeviceStep
from albireo.dtypes import KV_CODES
from albireo.errors import InvariantError

#: Positions whose keys are taken at once, from position 0 on; half of it for heads of more than 128 numbers, which
#: would not stay in registers, a quarter for wide ones of codes or of float32. Part of what a result's bits are.
KV_TILE = 64
#: Positions of a split. Part of what a result's bits are.
SPLIT = 512
#: int32 numbers of an item: where the sequence's block table begins, its first token, first row, rows of the sequence,
#: position of its first token, first split, end of the splits, part of its first token (-1: the result goes to out),
#: first split of the sequence's items, number of their splits. Tokens behind the last sequence's are items of
#: no splits.
ITEM_FIELDS = 10
#: Parts that a workspace has room for at most: 4096 of 32 heads of 128 numbers take 68 MB.
MAX_PARTS = 4096
_HEADER = 16
#: Rows of a tile of a token that sees what it has chosen.
_LIST_ROWS = 16


@dataclass(frozen=True, slots=True)
class Launch:
    """How programs of a tile are made; no bit of a result depends on it.

    Fields:
        stages: tiles of keys and values that there is shared memory for, and one. programs: a multiprocessor has room
            for so many, by registers (64 K) and shared memory. registers: the compiler is held to so many a thread;
            None: it takes what it wants.
    """

    warps: int
    stages: int
    programs: int
    registers: int | None = None


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What is the same for every step of layers that share work lists.

    Fields:
        max_context: positions of the longest sequence.
        window: positions that a row sees, its own included; 0: all.
        chip: what computes it.
        q_dtype, kv_dtype: of queries and of the cache.
        tile_rows: 16, 32, 64 or 128 for every step, where a row's bits must not depend on the shape of its step even if
            HMMA and HGMMA differ; None: what is fastest for each.
        split: positions of one, a multiple of KV_TILE.
        max_parts: (token, split) pairs whose results the workspace holds at most. Where a step would have more,
            sequences are computed whole instead: slower perhaps, the same bits.
        launch: of tiles of 16 rows, where another one is tried; None: see launch_of().
        value_dim: values are so many first channels of keys; 0: they are stored beside keys.
        result_dim: of those that are stored so many first channels are given; 0: all.
        block_group: whose block tables they read.
        first_key, num_keys, in_chunks: see graph.ops; 0, False: nothing is said.
        chosen: positions that each row has chosen and sees, at most; 0: it sees all. chosen_unit: so many side by side
            are chosen together. sees_rest: those behind the last of these that is whole are always seen.
        by_distance: scores have numbers of rows added by distance.
        every: so many positions have one entry, and rows see entries; splits and lists are of these.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int
    window: int
    q_dtype: str
    kv_dtype: str
    chip: Chip
    tile_rows: int | None = None
    split: int = SPLIT
    max_parts: int = MAX_PARTS
    launch: Launch | None = None
    value_dim: int = 0
    block_group: int = 0
    first_key: int = 0
    num_keys: int = 0
    in_chunks: bool = False
    result_dim: int = 0
    chosen: int = 0
    chosen_unit: int = 1
    sees_rest: bool = False
    by_distance: bool = False
    every: int = 1

    def __post_init__(self) -> None:
        most = 1024 if self.value_dim else MAX_HEAD_DIM
        if self.num_heads % self.num_kv_heads or self.split % KV_TILE or self.head_dim > most:
            raise InvariantError(
                f"attention of {self.num_heads} heads, {self.num_kv_heads} KV heads, {self.head_dim} numbers a head "
                f"and splits of {self.split}: heads must be a multiple of KV heads, {most} numbers are the most, and a "
                f"split is a multiple of {KV_TILE}"
            )

    @property
    def width(self) -> int:
        """Numbers of a head's sum."""
        return self.value_dim or self.head_dim

    @property
    def result_width(self) -> int:
        """Numbers of a head's result."""
        return self.result_dim or self.width

    @property
    def is_wide(self) -> bool:
        """Whether a row's sums take twice the registers of heads of 256."""
        return self.width > 256

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def compute_types(self) -> tuple[str, str]:
        """In which type scores come from q and keys, and the mean from weights and values."""
        if self.q_dtype == "float32":
            return "float32", "float32"
        if self.kv_dtype in KV_CODES:
            return self.q_dtype, "bfloat16"
        one = self.q_dtype if self.q_dtype == self.kv_dtype else "float32"
        return one, one

    @property
    def kv_tile(self) -> int:
        if self.is_wide and not self.value_dim and (self.compute_types[0] == "float32" or self.kv_dtype in KV_CODES):
            return KV_TILE // 4
        return KV_TILE if self.head_dim <= 128 else KV_TILE // 2

    @property
    def largest_tile(self) -> int:
        """Rows of the largest tile whose sums stay in registers: 128 with HGMMA, which spreads them best. Codes of wide
        heads, which are turned into numbers in registers too, leave room for 32. Where what rows add by distance lies
        is 64 bits a score."""
        if self.compute_types[0] == "float32" or self.is_wide:
            return 16
        if self.by_distance and self.head_dim > 128:
            return 16
        if self.head_dim > 128 and self.kv_dtype in KV_CODES:
            return 32
        if self.by_distance:
            return 64
        return 128 if self.chip.has_wgmma and self.head_dim <= 128 else 64

    @property
    def most_keys(self) -> int:
        """That a row sees."""
        return (self.num_keys or self.max_context) // self.every

    @property
    def list_splits(self) -> int:
        """Splits of what a row has chosen, at most."""
        return -(-min(self.chosen, self.most_keys) // self.split)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The work of a step of T tokens and B sequences.

    Fields:
        tile_rows: 16, 32, 64 or 128. programs: of attention's grid; they share the items among them. launch: of each.
        max_items: more than there can be. max_parts: more than there may be.
    """

    tile_rows: int
    programs: int
    max_items: int
    max_parts: int
    launch: Launch


@lru_cache(maxsize=1024)
def plan_attention(shape: AttentionShape, num_tokens: int, num_sequences: int) -> AttentionPlan:
    if shape.chosen:
        return _plan_of_lists(shape, num_tokens)
    rows = shape.tile_rows or _tile_rows(shape, num_tokens, num_sequences)
    splits = -(-shape.most_keys // shape.split) - shape.first_key // shape.split
    parts = min(shape.max_parts, num_tokens * splits) if splits > 1 else 0
    items = num_tokens * shape.group // rows + min(num_sequences + 1, num_tokens) + parts * -(-shape.group // rows)
    launch = launch_of(shape, rows)
    programs = min(shape.chip.multiprocessors * launch.programs, items * shape.num_kv_heads)
    return AttentionPlan(rows, max(1, programs), items, parts, launch)


def _plan_of_lists(shape: AttentionShape, num_tokens: int) -> AttentionPlan:
    """Each token by itself, since it sees what no other does: its list as a whole, or where there are fewer tiles than
    programs, an item a split."""
    launch, tiles, splits = launch_of(shape, _LIST_ROWS), -(-shape.group // _LIST_ROWS), shape.list_splits
    programs, units = shape.chip.multiprocessors * launch.programs, num_tokens * tiles * shape.num_kv_heads
    is_split = splits > 1 and units < programs and num_tokens * splits <= shape.max_parts
    items = num_tokens * tiles * (splits if is_split else 1)
    programs = min(programs, items * shape.num_kv_heads)
    return AttentionPlan(_LIST_ROWS, max(1, programs), items, num_tokens * splits if is_split else 0, launch)


def _tile_rows(shape: AttentionShape, num_tokens: int, num_sequences: int) -> int:
    """By the rows that a sequence has on average: 16 for decoding, 128 for long prompts."""
    mean = num_tokens * shape.group / max(1, num_sequences)
    wanted = 16 if mean <= 16 else 64 if mean <= 256 else 128
    return min(wanted, shape.largest_tile)


def launch_of(shape: AttentionShape, tile_rows: int) -> Launch:
    """What is to be measured stands here, and nowhere else.

    A grid is what is resident at once, else programs that come later hold items that nobody else takes. Two of bfloat16
    have three tiles of 32 KB on their way each. Codes cost instructions, not bytes: three programs hide more of them.
    """
    is_short = shape.chip.has_little_shared_memory
    if tile_rows != 16:
        return Launch(8, 2 if is_short and shape.head_dim > 128 else 3, 1)
    if shape.launch is not None:
        return shape.launch
    if shape.is_wide:  # sums of 512 channels, twice: more warps, so that they stay in registers
        return Launch(4 if is_short and shape.value_dim else 8, 2 if is_short else 3, 1)
    if shape.compute_types[0] == "float32":
        return Launch(4, 2 if is_short else 3, 1)
    if not shape.chip.has_wgmma:
        return Launch(4, 2 if is_short else 3, 2)
    if shape.kv_dtype in KV_CODES:
        return Launch(4, 4, 3, 168) if shape.head_dim in (64, 128) else Launch(4, 4, 2)
    return Launch(4, 4, 2)


def turned_block(head_dim: int, value_dim: int) -> int:
    """Channels of keys behind those that are values, as a tile has them: a matrix unit's least, or more."""
    return max(16, int(triton.next_power_of_2(head_dim - value_dim))) if value_dim else 16


def merged_rows(tile_rows: int, block_dim: int, warps: int) -> int:
    """Rows that are merged at once: four numbers a thread of each part, a load of 16 bytes."""
    return min(tile_rows, max(1, 128 * warps // block_dim))


@dataclass(frozen=True, slots=True)
class WorkList:
    """Memory of the items of a step, for layers of one shape; see work_list().

    Fields:
        count: [2] items there are; the next one that nobody has taken, counted behind the first of each program, and
            modulo the items' number times KV heads: each attention of a step adds as many.
        items: [max items, ITEM_FIELDS].
        arrived: [max items * KV heads] parts that are there, counted at the first item of a tile. finished: [max T]
            heads of a token that are written. Both are zeros but while attention runs.
    """

    shape: AttentionShape
    count: torch.Tensor
    items: torch.Tensor
    arrived: torch.Tensor
    finished: torch.Tensor

    def plan(self, step: DeviceStep) -> AttentionPlan:
        """Raises: InvariantError for a step of more than the list has memory for."""
        num_tokens = step.sizes["T"]
        plan = plan_attention(self.shape, num_tokens, step.sizes["B"])
        if num_tokens > len(self.finished) or plan.max_items > len(self.items):
            raise InvariantError(
                f"a step of {dict(step.sizes)} may have {plan.max_items} items of attention; the work list has room "
                f"for {len(self.items)} and {len(self.finished)} tokens"
            )
        return plan


def work_list(shape: AttentionShape, max_tokens: int, max_sequences: int, device: torch.device) -> WorkList:
    """Memory for steps of up to so many tokens and sequences."""
    parts = most_parts(shape, max_tokens, max_sequences)
    # small tiles are the most; padding is one sequence more
    rows = shape.tile_rows or 16
    items = max_tokens * shape.group // rows + max_sequences + 1 + parts * -(-shape.group // rows)
    if shape.chosen:
        items = max_tokens * -(-shape.group // _LIST_ROWS) + parts * -(-shape.group // _LIST_ROWS)
    sizes = (_HEADER, items * ITEM_FIELDS, items * shape.num_kv_heads, max_tokens)
    count, listed, arrived, finished = torch.zeros(sum(sizes), dtype=torch.int32, device=device).split(sizes)
    return WorkList(shape, count[:2], listed.view(items, ITEM_FIELDS), arrived, finished)


def most_parts(shape: AttentionShape, max_tokens: int, max_sequences: int) -> int:
    """Of any step of up to so many tokens and sequences: of lists it is small ones that are cut."""
    sizes = range(1, max_tokens + 1) if shape.chosen else (max_tokens,)
    return max(plan_attention(shape, tokens, max_sequences).max_parts for tokens in sizes)


def workspace_size(shape: AttentionShape, max_tokens: int) -> int:
    """float32 numbers of the workspace of attention; layers that follow each other share it."""
    return most_parts(shape, max_tokens, max_tokens) * shape.num_heads * (shape.width + 2)


def parts_of(shape: AttentionShape, plan: AttentionPlan, workspace: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of the workspace: sums [parts, H, D]; [parts, H, 2] the largest score, in units of log 2, and weights."""
    heads, dim = shape.num_heads, shape.width
    sums = plan.max_parts * heads * dim
    end = sums + plan.max_parts * heads * 2
    if workspace.numel() < end:
        raise InvariantError(f"a workspace of {workspace.numel()} numbers; attention of this step may need {end}")
    return workspace[:sums].view(plan.max_parts, heads, dim), workspace[sums:end].view(plan.max_parts, heads, 2)
