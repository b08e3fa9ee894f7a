"""The question: what is each fusion worth, and all of them together?

    python benchmarks/fusions.py [--model MODEL] [--rounds 3] [--workloads W1,W2,D16] [--without PASSES ...]

A program with everything fused stays loaded; beside it, one after another, programs with some passes left out: by
default none, which shows how much a comparison is worth, then each optional pass, then all of them; or --without
merge_qkv,fuse_qkv_rope_kv. The two take turns, run by run, with a read and a dot-product probe around each; what is
compared is the ratio within a pair. Both produce the same tokens, or the script ends. Prints medians and spreads over
rounds; every run is appended to benchmarks/results/fusions.jsonl. On a machine that others use, --clock cpu --threads 1
counts processor time instead: what others take is left out, and so is what barriers cost.

W1   one stream, prompt 128:     the median step of decoding (--output-len tokens)
W2   a prompt of 2,048 tokens (--prompt-len):  its prompt step
D16  16 streams, prompts of 32:  the median step of decoding
W3   32 mixed requests, W4 16 requests with a shared prefix (workloads/fixed_requests.py): the whole run
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from albireo.api.sources.locate import locate_model
from albireo.api.sources.source import open_source
from albireo.bench.limits import LimitProbe, between
from albireo.bench.roofline import Limits, Roofline
from albireo.bench.timed import Run, Sampling, TimedEngine
from albireo.bench.workload import BenchRequest, RandomWorkload, random_requests
from albireo.compiler.pipeline import optional_passes, passes_without
from albireo.config import EngineConfig
from albireo.graph.show import totals
from albireo.step import StepPlan, StepResult

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "fusions.jsonl"
#: A merge is undone together with the fusion that needs it: on its own it leaves copies that nobody would make.
TOGETHER = {"merge_qkv": ("merge_qkv", "fuse_qkv_rope_kv")}


@dataclass(frozen=True)
class Workload:
    """Requests of a round, and the seconds of a run that count."""

    requests: Callable[[int], list[BenchRequest]]
    seconds: Callable[[Run], float]


def decode_step(run: Run) -> float:
    return statistics.median(step.seconds for step in run.steps if step.shape.is_decode)


def prompt_steps(run: Run) -> float:
    return sum(step.seconds for step in run.steps if not step.shape.is_decode)


def workloads(engine: TimedEngine, prompt_len: int, output_len: int) -> dict[str, Workload]:
    def drawn(num: int, prompt_len: int, out: int) -> Callable[[int], list[BenchRequest]]:
        def requests(idx: int) -> list[BenchRequest]:
            wanted = RandomWorkload(num_prompts=num, input_len=prompt_len, output_len=out, seed=idx)
            return random_requests(wanted, *engine.vocabulary())

        return requests

    def fixed(name: str) -> Callable[[int], list[BenchRequest]]:
        sys.path.insert(0, str(HERE / "workloads"))
        from fixed_requests import WORKLOADS

        return lambda idx: [BenchRequest(ids, out) for ids, out in WORKLOADS[name](idx)]

    return {
        "W1": Workload(drawn(1, 128, output_len), decode_step),
        "W2": Workload(drawn(1, prompt_len, 1), prompt_steps),
        "D16": Workload(drawn(16, 32, output_len), decode_step),
        "W3": Workload(fixed("W3"), lambda run: run.elapsed_s),
        "W4": Workload(fixed("W4"), lambda run: run.elapsed_s),
    }


class StepClock:
    """Stands between the engine and its steps, and replaces the seconds of a run's steps by another clock's."""

    def __init__(self, engine: TimedEngine, clock: Callable[[], float]) -> None:
        self._execute, self._clock, self._engine = engine.loaded.execute, clock, engine
        self._seconds: list[float] = []
        engine.loaded = replace(engine.loaded, execute=self._timed)

    def run(self, requests: list[BenchRequest]) -> Run:
        self._seconds, started = [], self._clock()
        run = self._engine.run(requests, Sampling(temperature=0.0, detokenize=False))
        steps = [replace(step, seconds=own) for step, own in zip(run.steps, self._seconds, strict=True)]
        return replace(run, steps=steps, elapsed_s=self._clock() - started)

    def _timed(self, plan: StepPlan) -> StepResult:
        started = self._clock()
        result = self._execute(plan)
        self._seconds.append(self._clock() - started)
        return result


def context(args: argparse.Namespace) -> int:
    """Positions of a sequence: as asked for, else what every workload fits in, where the model has as many."""
    source = open_source(locate_model(args.model), EngineConfig(model=args.model))
    return args.max_model_len or min(4096, source.model_config.max_position_embeddings)


def load(args: argparse.Namespace, without: tuple[str, ...]) -> TimedEngine:
    config = EngineConfig(
        model=args.model,
        num_threads=args.threads,
        without=without,
        max_model_len=context(args),
        max_num_seqs=32,
        kv_cache_memory_bytes=512 << 20,
        skip_tokenizer_init=True,
    )
    return TimedEngine(config)


def pair(engines: dict[str, StepClock], workload: Workload, idx: int, probe: LimitProbe) -> dict[str, dict]:
    """One run of each, in turn, who goes first changing; the limits of the moment beside each."""
    found: dict[str, dict] = {}
    requests = workload.requests(idx)
    before: Limits = probe.measure()
    for name in list(engines) if idx % 2 else reversed(list(engines)):
        run = engines[name].run(requests)
        after = probe.measure()
        held = between(before, after)
        before = after
        found[name] = {
            "seconds": workload.seconds(run),
            "read_bytes_s": held.read_bytes_per_s,
            "dot_flops_s": held.dot_flops_per_s,
            "sha256": run.outputs_sha256,
        }
    if len({each["sha256"] for each in found.values()}) != 1:
        raise SystemExit(f"the tokens differ: {found}")
    return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint directory; the bundled model when left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--prompt-len", type=int, default=2048)
    parser.add_argument("--output-len", type=int, default=32)
    parser.add_argument("--max-model-len", type=int, help="4,096, or what the model has, when left out")
    parser.add_argument("--workloads", default="W1,W2,D16")
    parser.add_argument("--without", action="append", help="passes to leave out together; may be given several times")
    args = parser.parse_args()
    optional = optional_passes()
    each = [TOGETHER.get(name, (name,)) for name in optional if name != "fuse_qkv_rope_kv"]
    asked = [tuple(name for name in names.split(",") if name) for names in args.without or ()]
    variants = asked or [(), *each, optional]
    for names in variants:
        passes_without(names)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    fused = load(args, ())
    fused_clock = StepClock(fused, clock)
    chosen = {name: workloads(fused, args.prompt_len, args.output_len)[name] for name in args.workloads.split(",")}
    roofline = Roofline(fused.loaded.program)
    probe = LimitProbe(args.threads, fused.loaded.model_config.dtype, roofline.decode_bytes)
    whole = totals(fused.loaded.program)
    print(f"{fused.loaded.directory}: everything fused {whole.ops_after} calls, {whole.barriers} barriers a step")
    print("time without over time with everything fused: median (least to most) of the rounds\n")
    print(f"{'without':36}{'calls':>6}{'barriers':>9}  " + "".join(f"{name:26}" for name in chosen))
    for names in variants:
        label = "everything" if names == optional else ", ".join(names) or "nothing: two alike"
        other = load(args, names)
        numbers = totals(other.loaded.program)
        engines = {"fused": fused_clock, label: StepClock(other, clock)}
        cells, rows = [], []
        for name, workload in chosen.items():
            pair(engines, workload, 97, probe)  # not counted
            ratios = []
            for idx in range(args.rounds):
                found = pair(engines, workload, idx, probe)
                ratios.append(found[label]["seconds"] / found["fused"]["seconds"])
                head = {"date": time.strftime("%Y-%m-%d"), "model": fused.loaded.directory.name, "workload": name}
                head |= {"clock": args.clock, "threads": probe.num_threads, "round": idx, "against": label}
                rows += [head | {"program": key} | row for key, row in found.items()]
            cells.append(spread(ratios))
        print(
            f"{label:36}{numbers.ops_after:6}{numbers.barriers:9}  " + "".join(f"{cell:26}" for cell in cells),
            flush=True,
        )
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        del other, engines


if __name__ == "__main__":
    main()
