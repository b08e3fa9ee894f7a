"""Entries of several positions, and what is done with them: attention that gives sums, two of which become one, against
torch in float64; matrices that are balanced; the bits of contexts that are cut. What entries are made of:
checks_of_states.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from checks import Finding, same_bits, worst
from checks_of_attention import Batch, Cache
from setup import Setup


def entries(setup: Setup) -> Iterator[Finding]:
    """Of a cache whose entries are of so many positions; beside them nothing is seen but a score of each head."""
    from albireo.backends.cuda.attention_plan import AttentionShape, work_list, workspace_size
    from albireo.backends.cuda.kernels.attention import attention
    from albireo.backends.cuda.kernels.build_work_list import build_work_list
    from albireo.backends.cuda.kernels.join_sums import join_sums
    from albireo.backends.cuda.kv import LayerKV
    from albireo.graph.attention_op import NOTHING_SEEN

    batch: Batch = setup.pick([(1, 9000), (70, 3000), (1, 100), (40, 40)], [(1, 60), (3, 19), (1, 2)])
    heads, dim = setup.pick((64, 512), (5, 32))
    for every in setup.pick((4, 128), (2, 16)):
        cache = Cache(setup, "bfloat16", len(batch), max(context for _, context in batch), "index")
        size, step = cache.sizes[3], cache.step(batch)
        total, per_block = step.sizes["T"], max(1, size // every)
        stored = setup.random(len(cache.kv.layers[0].k), 1, per_block, dim + 16, dtype=torch.bfloat16, seed=3)
        layer = LayerKV(stored[..., :dim].contiguous(), stored[..., :dim].contiguous(), every=every, block_size=size)
        q = setup.random(total, heads * dim, dtype=torch.bfloat16)
        sinks, found = setup.random(heads, seed=4), {}
        for split in (512, setup.pick(64, 64)):
            kind = heads, 1, dim, cache.longest, 0, "bfloat16", "bfloat16", setup.chip
            shape = AttentionShape(*kind, split=split, value_dim=dim, every=every)
            work = work_list(shape, total, len(batch), setup.device)
            scratch = torch.zeros(workspace_size(shape, total), device=setup.device)
            out = torch.empty((total, heads * (dim + 2)), device=setup.device)
            build_work_list(step, work)
            given = (q, layer, out, step, work, scratch, heads, 1, dim, dim**-0.5, 0, 0.0)
            attention(*given, value_dim=dim, sums=True)
            nothing, joined = torch.zeros_like(out), torch.empty((total, heads * dim), device=setup.device)
            nothing.view(total, heads, dim + 2)[..., dim] = NOTHING_SEEN
            join_sums(out, nothing, sinks, joined)
            found[split] = joined
        wanted, sizes, row = torch.zeros_like(found[512], dtype=torch.float64), [], 0
        for i, (new, context) in enumerate(batch):
            blocks = cache.table[i].to(setup.device)[max(1, every // size) - 1 :: max(1, every // size)]
            keys = layer.k[blocks, 0].flatten(0, 1).double()
            for place in range(new):
                seen = keys[: (context - new + place + 1) // every]
                scores = q[row].double().view(heads, dim) @ seen.T * dim**-0.5
                weights = torch.cat((scores, sinks.double()[:, None]), 1).softmax(1)[:, :-1]
                wanted[row] = (weights @ seen).flatten()
                sizes.append(float(seen.abs().max()) if len(seen) else 1.0)
                row += 1
        allowed = torch.tensor(sizes, device=setup.device)[:, None].double().expand_as(wanted) * 2.0**-7
        yield worst(f"attention to entries of {every}", found[512], wanted, allowed)
        yield worst(f"attention to entries of {every}, in short splits", found[64], wanted, allowed)
        alone = cache.step(batch[:1])
        shape = AttentionShape(*kind, value_dim=dim, every=every)
        work = work_list(shape, 1, 1, setup.device)
        scratch = torch.zeros(workspace_size(shape, 1), device=setup.device)
        first = torch.empty((1, heads * (dim + 2)), device=setup.device)
        build_work_list(alone, work)
        attention(q[:1], layer, first, alone, work, scratch, *given[6:], value_dim=dim, sums=True)
        joined = torch.empty((1, heads * dim), device=setup.device)
        join_sums(first, nothing[:1], sinks, joined)
        yield same_bits(setup, f"bits of entries of {every}", {1: joined, total: found[512]})


def balance(setup: Setup) -> Iterator[Finding]:
    from albireo.backends.cuda.kernels.balance import balance

    for count in (4, 3):
        x = 3 * setup.random(setup.pick(700, 5), count * count)
        out = torch.empty_like(x)
        balance(x, out, 20, 1e-6)
        m = x.double().view(-1, count, count).softmax(1) + 1e-6
        m = m / (m.sum(2, keepdim=True) + 1e-6)
        for _ in range(19):
            m = m / (m.sum(1, keepdim=True) + 1e-6)
            m = m / (m.sum(2, keepdim=True) + 1e-6)
        yield worst(f"balance of {count}", out, m.flatten(1), 3e-5 * m.flatten(1) + 1e-7)


CHECKS = {"entries": entries, "balance": balance}
