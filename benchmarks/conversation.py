"""The question: what does a turn of a conversation cost when the turns before it are there, and when they are not?

    python benchmarks/conversation.py [--model DIR] [--quantization int8] [--turns 6] [--rounds 3] [--num-threads 2]

Two engines on one model, one with prefix caching and one without, take the same turns, one after the other; both must
give the same tokens, or the script ends. A turn's prompt is all that was said before it and something new. Prints for
each turn the tokens of its prompt, how many of them were found, and the seconds until its first token and for each one
after that, as medians over rounds, each with prompts of its own; appends them to results/conversation.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from albireo import LLM, SamplingParams
from albireo.bench.machine import machine_facts

RESULTS = Path(__file__).resolve().parent / "results" / "conversation.jsonl"


def turn(llm: LLM, prompt: list[int], output_len: int) -> tuple[list[int], int, float, float]:
    """The answer, the prompt's tokens that were found, seconds to its first token and of each after that."""
    params = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True, detokenize=False)
    (found,) = llm.generate([{"prompt_token_ids": prompt}], params, use_tqdm=False)
    times = found.metrics
    assert times is not None and times.first_token_s is not None and times.last_token_s is not None
    each = (times.last_token_s - times.first_token_s) / max(1, output_len - 1)
    return list(found.outputs[0].token_ids), found.num_cached_tokens or 0, times.first_token_s - times.arrival_s, each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a directory; the bundled model when left out")
    parser.add_argument("--quantization")
    parser.add_argument("--num-threads", type=int)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--said", type=int, default=100, help="new tokens of a turn")
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    common: dict[str, Any] = {
        "device": "cpu",
        "max_model_len": options.turns * (options.said + options.output_len) + 16,
        "num_threads": options.num_threads,
        "quantization": options.quantization,
        "skip_tokenizer_init": True,
    }
    engines = [LLM(options.model, **common, enable_prefix_caching=is_enabled) for is_enabled in (False, True)]
    loaded = engines[0].loaded
    assert loaded is not None
    size = loaded.settings.vocab_size
    figures: dict[int, list[list[tuple[int, float, float]]]] = {}
    lengths: list[int] = []
    for idx in range(options.rounds):
        history: list[int] = []
        for number in range(options.turns):
            history += random.Random(idx * options.turns + number).choices(range(size // 4, size), k=options.said)
            answers = []
            for place, llm in enumerate(engines):
                answer, *measured = turn(llm, history, options.output_len)
                answers.append(answer)
                figures.setdefault(number, [[], []])[place].append(tuple(measured))  # type: ignore[arg-type]
            if answers[0] != answers[1]:
                raise SystemExit("the answers differ")
            lengths[number:] = [len(history)]
            history += answers[0]
    print(f"{'turn':>4}{'prompt':>8}{'found':>7}{'first token s':>15}{'with':>8}{'ratio':>8}{'next ms':>9}{'with':>7}")
    for number, (plain, cached) in figures.items():
        found = statistics.median(each[0] for each in cached)
        firsts = [statistics.median(each[1] for each in some) for some in (plain, cached)]
        nexts = [1e3 * statistics.median(each[2] for each in some) for some in (plain, cached)]
        ratio = statistics.median(a[1] / b[1] for a, b in zip(plain, cached, strict=True))
        print(
            f"{number + 1:>4}{lengths[number]:>8}{found:>7.0f}{firsts[0]:>15.3f}{firsts[1]:>8.3f}{ratio:>8.2f}"
            f"{nexts[0]:>9.2f}{nexts[1]:>7.2f}"
        )
        record = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "turn": number + 1,
            "prompt_tokens": lengths[number],
            "cached_tokens": found,
            "first_token_s": firsts,
            "ratio": ratio,
            "next_token_ms": nexts,
            "model": Path(loaded.directory).name,
            "quantization": options.quantization,
            "rounds": options.rounds,
            "cpu": machine_facts().cpu,
            "num_threads": loaded.config.num_threads,
        }
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
