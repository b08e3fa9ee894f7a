"""What rows of attention are to see, chosen by score: positions, and blocks of them, of each KV head its own, against
torch in float64; and attention to lists of each head, which are to have the bits of lists that all share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from checks import Finding, same_bits
from checks_of_attention import Batch, Cache
from setup import Setup


def blocks(setup: Setup) -> Iterator[Finding]:
    """No block that is not chosen is worth more than one that is, but for what sums of float32 are off by."""
    from albireo.backends.cuda.kernels.choose_blocks import choose_blocks, scores_of

    unit, taken, nearest = setup.pick((128, 16, 1), (8, 2, 1))
    batch: Batch = setup.pick([(1, 9000), (70, 3000), (1, 500)], [(1, 40), (3, 19), (1, 5)])
    cache = Cache(setup, "bfloat16", len(batch), max(context for _, context in batch), "index")
    heads, _, dim, _ = cache.sizes
    step = cache.step(batch)
    total, count = step.sizes["T"], unit * taken
    q = setup.random(total, heads * dim, dtype=torch.bfloat16)
    ids = torch.full((total, heads * count), -7, dtype=torch.int32, device=setup.device)
    scores = torch.empty((40, scores_of(heads, unit, cache.longest)), device=setup.device)
    choose_blocks(q, cache.kv.layers[0], ids, step, 0, scores, heads, dim, unit, nearest)
    worst, wrong, row = 0.0, 0, 0
    for i, (new, context) in enumerate(batch):
        k, _ = cache.numbers(i, context)
        for place in range(new):
            seen = context - new + place + 1
            met = q[row].double().view(heads, dim) @ k[:seen, 0].T
            size = (q[row].double().abs().view(heads, dim) @ k[:seen, 0].abs().T).max()
            padded = torch.nn.functional.pad(met, (0, -seen % unit), value=-torch.inf)
            worths = padded.view(heads, -1, unit).amax(2)
            worths[:, -nearest:] = torch.inf
            for head, found in enumerate(ids[row].view(heads, count)):
                places = found[found >= 0].long()
                chosen = places.div(unit, rounding_mode="floor").unique()
                whole = (chosen[:, None] * unit + torch.arange(unit, device=setup.device)).flatten()
                wrong += int(
                    not torch.equal(places, whole[whole < seen]) or len(chosen) != min(taken, len(worths[head]))
                )
                rest = torch.ones(len(worths[head]), dtype=torch.bool, device=setup.device)
                rest[chosen] = False
                if rest.any():
                    missed = float(worths[head][rest].max() - worths[head][chosen].min())
                    worst = max(worst, missed / float(dim * 2.0**-24 * size))
            row += 1
    yield Finding("choose_blocks, the best", worst)
    yield Finding("choose_blocks, whole blocks in order", float(wrong))


def keys(setup: Setup) -> Iterator[Finding]:
    """By weighted heads: no position that is not chosen is worth more than one that is; ascending, and all where there
    are no more. In turns of few rows, with the same choice."""
    from albireo.backends.cuda.kernels.choose_keys import choose_keys

    heads, count = setup.pick((64, 2048), (4, 8))
    batch: Batch = setup.pick([(1, 9000), (70, 3000), (1, 500)], [(1, 40), (3, 19), (1, 5)])
    cache = Cache(setup, "bfloat16", len(batch), max(context for _, context in batch), "index")
    dim, step = cache.sizes[2], cache.step(batch)
    total = step.sizes["T"]
    q, weights = setup.random(total, heads * dim, dtype=torch.bfloat16), setup.random(total, heads, seed=1)
    found = []
    for turns in (total, 7):
        ids = torch.full((total, count), -7, dtype=torch.int32, device=setup.device)
        scores = torch.empty((turns, cache.longest), device=setup.device)
        choose_keys(q, weights, cache.kv.layers[0], ids, step, 0, scores, heads, dim)
        found.append(ids)
    worst, wrong, row = 0.0, 0, 0
    for i, (new, context) in enumerate(batch):
        k, _ = cache.numbers(i, context)
        for place in range(new):
            seen = context - new + place + 1
            met = q[row].double().view(heads, dim) @ k[:seen, 0].T
            by = weights[row].double()
            worths = by @ met.clamp(min=0.0)
            size = by.abs() @ (q[row].double().abs().view(heads, dim) @ k[:seen, 0].abs().T)
            places = found[0][row][: min(seen, count)].long()
            is_ascending = bool((places.diff() > 0).all()) and int(places[0]) >= 0 and int(places[-1]) < seen
            wrong += int(not is_ascending or bool((found[0][row][seen:] != -1).any()))
            rest = torch.ones(seen, dtype=torch.bool, device=setup.device)
            rest[places.clamp(0, seen - 1)] = False
            if rest.any():
                missed = float(worths[rest].max() - worths[~rest].min())
                worst = max(worst, missed / float((dim + heads) * 2.0**-24 * size.max()))
            row += 1
    yield Finding("choose_keys, the best", worst)
    yield Finding("choose_keys, in order", float(wrong))
    yield same_bits(setup, "choose_keys, in turns", {total: found[0], total - 1: found[1][: total - 1]})


def lists_of_heads(setup: Setup) -> Iterator[Finding]:
    """Lists that are alike, one a head, and one for all."""
    from albireo.backends.cuda.attention_plan import AttentionShape, work_list, workspace_size
    from albireo.backends.cuda.kernels.attention import attention
    from albireo.backends.cuda.kernels.build_work_list import build_work_list

    count = setup.pick(1024, 16)
    batch: Batch = setup.pick([(1, 9000), (1, 500), (40, 3000)], [(1, 40), (1, 5)])
    cache = Cache(setup, "bfloat16", len(batch), max(context for _, context in batch))
    heads, kv_heads, dim, _ = cache.sizes
    step = cache.step(batch)
    total = step.sizes["T"]
    q = setup.random(total, heads * dim, dtype=torch.bfloat16)
    lists = torch.full((total, count), -1, dtype=torch.int32)
    for row, position in enumerate(step.positions.tolist()):
        places = torch.randperm(position + 1, generator=torch.Generator().manual_seed(row))[:count].sort().values
        lists[row, : len(places)] = places.to(torch.int32)
    lists = lists.to(setup.device)
    shape = AttentionShape(heads, kv_heads, dim, cache.longest, 0, "bfloat16", "bfloat16", setup.chip, chosen=count)
    work = work_list(shape, total, len(batch), setup.device)
    scratch = torch.zeros(workspace_size(shape, total), device=setup.device)
    found = {}
    for number, chosen in enumerate((lists, lists.repeat(1, kv_heads))):
        build_work_list(step, work)
        out = torch.empty((total, heads * dim), device=setup.device)
        attention(
            q, cache.kv.layers[0], out, step, work, scratch, heads, kv_heads, dim, dim**-0.5, 0, 0.0, chosen=chosen
        )
        found[total - 1 + number] = out[: total - 1 + number]
    yield same_bits(setup, "attention to a list of each head, bits", found)


CHECKS = {"choose_keys": keys, "choose_blocks": blocks, "lists of heads": lists_of_heads}
