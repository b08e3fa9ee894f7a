"""The question: what does an output's form cost, at its start and at each token?

    python benchmarks/structured.py [--backend llguidance] [--tokenizer DIR] [--model DIR] [--rounds 5]

Three tables. Grammars: milliseconds to compile and, over random outputs, microseconds of a mask, for a vocabulary
(--tokenizer: Qwen2.5's, 151,936 rows of logits; --model has it too); and of reading a whole output again, a token.
Sampling: microseconds a row of that width, with and without a mask. Steps: milliseconds of a decoding step of a model
(--model; the bundled one) with so many streams, with and without a form, in turn. All of it is processor time of one
thread, so that others do not count; but grammars of xgrammar, which has processes of its own, by the wall.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from albireo import LLM, SamplingParams
from albireo.errors import RequestError
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask
from albireo.structured.compiler import GrammarCompiler
from albireo.structured.vocabulary import Vocabulary
from albireo.structured_params import StructuredOutputsParams
from albireo.text.tokenizer import Tokenizer

ROWS = 151_936
TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "data" / "tokenizers" / "qwen2.5"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string"}},
        "address": {"type": "object", "properties": {"street": {"type": "string"}, "zip": {"pattern": "^[0-9]{5}$"}}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
FORMS: dict[str, dict[str, Any]] = {
    "JSON schema": {"json": PERSON},
    "JSON object": {"json_object": True},
    "200 properties": {"json": {"properties": {f"p{i}": {"type": "string"} for i in range(200)}, "type": "object"}},
    "choice of 1,000": {"choice": [f"answer number {i * i}" for i in range(1000)]},
    "regex, e-mail": {"regex": r"[a-z0-9._]{1,30}@[a-z0-9-]{1,30}\.(com|org)"},
    "regex, any text": {"regex": r"(.|\n){0,2000}"},
    "grammar, sums": {"grammar": 'root ::= sum\nsum ::= atom ("+" atom)*\natom ::= [0-9]+ | "(" sum ")"'},
}


def cpu_s(work: Callable[[], Any]) -> float:
    return spent(time.thread_time, work)


def spent(clock: Callable[[], float], work: Callable[[], Any]) -> float:
    start = clock()
    work()
    return clock() - start


def grammars(directory: Path, num_tokens: int, backend: str) -> GrammarCompiler:
    known = Tokenizer.from_directory(directory)
    eos = known.eos_token_id
    assert eos is not None
    vocabulary = Vocabulary(known.serialized, known.token_bytes, known.added_tokens(), known.special_ids, ROWS, (eos,))
    compiler = GrammarCompiler(vocabulary, backend)
    clock = time.perf_counter if backend == "xgrammar" else time.thread_time
    first = spent(clock, lambda: compiler.compile(StructuredOutputsParams(regex="a")))
    print(f"reading the vocabulary of {known.vocab_size} tokens: {first:.2f} s\n")
    print(f"{'form':18}{'compile ms':>12}{'mask µs':>10}{'p99':>8}{'max':>8}{'all µs/token':>14}")
    for name, form in FORMS.items():
        params = StructuredOutputsParams(**form)
        try:
            compile_ms = spent(clock, partial(compiler.compile, params))
            constraint = compiler.compile(params)
        except RequestError as error:
            print(f"{name:18} {error}")
            continue
        masks, whole = [], []
        for seed in range(5):
            chance, matcher, output = random.Random(seed), constraint.matcher(), []
            while len(output) < num_tokens:
                start = clock()
                try:
                    mask = matcher.allowed(output)
                except RequestError as error:
                    print(f"{name:18} {error}")
                    break
                masks.append(clock() - start)
                ids = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))
                ids = ids[ids != eos]
                if not ids.size:
                    break
                output.append(int(ids[chance.randrange(ids.size)]))
            again = constraint.matcher()
            whole.append(spent(clock, partial(again.allowed, output)) / max(len(output), 1))
        if not masks:
            continue
        masks.sort()
        p99 = masks[int(0.99 * (len(masks) - 1))]
        numbers = (statistics.median(masks), p99, masks[-1])
        print(
            f"{name:18}{1e3 * compile_ms:12.2f}{1e6 * numbers[0]:10.1f}{1e6 * p99:8.0f}{1e6 * numbers[2]:8.0f}", end=""
        )
        print(f"{1e6 * statistics.median(whole):14.1f}")
    return compiler


def sampling(compiler: GrammarCompiler, repeats: int = 60) -> None:
    rng = np.random.default_rng(0)
    row = (-1.5 * np.log(1.0 + rng.permutation(ROWS)) + 0.3 * rng.standard_normal(ROWS)).astype(np.float32)
    print(f"\nµs of sampling a row of {ROWS}{'':6}{'no form':>12}{'JSON key':>12}{'any text':>12}")
    forms = {"JSON key": {"json": PERSON}, "any text": {"regex": r"(.|\n)*"}}
    for name, asked in {"greedy": {"temperature": 0}, "temperature": {}, "top_p=0.95": {"top_p": 0.95}}.items():
        found = []
        for form in [None, *forms.values()]:
            matcher = None if form is None else compiler.compile(StructuredOutputsParams(**form)).matcher()
            params = SamplingParams(**asked, structured_outputs=form)
            sampler = Sampler(ROWS)
            times = [
                cpu_s(partial(sampler.sample_one, row, SampleTask(0, params, at, [1], [], (), matcher)))
                for at in range(repeats)
            ]
            found.append(1e6 * statistics.median(times))
        print(f"{name:34}" + "".join(f"{each:12.0f}" for each in found))


def steps(model: str | None, tokenizer: Path, rounds: int, num_tokens: int, backend: str) -> None:
    heads = f"{'streams':>8}{'greedy':>10}{'top_p':>10}{'form':>10}{'form - top_p, µs a stream':>28}"
    print(f"\n{'ms a step of decoding':28}{heads}")
    with LLM(
        model,
        max_model_len=512,
        num_threads=1,
        tokenizer=None if model is None else str(tokenizer),
        structured_outputs_backend=backend,
    ) as llm:
        # JSON that goes on for as long as it is asked to.
        form = {"json": {"type": "array", "items": {"type": "string"}, "minItems": num_tokens}}
        base = {"max_tokens": num_tokens, "ignore_eos": True, "seed": 1}
        kinds = {
            "greedy": SamplingParams(**base, temperature=0.0),
            "top_p": SamplingParams(**base, top_p=0.95),
            "form": SamplingParams(**base, top_p=0.95, structured_outputs=form),
        }
        for num in (1, 8, 16):
            times: dict[str, list[float]] = {name: [] for name in kinds}
            for name, params in list(kinds.items()) * rounds:
                prompts = ["Once upon a time"] * num
                llm.generate(prompts, params.clone(max_tokens=2), use_tqdm=False)
                start = time.process_time()
                llm.generate(prompts, params, use_tqdm=False)
                times[name].append((time.process_time() - start) / num_tokens)
            best = {name: min(each) * 1e3 for name, each in times.items()}
            extra = (best["form"] - best["top_p"]) / num * 1e3
            print(f"{'':28}{num:8}" + "".join(f"{best[name]:10.3f}" for name in kinds) + f"{extra:28.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    parser.add_argument("--model", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--backend", default="llguidance", choices=("llguidance", "xgrammar"))
    asked = parser.parse_args()
    sampling(grammars(asked.tokenizer, asked.tokens, asked.backend))
    steps(asked.model, asked.tokenizer, asked.rounds, asked.tokens, asked.backend)


if __name__ == "__main__":
    main()
