"""The question: what do the profiles change? The worst wait of running streams, how long short prompts wait behind a
long one, and tokens per second of a crowd.

    python benchmarks/profiles.py [--model MODEL] [--rounds 3] [--streams 8] [--prompt-len 2048] [--crowd 96]

The model is loaded once, with memory for the largest steps; each profile is an engine of its own on it, with the
profile's limits, and they take turns. Gaps: --streams requests decode; when each has a few tokens, a prompt of
--prompt-len arrives. Behind: such a prompt has begun, and prompts of 32 tokens arrive. Crowd: requests that are all
there from the start. Prints medians and spreads over rounds, and
appends every run to benchmarks/results/profiles.jsonl; the tokens must be the same under every profile. On a machine
that others use, --clock cpu --threads 1 counts processor time instead.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from albireo.api.load import Loaded, load
from albireo.bench.workload import RandomWorkload, random_requests
from albireo.config import EngineConfig
from albireo.engine.engine import Engine
from albireo.params import SamplingParams
from albireo.profiles import PROFILES, StepLimits

RESULTS = Path(__file__).resolve().parent / "results" / "profiles.jsonl"
#: Tokens of each stream before the long prompt arrives.
WARM_TOKENS = 4
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Served:
    """When each request's tokens came, in seconds, and what they were."""

    clock: Callable[[], float]
    times: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, list[int]] = field(default_factory=dict)

    def step(self, engine: Engine) -> None:
        for update in engine.step():
            self.tokens.setdefault(update.request_id, []).extend(update.token_ids)
            self.times.setdefault(update.request_id, []).append(self.clock())

    def gaps(self, request_id: str) -> list[float]:
        times = self.times[request_id]
        return [b - a for a, b in itertools.pairwise(times)]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(repr(sorted(self.tokens.items())).encode()).hexdigest()[:16]


def make_engine(loaded: Loaded, limits: StepLimits) -> Engine:
    settings = replace(
        loaded.settings,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        target_step_s=limits.target_itl_ms / 1000,
    )
    return Engine(replace(settings, enable_prefix_caching=False), loaded.execute, time.perf_counter)


def params(output_len: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True)


def arrival(loaded: Loaded, limits: StepLimits, args: argparse.Namespace, seed: int) -> dict:
    """Streams decode, a long prompt comes."""
    vocab = loaded.model_config.vocab_size
    short = random_requests(RandomWorkload(num_prompts=args.streams, input_len=64, output_len=1, seed=seed), vocab)
    (long,) = random_requests(RandomWorkload(num_prompts=1, input_len=args.prompt_len, output_len=1, seed=seed), vocab)
    engine, served = make_engine(loaded, limits), Served(CLOCKS[args.clock])
    for idx, request in enumerate(short):
        engine.add_request(str(idx), request.prompt_token_ids, params(WARM_TOKENS + args.tokens))
    while min((len(served.times.get(str(i), ())) for i in range(args.streams)), default=0) < WARM_TOKENS:
        served.step(engine)
    started = served.clock()
    engine.add_request("long", long.prompt_token_ids, params(2))
    while engine.has_work():
        served.step(engine)
    gaps = [gap for idx in range(args.streams) for gap in served.gaps(str(idx))[WARM_TOKENS - 1 :]]
    return {
        "worst_gap_s": max(gaps),
        "median_gap_s": statistics.median(gaps),
        "first_token_s": served.times["long"][0] - started,
        "sha256": served.sha256,
    }


def behind(loaded: Loaded, limits: StepLimits, args: argparse.Namespace, seed: int) -> dict:
    """A long prompt has begun, short ones come."""
    vocab = loaded.model_config.vocab_size
    short = random_requests(RandomWorkload(num_prompts=4, input_len=32, output_len=1, seed=seed), vocab)
    (long,) = random_requests(RandomWorkload(num_prompts=1, input_len=args.prompt_len, output_len=1, seed=seed), vocab)
    engine, served = make_engine(loaded, limits), Served(CLOCKS[args.clock])
    started = served.clock()
    engine.add_request("long", long.prompt_token_ids, params(2))
    served.step(engine)
    arrived = served.clock()
    for idx, request in enumerate(short):
        engine.add_request(str(idx), request.prompt_token_ids, params(args.tokens))
    while engine.has_work():
        served.step(engine)
    return {
        "first_token_s": served.times["long"][0] - started,
        "short_first_token_s": max(served.times[str(idx)][0] for idx in range(4)) - arrived,
        "sha256": served.sha256,
    }


def crowd(loaded: Loaded, limits: StepLimits, args: argparse.Namespace, seed: int) -> dict:
    """Many requests at once."""
    vocab = loaded.model_config.vocab_size
    wanted = RandomWorkload(num_prompts=args.crowd, input_len=128, output_len=32, range_ratio=0.5, seed=seed)
    requests = random_requests(wanted, vocab)
    engine, served = make_engine(loaded, limits), Served(CLOCKS[args.clock])
    started = served.clock()
    for idx, request in enumerate(requests):
        engine.add_request(str(idx), request.prompt_token_ids, params(request.output_len))
    while engine.has_work():
        served.step(engine)
    total = sum(len(request.prompt_token_ids) + request.output_len for request in requests)
    return {"total_tok_s": total / (served.clock() - started), "sha256": served.sha256}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint directory; the bundled model when left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--measure", default="arrival,behind,crowd")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt-len", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=24, help="of each stream after the prompt arrived")
    parser.add_argument("--crowd", type=int, default=96)
    parser.add_argument(
        "--budget", type=int, action="append", default=[], help="another token budget, 256 seats, no target"
    )
    parser.add_argument("--target", type=int, action="append", default=[], help="another target, balanced otherwise")
    args = parser.parse_args()
    cases = dict(PROFILES) | {f"budget {tokens}": StepLimits(256, tokens) for tokens in args.budget}
    cases |= {f"target {ms}": replace(PROFILES["balanced"], target_itl_ms=ms) for ms in args.target}
    loaded = load(
        EngineConfig(
            model=args.model,
            num_threads=args.threads,
            max_num_seqs=max(limits.max_num_seqs for limits in cases.values()),
            max_num_batched_tokens=max(limits.max_num_batched_tokens for limits in cases.values()),
            max_model_len=None if args.model is None else args.prompt_len + 64,
            kv_cache_memory_bytes=1 << 30,
            skip_tokenizer_init=True,
        )
    )
    rows: list[dict] = []
    for what in args.measure.split(","):
        measure = {"arrival": arrival, "behind": behind, "crowd": crowd}[what]
        for idx in range(args.rounds):
            order = list(cases.items())
            found = {name: measure(loaded, limits, args, idx) for name, limits in order[idx % 3 :] + order[: idx % 3]}
            if len({each["sha256"] for each in found.values()}) != 1:
                raise SystemExit(f"the tokens differ: {found}")
            head = {"date": time.strftime("%Y-%m-%d"), "model": loaded.directory.name, "what": what, "round": idx}
            head["clock"] = args.clock
            rows += [head | {"profile": name} | figures for name, figures in found.items()]
        for key in [key for key in rows[-1] if key.endswith("_s")]:
            for name in cases:
                values = [row[key] for row in rows if row["what"] == what and row["profile"] == name]
                low, mid, high = min(values), statistics.median(values), max(values)
                print(f"{what:8} {key:14} {name:14} {mid:9.4g} ({low:.4g} to {high:.4g})", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
