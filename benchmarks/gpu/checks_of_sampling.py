"""The best logits, drawn tokens, log-probabilities: equal to what the host gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from inputs import staged_tasks
from setup import Setup

Found = Iterator[tuple[str, float]]


def best(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.top import top, top_workspace
    from albireo.graph.ops import TOP_LOGITS

    rows, vocab = setup.pick((40, 128_256), (3, 300))
    # rounded, so that many are equal
    logits = (setup.random(rows, vocab) * 4).bfloat16().float()
    counts = (torch.arange(rows, device=setup.device) * 7 % TOP_LOGITS + 1).to(torch.int32)
    ids = torch.empty((rows, TOP_LOGITS), dtype=torch.int32, device=setup.device)
    values = torch.empty((rows, TOP_LOGITS), device=setup.device)
    top(logits, counts, ids, values, torch.empty(top_workspace(rows, vocab), dtype=torch.int64, device=setup.device))
    sorted_ids = torch.sort(logits, dim=1, descending=True, stable=True).indices[:, :TOP_LOGITS]
    wanted = torch.where(torch.arange(TOP_LOGITS, device=setup.device) < counts[:, None], sorted_ids, -1)
    yield "top", 0.0 if torch.equal(ids.long(), wanted) else float("inf")


def tokens(setup: Setup) -> Found:
    """As many tokens as differ from the host's; none should."""
    from albireo.backends.cuda.kernels.sample import sample
    from albireo.backends.cuda.sampling import SampleWorkspace
    from albireo.params import SamplingParams
    from albireo.sampling.sampler import Sampler
    from albireo.step import SampleTask

    vocab = setup.pick(128_256, 300)
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.0},
        {"top_k": 50},
        {"top_p": 0.9},
        {"min_p": 0.05, "temperature": 1.5},
        {"top_k": 200, "top_p": 0.95, "temperature": 0.7},
        {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3, "temperature": 0.8},
        {"allowed_token_ids": list(range(0, vocab, 5)), "logit_bias": {10: 5.0}, "top_p": 0.8},
    ]
    num = setup.pick(160, 8)
    rng = np.random.default_rng(1)
    logits = (setup.random(num, vocab) * 3).contiguous()
    tasks = [
        SampleTask(
            i, SamplingParams(**kinds[i % len(kinds)]), i, rng.integers(0, vocab, 50).tolist(), list(range(i % 40))
        )
        for i in range(num)
    ]
    out = torch.empty(num, dtype=torch.int32, device=setup.device)
    space = SampleWorkspace.allocate(num, vocab, setup.device)
    tensors, arrays = staged_tasks(setup, tasks, vocab)
    sample(logits, tensors, space, out, arrays.changes, arrays.truncates)
    host = Sampler(vocab).sample(logits.cpu().numpy(), tasks, range(num))
    differ = sum(ours != theirs.token_id for ours, theirs in zip(out.tolist(), host, strict=True))
    yield f"sample, of {num} tokens", float(10 * differ)


def log_probabilities(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.top_logprobs import top_logprobs, top_logprobs_workspace
    from albireo.graph.ops import TOP_LOGITS

    rows, vocab = setup.pick((20, 128_256), (3, 300))
    logits = setup.random(rows, vocab) * 4
    chosen = torch.arange(rows, dtype=torch.int32, device=setup.device) * 3
    values = logits.topk(TOP_LOGITS).values.contiguous()
    logprobs = torch.empty((rows, 1 + TOP_LOGITS), dtype=torch.float64, device=setup.device)
    ranks = torch.empty((rows, 1 + TOP_LOGITS), dtype=torch.int32, device=setup.device)
    num_partial, num_above = top_logprobs_workspace(rows, vocab)
    top_logprobs(
        logits,
        torch.arange(rows, dtype=torch.int32, device=setup.device),
        chosen,
        chosen,
        values,
        logprobs,
        ranks,
        torch.empty(num_partial, dtype=torch.float64, device=setup.device),
        torch.empty(num_above, dtype=torch.int32, device=setup.device),
    )
    wanted = logits.double().log_softmax(1)
    own = wanted.gather(1, chosen.long()[:, None])
    found = torch.cat((own, values.double() - logits.double().logsumexp(1, keepdim=True)), dim=1)
    yield "top_logprobs", float((logprobs - found).abs().max() / 1e-12)
    above = (logits > logits.gather(1, chosen.long()[:, None])).sum(1) + 1
    yield "ranks", 0.0 if torch.equal(ranks[:, 0].long(), above) else float("inf")


def drafts(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.spec_verify import spec_verify

    def ints(values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=setup.device)

    tokens, num = ints([[0] * 4] * 3), ints([0] * 3)
    drafted, drawn = ints([[4, 5, 6], [4, 5, 6], [9, 0, 0]]), ints([4, 5, 6, 7, 4, 1, 2, 3, 9, 8])
    spec_verify(drafted, ints([3, 3, 1]), drawn, ints([0, 4, 8]), tokens, num)
    wanted = [[4, 5, 6, 7], [4, 1, -1, -1], [9, 8, -1, -1]]
    yield "spec_verify", 0.0 if tokens.tolist() == wanted and num.tolist() == [4, 2, 2] else float("inf")


CHECKS = {"best": best, "tokens": tokens, "log_probabilities": log_probabilities, "drafts": drafts}
