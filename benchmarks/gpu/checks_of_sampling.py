"""The best logits, drawn tokens, log-probabilities: equal to what the host gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from checks import Check, Finding
from inputs import staged_tasks
from setup import Setup

Found = Iterator[tuple[str, float]]


def best(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.top import top, top_workspace
    from albireo.graph.op_numbers import TOP_LOGITS

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


def tokens(setup: Setup) -> Iterator[Finding]:
    """As many tokens as differ from the host's; none should. Alone, 64 and 256 at once."""
    vocab = setup.pick(128_256, 300)
    normal, noise = (setup.random(setup.pick(256, 4), vocab, seed=seed) for seed in (0, 1))
    kinds = list(_KINDS.values())
    yield _drawn(setup, "normal", normal * 3, _tasks(setup, kinds, setup.pick(256, 4)))
    # many of the best are equal: top-k and top-p end among them
    ties = (normal[: setup.pick(64, 3)] * 2).round() / 2
    yield _drawn(setup, "ties", ties, _tasks(setup, [*_TRUNCATING, {"temperature": 0.0}], len(ties)))
    # top-p keeps more than candidates have room for
    flat = noise[: setup.pick(64, 3)] * 0.3
    yield _drawn(setup, "flat", flat, _tasks(setup, _TRUNCATING, len(flat)))
    for i, (name, kind) in enumerate(_KINDS.items()):
        yield _drawn(setup, name, normal[i % len(normal)][None] * 3, _tasks(setup, [kind], 1))
    for kind in _TRUNCATING[: setup.pick(3, 1)]:
        yield _drawn(setup, f"ties, {kind}", ties[:1], _tasks(setup, [kind], 1))


#: What a row may ask for.
_KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "greedy": {"temperature": 0.0},
    "top-k": {"top_k": 50},
    "top-p": {"top_p": 0.9},
    "min-p": {"min_p": 0.05, "temperature": 1.5},
    "top-k, top-p": {"top_k": 200, "top_p": 0.95, "temperature": 0.7},
    "penalties": {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3, "temperature": 0.8},
    "allowed": {"allowed_token_ids": list(range(0, 300, 5)), "logit_bias": {10: 5.0}, "top_p": 0.8},
    "large top-k": {"top_k": 3000, "top_p": 0.99},
}
_TRUNCATING: list[dict[str, Any]] = [
    {"top_p": 0.9},
    {"top_k": 40},
    {"top_k": 100, "top_p": 0.8},
    {"top_p": 0.999},
    {"top_k": 2000, "top_p": 0.5, "min_p": 0.01},
]


def _tasks(setup: Setup, kinds: Sequence[dict[str, Any]], num: int) -> list[Any]:
    from albireo.params import SamplingParams
    from albireo.step import SampleTask

    rng = np.random.default_rng(1)
    most = setup.pick(128_256, 300)
    return [
        SampleTask(i, SamplingParams(**kinds[i % len(kinds)]), i, rng.integers(0, most, 50).tolist(), [*range(i % 40)])
        for i in range(num)
    ]


def _drawn(setup: Setup, name: str, logits: torch.Tensor, tasks: list[Any]) -> Finding:
    from albireo.backends.cuda.kernels.sample import sample, sample_workspace
    from albireo.sampling.sampler import Sampler

    logits, (num, vocab) = logits.contiguous(), logits.shape
    out = torch.empty(num, dtype=torch.int32, device=setup.device)
    space = sample_workspace(num, vocab, setup.device)
    tensors, arrays = staged_tasks(setup, tasks, vocab)
    sample(logits, tensors, space, out, arrays.changes, arrays.truncates)
    host = Sampler(vocab).sample(logits.cpu().numpy(), tasks, range(num))
    wrong = [
        f"row {i} {_asked(task.params)}: {ours} instead of {theirs.token_id}"
        for i, (task, ours, theirs) in enumerate(zip(tasks, out.tolist(), host, strict=True))
        if ours != theirs.token_id
    ]
    return Finding(f"sample {name}, {num} rows", float(10 * len(wrong)), f"{len(wrong)} differ; {'; '.join(wrong[:3])}")


def _asked(params: Any) -> str:
    names = ("temperature", "top_k", "top_p", "min_p")
    return ", ".join(f"{name}={getattr(params, name)}" for name in names)


def fed(setup: Setup) -> Found:
    """Tokens of the step before become this one's; the best of a row is taken for a task."""
    from albireo.backends.cuda.kernels.feed_drawn import feed_drawn
    from albireo.backends.cuda.kernels.take_best import take_best

    def ints(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=setup.device)

    num = setup.pick(300, 5)
    token_ids = ints(list(range(100, 100 + num)))
    sources, drawn = ints([(7 * i) % num if i % 3 else -1 for i in range(num)]), ints([i + 5 for i in range(num)])
    wanted = torch.where(sources >= 0, drawn[sources.clamp(min=0).long()], token_ids)
    feed_drawn(token_ids, sources, drawn)
    yield "feed_drawn", 0.0 if torch.equal(token_ids, wanted) else float("inf")
    ids, values = ints([[3 * i, 1] for i in range(num)]), setup.random(num, 2)  # type: ignore[arg-type]
    rows, out = ints(list(range(num - 1, -1, -1))), ints([-7] * num)
    take_best(ids, values, rows, out)
    yield "take_best", 0.0 if torch.equal(out, ids[rows.long(), 0]) else float("inf")


def log_probabilities(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.top_logprobs import top_logprobs, top_logprobs_workspace
    from albireo.graph.op_numbers import TOP_LOGITS

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
    from albireo.backends.step_outputs import REFUSED

    def ints(values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=setup.device)

    fed, drawn = ints([1, 4, 5, 6, 1, 4, 5, 6, 1, 9, 0]), ints([4, 5, 6, 7, 4, 1, 2, 3, 9, 8, 0])
    spec_verify(fed, ints([0, 4, 8, 10]), drawn)
    wanted = [4, 5, 6, 7, 4, 1, REFUSED, REFUSED, 9, 8, 0]
    yield "spec_verify", 0.0 if drawn.tolist() == wanted else float("inf")


CHECKS: dict[str, Check] = {
    "best": best,
    "tokens": tokens,
    "fed": fed,
    "log_probabilities": log_probabilities,
    "drafts": drafts,
}
