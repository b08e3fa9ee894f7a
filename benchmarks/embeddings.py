"""How fast a model embeds, beside transformers on the same weights, turn by turn in one process.

    python benchmarks/embeddings.py MODEL --texts 32 --length 128 --dtypes float32,int8

MODEL: a directory of an encoder; --shape minilm|small|base makes one with random weights instead, in --model's place.
Texts are random token ids: all of one length, of mixed lengths (8 to 300), or one alone. transformers takes them sorted
by length in batches of 32, padded, as sentence-transformers does; we take them as they come. Prints for each the median
of the rounds with its spread, tokens a second, and the ratio of each round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from albireo import LLM, PoolingParams

#: all-MiniLM-L6-v2, bge-small, bge-base: width, layers, heads, FFN.
SHAPES = {"minilm": (384, 6, 12, 1536), "small": (384, 12, 12, 1536), "base": (768, 12, 12, 3072)}
BATCH = 32


def made(shape: str, folder: Path) -> Path:
    """A BERT of random weights."""
    width, layers, heads, ffn = SHAPES[shape]
    config = transformers.BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=ffn
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def theirs(model: Any, prompts: list[list[int]]) -> None:
    """Means of hidden states, batch by batch."""
    ordered = sorted(prompts, key=len, reverse=True)
    with torch.inference_mode():
        for start in range(0, len(ordered), BATCH):
            batch = ordered[start : start + BATCH]
            ids = torch.zeros(len(batch), len(batch[0]), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, prompt in enumerate(batch):
                ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def ours(llm: LLM, prompts: list[list[int]]) -> None:
    llm.embed([{"prompt_token_ids": ids} for ids in prompts], PoolingParams(pooling_type="mean"), use_tqdm=False)


def measured(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, in turn; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--dtypes", default="float32,bfloat16,int8", help="int8: of a bfloat16 model")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or made(args.shape, Path(folder))
        reference = transformers.AutoModel.from_pretrained(model, dtype=torch.float32).eval()
        llms = {}
        for dtype in args.dtypes.split(","):
            kind = {"dtype": "bfloat16", "quantization": "int8"} if dtype == "int8" else {"dtype": dtype}
            llms[dtype] = LLM(str(model), skip_tokenizer_init=True, num_threads=args.num_threads, **kind)
        rng = np.random.default_rng(0)
        lengths = {
            f"{args.texts} of {args.length}": [args.length] * args.texts,
            f"{args.texts} of 8 to 300": rng.integers(8, 301, args.texts).tolist(),
            "1 of 16": [16],
        }
        for name, each in lengths.items():
            prompts = [rng.integers(1000, reference.config.vocab_size, n).tolist() for n in each]
            runs = {"transformers float32": lambda prompts=prompts: theirs(reference, prompts)}
            runs |= {dtype: lambda llm=llm, prompts=prompts: ours(llm, prompts) for dtype, llm in llms.items()}
            seconds = measured(runs, args.rounds)
            base = seconds["transformers float32"]
            for who, took in seconds.items():
                ratios = sorted(a / b for a, b in zip(base, took, strict=True))
                median = statistics.median(took)
                print(
                    f"{name:16} {who:21} {sum(each) / median:8,.0f} tok/s   {median * 1e3:8.1f} ms "
                    f"({min(took) * 1e3:.1f} to {max(took) * 1e3:.1f})   {statistics.median(ratios):.2f} x "
                    f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
                )


if __name__ == "__main__":
    main()
