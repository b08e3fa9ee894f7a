"""How fast a model embeds, beside other programs on the same weights, turn by turn in one process.

    python benchmarks/embeddings.py MODEL --dtypes float32,int8 --peers onnxruntime,openvino,openvino-bf16,transformers

MODEL: a directory of an encoder; --shape minilm|small|base makes one with random weights instead, in --model's place.
Texts are random token ids (embedded_texts.py); peers and what they want installed: embedding_peers.py. Prints for each
the median of the rounds with its spread, tokens a second, the least cosine between its embeddings and those of the
first of ours, and of peers how many times as long as each of ours they take, round by round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from embedded_texts import texts
from embedding_peers import PEERS

from albireo import LLM, PoolingParams
from albireo.backends.cpu.machine import isa_levels

#: all-MiniLM-L6-v2, bge-small, bge-base: width, layers, heads, FFN.
SHAPES = {"minilm": (384, 6, 12, 1536), "small": (384, 12, 12, 1536), "base": (768, 12, 12, 3072)}
#: Threads of a program that has just run may spin for a while; nobody is to run beside them.
SETTLE_S = 0.05


def made(shape: str, folder: Path) -> Path:
    """A BERT of random weights."""
    width, layers, heads, ffn = SHAPES[shape]
    config = transformers.BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=ffn
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def ours(llm: LLM, prompts: list[list[int]]) -> Any:
    """Texts come as they are."""
    given: list[Any] = [{"prompt_token_ids": ids} for ids in prompts]
    return llm.embed(given, PoolingParams(pooling_type="mean"), use_tqdm=False)


def rows_of(result: Any) -> np.ndarray:
    """Embeddings of ours or of a peer, each scaled to length 1."""
    rows = result if isinstance(result, np.ndarray) else np.array([out.outputs.embedding for out in result])
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def measured(runs: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each, in turn, and the least cosine with the first; a round that is not counted warms up."""
    rows = {name: rows_of(run()) for name, run in runs.items()}
    first = next(iter(rows.values()))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(SETTLE_S)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, {name: float((each * first).sum(1).min()) for name, each in rows.items()}


def report(
    title: str, tokens: int, seconds: dict[str, list[float]], cosines: dict[str, float], mine: list[str]
) -> None:
    print(f"\n{title}")
    for name, took in seconds.items():
        median = statistics.median(took)
        line = f"  {name:18} {tokens / median:9,.0f} tok/s  {median * 1e3:8.1f} ms ({min(took) * 1e3:.1f} to "
        line += f"{max(took) * 1e3:.1f})  cosine {cosines[name]:.4f}"
        for own in mine if name not in mine else []:
            ratios = sorted(a / b for a, b in zip(took, seconds[own], strict=True))
            line += f"   {own} {statistics.median(ratios):.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(line, flush=True)


def named(choices: set[str], value: str) -> list[str]:
    """Names that commas part."""
    names = [name for name in value.split(",") if name]
    if unknown := [name for name in names if name not in choices]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose of {', '.join(sorted(choices))}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    dtypes = partial(named, {"float32", "bfloat16", "float16", "int8"})
    parser.add_argument("--dtypes", type=dtypes, default="float32,bfloat16,int8", help="int8: of a bfloat16 model")
    parser.add_argument("--peers", type=partial(named, set(PEERS)), default="transformers", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=2)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or made(args.shape, Path(folder))
        runners: dict[str, Callable[[list[list[int]]], Any]] = {}
        for dtype in args.dtypes:
            kind = {"dtype": "bfloat16", "quantization": "int8"} if dtype == "int8" else {"dtype": dtype}
            llm = LLM(str(model), skip_tokenizer_init=True, num_threads=args.num_threads, **kind)
            runners[dtype] = partial(ours, llm)
        for name in args.peers:
            runners[name] = PEERS[name](model, args.num_threads)
        vocab_size = transformers.AutoConfig.from_pretrained(model).vocab_size
    print(f"{args.num_threads} threads, {isa_levels()[0]}; {args.rounds} rounds in turn")
    for title, prompts in texts(vocab_size).items():
        runs = {name: partial(run, prompts) for name, run in runners.items()}
        report(title, sum(map(len, prompts)), *measured(runs, args.rounds), args.dtypes)


if __name__ == "__main__":
    main()
