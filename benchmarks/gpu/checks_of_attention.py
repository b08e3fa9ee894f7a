"""Attention over a paged cache against torch in float64, for decoding, prompts and both; copies of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from checks import Check, Finding, same_bits
from model import fill_cache
from setup import Setup

Found = Iterator[tuple[str, float]]
#: New tokens and context of each sequence of a step.
Batch = list[tuple[int, int]]


@dataclass
class Cache:
    """A cache of random numbers, in which sequence i of any batch has the same blocks.

    Fields: heads: "usual"; "latents": of one KV head, whose values are channels of its keys, as DeepSeek V3 has it;
        "wide": of 512 numbers, as layers of Gemma 4 without a window have them; "encoder": as BERT has them; "index":
        of one KV head without values, as what chooses blocks for MiniMax M3 has it.
    """

    setup: Setup
    dtype: str
    sequences: int
    longest: int
    heads: str = "usual"
    sizes: tuple[int, int, int, int] = field(init=False)
    value_dim: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        from albireo.backends.cuda.kv import DeviceKV
        from albireo.graph.kv_layout import KVLayout

        setup = self.setup
        self.sizes = setup.pick((32, 8, 128, 16), (4, 2, 16, 8))
        if self.heads == "wide":
            self.sizes = setup.pick((16, 4, 512, 16), (4, 2, 32, 8))
        if self.heads == "encoder":
            self.sizes = setup.pick((12, 12, 64, 16), (4, 4, 16, 8))
        if self.heads == "index":
            self.sizes = setup.pick((4, 1, 128, 16), (2, 1, 16, 8))
        if self.heads == "latents":
            self.sizes, self.value_dim = setup.pick((32, 1, 576, 16), (4, 1, 24, 8)), setup.pick(512, 16)
        _, kv_heads, dim, size = self.sizes
        blocks = -(-self.longest // size)
        layout = KVLayout(1, kv_heads, dim, self.dtype, size, self.heads not in ("latents", "index"))
        self.kv = DeviceKV(layout, 1 + blocks * self.sequences, setup.device)
        fill_cache(setup, self.kv)
        self.table = 1 + torch.arange(self.sequences * blocks).view(self.sequences, blocks).flip(1)

    def numbers(self, sequence: int, context: int) -> tuple[torch.Tensor, torch.Tensor]:
        """k: [context, KV heads, D], v: likewise, or its first channels; float64."""
        found, (_, _, dim, _) = [], self.sizes
        layer, blocks = self.kv.layers[0], self.table[sequence].to(self.setup.device)
        for codes, scales in ((layer.k, layer.k_scale), (layer.v, layer.v_scale)):
            rows = codes.float()[blocks].double()
            if scales is not None:
                rows = rows * scales[blocks].double()[..., None]
            found.append(rows.transpose(1, 2).flatten(0, 1)[:context, :, :dim])
        return found[0], found[1][..., : self.value_dim or dim]

    def step(self, batch: Batch, first: int = 0) -> Any:
        """Of these sequences, the first of which is that of this number."""
        from albireo.backends.cuda.step import DeviceStep

        starts = torch.tensor([0, *(new for new, _ in batch)]).cumsum(0)
        positions = torch.cat([torch.arange(context - new, context) for new, context in batch])
        total = len(positions)

        def ints(values: torch.Tensor) -> torch.Tensor:
            return values.to(torch.int32).to(self.setup.device)

        none = ints(torch.zeros(0))
        return DeviceStep(
            token_ids=ints(torch.zeros(total)),
            positions=ints(positions),
            slots=(ints(torch.zeros(total)),),
            query_start=ints(starts),
            context_len=ints(torch.tensor([context for _, context in batch])),
            block_table=ints(self.table).flatten(),
            table_start=(ints((first + torch.arange(len(batch))) * self.table.shape[1]),),
            rows={},
            top_counts=none,
            state_slots=none,
            snapshot_slots=none,
            snapshot_rows=none,
            sizes={"T": total, "B": len(batch), "R": 0, "G": 0, "S": 0},
        )

    def attend(self, batch: Batch, q: torch.Tensor, out: torch.Tensor, first: int = 0, **more: Any) -> None:
        """A step of these sequences, the first of which is that of this number. more: window, softcap, rows, sinks,
        both_ways, row_ends, added."""
        from albireo.backends.cuda.attention_plan import AttentionShape, work_list, workspace_size
        from albireo.backends.cuda.kernels.attention import attention
        from albireo.backends.cuda.kernels.build_work_list import build_work_list

        heads, kv_heads, dim, _ = self.sizes
        step, window = self.step(batch, first), more.get("window", 0)
        total = step.sizes["T"]
        kind = ("bfloat16", self.dtype, self.setup.chip)
        by_rows = more.get("added") is not None and more["added"].rows is not None
        shape = AttentionShape(
            heads, kv_heads, dim, self.longest, window, *kind, value_dim=self.value_dim, by_distance=by_rows
        )
        work = work_list(shape, total, len(batch), self.setup.device)
        scratch = torch.zeros(workspace_size(shape, total), device=self.setup.device)
        build_work_list(step, work)
        layer, cap = self.kv.layers[0], more.get("softcap", 0.0)
        args = (q, layer, out, step, work, scratch, heads, kv_heads, dim, dim**-0.5, window, cap)
        both_ways = more.get("both_ways", False)
        given = {name: more.get(name) for name in ("rows", "sinks", "row_ends", "added")}
        attention(*args, value_dim=self.value_dim, both_ways=both_ways, **given)


def numbers(setup: Setup) -> Iterator[Finding]:
    """Contexts of one split, of several, and of more than eight, whose parts are merged in two rounds."""
    batches: dict[str, Batch] = {
        "decode": setup.pick([(1, 1), (1, 700), (1, 6000), (1, 9000)], [(1, 9)]),
        "prompt": setup.pick([(600, 600)], [(5, 5)]),
        "mixed": setup.pick([(1, 900), (130, 1200), (1, 65)], [(1, 7), (3, 6)]),
    }
    for dtype in setup.pick(("bfloat16", "fp8", "int8"), ("bfloat16", "int8")):
        for name, batch in batches.items():
            yield _against_torch(setup, f"attention {dtype}, {name}", dtype, batch)
    more = {"window": setup.pick(300, 4), "softcap": 30.0}
    for name, batch in batches.items():
        yield _against_torch(setup, f"attention, window and softcap, {name}", "bfloat16", batch, **more)
    for name, batch in batches.items():
        yield _against_torch(setup, f"attention, sinks, {name}", "bfloat16", batch, has_sinks=True)
    for name, batch in batches.items():
        yield _against_torch(setup, f"attention of latents, {name}", "bfloat16", batch, "latents")
    for dtype, (name, batch) in product(("bfloat16", "int8"), batches.items()):
        yield _against_torch(setup, f"attention of wide heads, {dtype}, {name}", dtype, batch, "wide")
    for dtype, (name, batch) in product(("bfloat16", "int8"), texts(setup).items()):
        for window in (0, setup.pick(65, 4)):
            what = f"attention both ways, {dtype}, {name}, window {window}"
            yield _against_torch(setup, what, dtype, batch, "encoder", window=window, both_ways=True)
    for window, (name, batch) in product((0, setup.pick(1024, 4)), _with_images(setup).items()):
        what = f"attention of images, {name}, window {window}"
        yield _against_torch(setup, what, "bfloat16", batch, window=window, image=setup.pick(256, 3))


def by_distance(setup: Setup) -> Iterator[Finding]:
    """Texts whose scores have added a number of a table, as T5's, or what rows and positions say, as DeBERTa's."""
    from albireo.backends.cuda.kernels.parts.by_distance import ByDistance
    from albireo.graph.distance_columns import distance_columns

    reach, count = setup.pick((128, 64), (5, 4))
    for name, batch in texts(setup).items():
        cache = Cache(setup, "bfloat16", len(batch), max(context for _, context in batch), "encoder")
        heads, _, dim, _ = cache.sizes
        total = sum(new for new, _ in batch)
        q = setup.random(total, heads * dim, dtype=torch.bfloat16)
        table, out = setup.random(heads, 2 * reach + 1, seed=4), torch.empty((total, heads * dim), device=setup.device)
        sides = [setup.random(total, heads * count, seed=seed) for seed in (5, 6)]
        columns = torch.tensor(distance_columns(count, reach), dtype=torch.int32, device=setup.device)
        for what, added in (
            ("a table", ByDistance(reach, distances=table)),
            ("rows", ByDistance(reach, None, *sides, columns)),  # type: ignore[call-arg]
        ):
            cache.attend(batch, q, out, both_ways=True, added=added)
            worst, start = 0.0, 0
            for i, (new, context) in enumerate(batch):
                rows, (k, v) = slice(start, start + new), cache.numbers(i, context)
                start += new
                place = torch.arange(new, device=setup.device)
                away = (place[:, None] - place[None]).clamp(-reach, reach) + reach
                if added.rows is None:
                    more = table.double()[:, 2 * reach - away]
                else:
                    of_rows, of_keys = (side[rows].double().view(new, heads, count) for side in sides)
                    at = columns.long()[away]
                    more = of_rows.transpose(0, 1).gather(2, at.expand(heads, -1, -1))
                    more = more + of_keys.transpose(0, 1).gather(2, at.T.expand(heads, -1, -1)).transpose(1, 2)
                error = _error(q[rows], k, v, out[rows], 1, 0, both_ways=True, more=more * dim**-0.5)
                worst = error if not error <= worst else worst
            yield Finding(f"attention by distance, {what}, {name}", worst)


def _with_images(setup: Setup) -> dict[str, Batch]:
    """Of whose new tokens there are images enough to cross ends of tiles and of splits."""
    return {
        "a prompt": setup.pick([(900, 900)], [(9, 9)]),
        "prompts and a token": setup.pick([(300, 800), (1, 4000), (700, 2000)], [(5, 7), (1, 9)]),
    }


def _ends(batch: Batch, image: int) -> torch.Tensor:
    """Of each row behind the last position it sees: `image` new tokens see each other, every third time they do not."""
    ends = []
    for new, context in batch:
        place = torch.arange(new) // image
        last = (context - new + (place + 1) * image).clamp(max=context)
        ends.append(torch.where(place % 3 == 2, 0, last))
    return torch.cat(ends).to(torch.int32)


def texts(setup: Setup) -> dict[str, Batch]:
    """Whole ones: many short, in tiles of 16 rows and of 64; and some of several splits, in tiles of 128."""
    lengths = {
        "few tokens": setup.pick((5, 16, 1, 12), (3, 1)),
        "short texts": setup.pick((200, 64, 31, 129), (5, 9)),
        "long texts": setup.pick((1500, 512, 3000), (17,)),
    }
    return {name: [(length, length) for length in some] for name, some in lengths.items()}


def _against_torch(
    setup: Setup,
    what: str,
    dtype: str,
    batch: Batch,
    kind: str = "usual",
    has_sinks: bool = False,
    image: int = 0,
    **more: Any,
) -> Finding:
    """Args: image: tokens of one; 0: there are none."""
    cache = Cache(setup, dtype, len(batch), max(context for _, context in batch), kind)
    heads, kv_heads, dim, _ = cache.sizes
    if has_sinks:
        more["sinks"] = 3 * setup.random(heads, seed=9)
    total = sum(new for new, _ in batch)
    ends = _ends(batch, image).to(setup.device) if image else None
    q = setup.random(total, heads * dim, dtype=torch.bfloat16)
    out = torch.empty((total, heads * (cache.value_dim or dim)), device=setup.device)
    cache.attend(batch, q, out, row_ends=ends, **more)
    worst, where, start = 0.0, "", 0
    for i, (new, context) in enumerate(batch):
        rows, (k, v) = slice(start, start + new), cache.numbers(i, context)
        start += new
        own = None if ends is None else ends[rows]
        error = _error(q[rows], k, v, out[rows], heads // kv_heads, context - new, ends=own, **more)
        if not error <= worst:
            worst, where = error, f"worst of {new} new tokens in a context of {context}"
    return Finding(what, worst, where)


def _error(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    group: int,
    before: int,
    window: int = 0,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    both_ways: bool = False,
    ends: torch.Tensor | None = None,
    more: torch.Tensor | None = None,
) -> float:
    """The largest difference as a part of 2^-7 of the values' largest: weights are rounded to bfloat16."""
    tokens, dim = len(q), k.shape[2]
    k, v = (part.repeat_interleave(group, dim=1) for part in (k, v))
    scores = torch.einsum("thd,chd->htc", q.double().view(tokens, -1, dim), k) * dim**-0.5
    if more is not None:
        scores = scores + more
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    own, place = before + torch.arange(tokens, device=k.device)[:, None], torch.arange(len(k), device=k.device)[None]
    seen = (place > own - window if window else place >= 0) & (both_ways or place <= own)
    if both_ways and window:
        seen &= place < own + window
    if ends is not None:
        seen |= (place > own) & (place < ends[:, None])
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.double()[:, None, None].expand(-1, tokens, 1)), -1)
    weights = scores.softmax(-1)[..., : len(k)]
    wanted = torch.einsum("htc,chd->thd", weights, v).flatten(1)
    return float((out.double() - wanted).abs().max() / (2.0**-7 * v.abs().max()))


def bits(setup: Setup) -> Iterator[Finding]:
    """A row alone, beside others whose parts fill the workspace, and as the last of a prompt's piece; whole texts of
    both ways, alone and beside others."""
    new, contexts = setup.pick((130, [700, 3000, 6000]), (3, [9, 12, 20]))
    for dtype in setup.pick(("bfloat16", "fp8"), ("bfloat16",)):
        cache = Cache(setup, dtype, len(contexts), max(contexts))
        heads, _, dim, _ = cache.sizes
        q = setup.random(len(contexts) * new, heads * dim, dtype=torch.bfloat16)
        found = torch.empty((3, len(contexts), heads * dim), device=setup.device)
        together = torch.empty(q.shape, device=setup.device)
        cache.attend([(new, context) for context in contexts], q, together)
        lasts = torch.arange(len(contexts), device=setup.device) * new + new - 1
        found[2] = together[lasts]
        cache.attend([(1, context) for context in contexts], q[lasts], found[1])
        for i, context in enumerate(contexts):
            cache.attend([(1, context)], q[lasts[i : i + 1]], found[0, i : i + 1], first=i)
        for name, place in (("alone and beside others", 0), ("beside others and in a prompt", 1)):
            what = f"attention {dtype}, a row's bits {name}"
            yield same_bits(setup, what, {len(contexts) - 1: found[place, :-1], len(contexts): found[place + 1]})

    batch = [pair for some in texts(setup).values() for pair in some]
    cache = Cache(setup, "bfloat16", len(batch), max(context for _, context in batch), "encoder")
    heads, _, dim, _ = cache.sizes
    q = setup.random(sum(new for new, _ in batch), heads * dim, dtype=torch.bfloat16)
    alone, together = torch.empty_like(q), torch.empty_like(q)
    for window in (0, setup.pick(65, 4)):
        cache.attend(batch, q, together, window=window, both_ways=True)
        start = 0
        for i, (new, _) in enumerate(batch):
            rows = slice(start, start + new)
            cache.attend(batch[i : i + 1], q[rows], alone[rows], first=i, window=window, both_ways=True)
            start += new
        what = f"attention both ways, window {window}, a text's bits alone and beside others"
        yield same_bits(setup, what, {len(q) - 1: alone[:-1], len(q): together})


def bits_of_images(setup: Setup) -> Iterator[Finding]:
    """Rows that see to the end of an image, alone and beside others; and rows of no image, which are to be what they
    are in a step without."""
    batch, image = _with_images(setup)["prompts and a token"], setup.pick(256, 3)
    cache = Cache(setup, "bfloat16", len(batch), max(context for _, context in batch))
    heads, _, dim, _ = cache.sizes
    ends = _ends(batch, image).to(setup.device)
    q = setup.random(len(ends), heads * dim, dtype=torch.bfloat16)
    together, alone, plain = (torch.empty_like(q) for _ in range(3))
    cache.attend(batch, q, together, row_ends=ends)
    cache.attend(batch, q, plain)
    start = 0
    for i, (new, _) in enumerate(batch):
        rows = slice(start, start + new)
        cache.attend(batch[i : i + 1], q[rows], alone[rows], first=i, row_ends=ends[rows])
        start += new
    what = "attention of images, bits alone and beside others"
    yield same_bits(setup, what, {len(q) - 1: alone[:-1], len(q): together})
    others = together[ends == 0], plain[ends == 0]
    what = "attention of images, bits of other rows"
    yield same_bits(setup, what, {len(others[0]) - 1: others[0][:-1], len(others[1]): others[1]})


def codes(setup: Setup) -> Found:
    """Rows of codes that are not what a launch of their own makes of the rounded rows, by two."""
    from albireo.backends.cuda.kernels.elementwise import elementwise
    from albireo.dtypes import TOKEN, natural_stride

    batch = setup.pick([(1, 900), (130, 1200), (1, 6000)], [(1, 7), (3, 6)])
    cache = Cache(setup, "bfloat16", len(batch), max(context for _, context in batch))
    heads, _, dim, _ = cache.sizes
    q = setup.random(sum(new for new, _ in batch), heads * dim, dtype=torch.bfloat16)
    plain, (tokens, cols) = torch.empty_like(q), q.shape
    found, wanted = (
        torch.zeros((tokens, -(-natural_stride(TOKEN, cols) // 64) * 64), dtype=torch.uint8, device=q.device)
        for _ in range(2)
    )
    cache.attend(batch, q, plain)
    elementwise("cast", plain, None, wanted, cols)
    cache.attend(batch, q, found, rows=torch.empty_like(q))
    yield "attention to codes", 2.0 * float((found != wanted).any(1).sum())


def copies(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.copy_blocks import copy_blocks
    from albireo.backends.cuda.kernels.swap_blocks import HostKV, swap_in, swap_out
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.graph.kv_layout import KVLayout

    kv = DeviceKV(KVLayout(2, 2, setup.pick(128, 16), "bfloat16", 16), 8, setup.device)
    fill_cache(setup, kv)
    (numbers,) = kv.numbers
    before = numbers.clone()
    copy_blocks(kv, [(1, 4), (2, 5), (4, 6)])
    wanted = before[:, :, [0, 1, 2, 3, 1, 2, 1, 7]]
    yield "copy_blocks", 0.0 if torch.equal(numbers, wanted) else float("inf")
    host = HostKV(kv, 4, 2)
    swap_out(kv, host, [(1, 0), (2, 3), (5, 1)])
    swap_in(kv, host, [(0, 7), (3, 3)])
    wanted = wanted[:, :, [0, 1, 2, 2, 4, 5, 6, 1]]
    yield "swap_blocks", 0.0 if torch.equal(numbers, wanted) else float("inf")


CHECKS: dict[str, Check] = {
    "attention": numbers,
    "attention's bits": bits,
    "attention by distance": by_distance,
    "attention of images": bits_of_images,
    "attention to codes": codes,
    "copies": copies,
}
