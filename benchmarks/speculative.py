"""The question: what does guessing ahead bring, by lookup, a draft model or a head, and what does it cost elsewhere?

    python benchmarks/speculative.py [--model DIR] [--quantization int8] [--running 1 4 16] [--rounds 5] [--drafts 5 8]
                                     [--draft-model DIR] [--draft-quantization int4] [--clock cpu --num-threads 1]
                                     [--method mtp|eagle|eagle3] [--draft-vocab-size 32768]

Two engines on one model, with and without drafts, take turns, run by run; both must give the same tokens and
log-probabilities, or the script ends. What is compared is the ratio within a pair. Prints the median ratio and its
spread, tokens a second, the fraction of drafts that came true and tokens a step; appends each to
results/speculative.jsonl. First a table of what a step of one sequence costs by its rows: what drafts have to pay. On a
machine that others use, --clock cpu --num-threads 1 counts processor time instead.

repeats   few tokens are allowed, and greedy decoding of any model soon goes round in circles among them
prompt    what follows is in the prompt: a text that stands there four times, gone on with greedily (needs a tokenizer)
JSON      a list of objects by a schema (needs a tokenizer); its drafts must also pass the grammar
object    one object by a schema without a space to choose: nothing repeats, and keys are forced (needs a tokenizer)
plain     greedy: what the model says by itself
random    at temperature 1, from prompts at random: nothing repeats, and drafts can only cost
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from albireo import LLM, SamplingParams
from albireo.bench.machine import machine_facts
from albireo.step import SampleTask, SequenceWork, StepPlan

RESULTS = Path(__file__).resolve().parent / "results" / "speculative.jsonl"
STORY = (
    "Tom had a red ball. He liked to play with his ball in the park. One day the ball rolled into a big bush. "
    "Tom was sad. Then a little dog came and gave the ball back to Tom. Tom was happy. "
)
FORM = {
    "type": "array",
    "minItems": 20,
    "items": {
        "type": "object",
        "properties": {"name": {"enum": ["red ball", "big dog", "old tree"]}, "is_happy": {"type": "boolean"}},
        "required": ["name", "is_happy"],
        "additionalProperties": False,
    },
}
OBJECT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "is_happy": {"type": "boolean"},
        "colour": {"enum": ["red", "green", "dark blue"]},
        "description": {"type": "string", "maxLength": 40},
        "number_of_friends": {"enum": [0, 1, 2, 3]},
    },
    "required": ["name", "is_happy", "colour", "description", "number_of_friends"],
    "additionalProperties": False,
}
ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Workload:
    """prompt: of the idx-th request of a round. asked: sampling parameters."""

    prompt: Callable[[int], Any]
    asked: dict[str, Any]


def workloads(llm: LLM, has_text: bool) -> dict[str, Workload]:
    assert llm.loaded is not None
    size = min(llm.loaded.settings.vocab_size, 50_000)

    def drawn(idx: int) -> dict[str, list[int]]:
        return {"prompt_token_ids": random.Random(idx).choices(range(size // 4, size), k=96)}

    greedy = {"temperature": 0.0}
    found = {"repeats": Workload(drawn, {**greedy, "allowed_token_ids": [size // 2, size // 2 + 1, size // 2 + 2]})}
    if has_text:
        found["prompt"] = Workload(lambda idx: STORY * 3 + STORY[: 20 + idx % 40], greedy)
        found["JSON"] = Workload(lambda idx: STORY[: 20 + idx % 40], {**greedy, "structured_outputs": {"json": FORM}})
        form = {"json": OBJECT, "disable_any_whitespace": True}
        found["object"] = Workload(lambda idx: STORY[: 20 + idx % 40], {**greedy, "structured_outputs": form})
        found["plain"] = Workload(lambda idx: STORY[: 20 + idx % 40], greedy)
    found["random"] = Workload(drawn, {"temperature": 1.0})
    return found


def row_costs(llm: LLM, clock: Callable[[], float], rounds: int) -> None:
    """Prints the seconds of a step of one sequence with 128 tokens before it, by its rows."""
    loaded = llm.loaded
    assert loaded is not None
    table, params = list(range(1, 12)), SamplingParams(temperature=0.0)
    times: dict[int, list[float]] = {rows: [] for rows in ROWS}
    slot = 0 if loaded.settings.num_state_slots else -1
    loaded.execute(StepPlan(0, [SequenceWork(0, [7] * 128, 0, (table,), state_slot=slot)], 128))
    for _ in range(3 * rounds):
        for rows in ROWS:
            task = SampleTask(0, params, 1, [1], [])
            work = SequenceWork(0, [5] * rows, 128, (table,), (task,), state_slot=slot)
            start = clock()
            loaded.execute(StepPlan(0, [work], rows, waits=True))
            times[rows].append(clock() - start)
    one = statistics.median(times[1])
    print(f"a step of 1 row: {1e3 * one:.2f} ms; of others, as much as so many of it:")
    print("  " + "   ".join(f"{rows}: {statistics.median(times[rows]) / one:.2f}" for rows in ROWS) + "\n")


def guess_cost(llm: LLM, clock: Callable[[], float], rounds: int) -> None:
    """Prints the seconds of one guess of a draft model or a head, with 128 tokens before it."""
    loaded = llm.loaded
    assert loaded is not None
    if loaded.method is None or loaded.method.execute is None:
        return
    times = []
    for _ in range(3 * rounds):
        task = SampleTask(0, SamplingParams(temperature=0.0), 1, [1], [])
        work = SequenceWork(0, [5], 128, (list(range(1, 12)),), (task,))
        start = clock()
        loaded.method.execute(StepPlan(0, [work], 1, waits=True))
        times.append(clock() - start)
    print(f"a guess: {1e3 * statistics.median(times):.2f} ms\n")


def run(llm: LLM, workload: Workload, num: int, options: argparse.Namespace, idx: int) -> tuple[float, int, list[Any]]:
    """Seconds, steps and outputs of num requests at once."""
    clock = CLOCKS[options.clock]
    asked: dict[str, Any] = {"max_tokens": options.output_len, "ignore_eos": True, "detokenize": False}
    params = SamplingParams(**asked, **workload.asked, seed=idx)
    prompts = [workload.prompt(idx * num + i) for i in range(num)]
    before, start = llm.stats().num_steps, clock()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return clock() - start, llm.stats().num_steps - before, [each.outputs for each in outputs]


def compare(plain: LLM, drafted: LLM, workload: Workload, num: int, options: argparse.Namespace) -> dict[str, Any]:
    ratios, speeds, steps = [], [], []
    before = drafted.stats()
    for idx in range(options.rounds):
        without_s, _, wanted = run(plain, workload, num, options, idx)
        with_s, num_steps, got = run(drafted, workload, num, options, idx)
        if got != wanted:
            raise SystemExit("the outputs differ")
        num_tokens = sum(len(output.token_ids) for outputs in got for output in outputs)
        ratios.append(without_s / with_s)
        speeds.append((num_tokens / without_s, num_tokens / with_s))
        steps.append(num_tokens / num / num_steps)
    after = drafted.stats()
    return {
        "ratio": statistics.median(ratios),
        "ratios": [round(each, 3) for each in ratios],
        "tokens_per_s": [round(statistics.median(each), 1) for each in zip(*speeds, strict=True)],
        "tokens_per_step": statistics.median(steps),
        "num_draft_tokens": after.num_draft_tokens - before.num_draft_tokens,
        "num_accepted_tokens": after.num_accepted_tokens - before.num_accepted_tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a directory; the bundled model when left out")
    parser.add_argument("--quantization")
    parser.add_argument("--draft-model", help="guesses in place of prompt lookup")
    parser.add_argument("--draft-quantization", help="of the draft model; alone: the model itself in this is one")
    parser.add_argument("--method", choices=("mtp", "eagle", "eagle3"), help="by a head, of --draft-model or the model")
    parser.add_argument("--draft-vocab-size", type=int, help="of a head")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--num-threads", type=int)
    parser.add_argument("--running", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--drafts", type=int, nargs="+", default=[8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--workloads", nargs="+")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    has_text = options.model is None or (Path(options.model) / "tokenizer.json").exists()
    common: dict[str, Any] = {
        "device": options.device,
        # two engines are on one GPU
        "kv_cache_memory_bytes": 2 << 30 if options.device == "cuda" else None,
        "max_model_len": 512,
        "num_threads": options.num_threads,
        "quantization": options.quantization,
        "skip_tokenizer_init": not has_text,
    }
    plain = LLM(options.model, **common)
    assert plain.loaded is not None
    row_costs(plain, CLOCKS[options.clock], options.rounds)
    heads = f"{'drafts':>7}{'running':>8}{'ratio':>8}  {'(spread)':16}{'tok/s':>8}{'with':>8}{'true':>7}{'tok/step':>9}"
    print(f"{'':9}{heads}")
    for num_drafts in options.drafts:
        config: dict[str, Any] = {"method": "ngram", "num_speculative_tokens": num_drafts}
        if options.method or options.draft_model or options.draft_quantization:
            config |= {"method": options.method or "draft_model", "model": options.draft_model}
            config["quantization"] = options.draft_quantization
            config["draft_vocab_size"] = options.draft_vocab_size
        drafted = LLM(options.model, **common, speculative_config=config)
        guess_cost(drafted, CLOCKS[options.clock], options.rounds)
        for name, workload in workloads(plain, has_text).items():
            if options.workloads and name not in options.workloads:
                continue
            run(plain, workload, 1, options, 0)
            for num in options.running:
                figures = compare(plain, drafted, workload, num, options)
                drafts, accepted = figures["num_draft_tokens"], figures["num_accepted_tokens"]
                spread = f"({min(figures['ratios']):.2f} to {max(figures['ratios']):.2f})"
                before, after = figures["tokens_per_s"]
                true = f"{accepted / drafts:.0%}" if drafts else "-"
                print(
                    f"{name:9}{num_drafts:>7}{num:>8}{figures['ratio']:>8.2f}  {spread:16}{before:>8.0f}{after:>8.0f}"
                    f"{true:>7}{figures['tokens_per_step']:>9.2f}",
                    flush=True,
                )
                record = {
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "workload": name,
                    **config,
                    "running": num,
                    **figures,
                    "model": Path(plain.loaded.directory).name,
                    "quantization": options.quantization,
                    "output_len": options.output_len,
                    "device": options.device,
                    "cpu": machine_facts().cpu,
                    "num_threads": options.num_threads,
                    "clock": options.clock,
                }
                with RESULTS.open("a") as file:
                    file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
