"""How long an answer about a sound takes, beside transformers on the same weights, in turn.

    python benchmarks/hearing.py --size qwen3-asr-0.6b --engines float32,int8,transformers --sounds 1,4 --rounds 3

Makes a model that hears, of a published shape, with random weights. Every engine prepares the sounds, hears them, and
answers with the likeliest tokens, as many as asked for: ours in a type, or with the matrices of the language model
rounded to int8; transformers in float32, with its best attention (sdpa) and its cache. Prints for each the median of
the rounds with its spread, and the ratio to the first; for one token, which is hearing alone, and for all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from albireo import LLM, SamplingParams

RATE, NUM_BYTES = 16000, 256
#: Of the encoder: width, layers, heads, width of the FFN; of the text part: width, FFN, layers.
SIZES = {
    "qwen3-asr-0.6b": ((896, 18, 14, 3584), (1024, 3072, 28)),
    "qwen3-asr-1.7b": ((1024, 24, 16, 4096), (2048, 6144, 28)),
}
VOCAB, SOUND = 151936, "<|audio_pad|>"
_TURN = f"<|im_start|>user\n<|audio_start|>{SOUND}<|audio_end|><|im_end|>\n<|im_start|>assistant\n"
#: Sounds, and how many tokens of each are wanted.
Run = Callable[[list[np.ndarray], int], int]


def made(folder: Path, size: str) -> Path:
    """Of its tokens only bytes and special ones are texts that mean something."""
    (width, layers, heads, ffn), (hidden, intermediate, depth) = SIZES[size]
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"no text {n}" for n in range(VOCAB - NUM_BYTES - 100))]
    backend = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ("<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>", SOUND)
    backend.add_special_tokens([AddedToken(each, special=True) for each in special])
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = transformers.Qwen3ASRConfig(
        text_config={
            "model_type": "qwen3",
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": depth,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": VOCAB,
            "max_position_embeddings": 65536,
            "tie_word_embeddings": True,
        },
        audio_config={
            "model_type": "qwen3_asr_encoder",
            "d_model": width,
            "encoder_layers": layers,
            "encoder_attention_heads": heads,
            "encoder_ffn_dim": ffn,
            "output_dim": hidden,
        },
        audio_token_id=backend.token_to_id(SOUND),
    )
    torch.manual_seed(0)
    transformers.Qwen3ASRForConditionalGeneration(config).save_pretrained(folder)
    transformers.Qwen3ASRFeatureExtractor().save_pretrained(folder)
    return folder


def sounds(count: int, seconds: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(RATE * seconds) * 0.1).astype(np.float32) for _ in range(count)]


def ours(folder: Path, kind: str, threads: int) -> Run:
    """kind: a type, or int8 (beside float32)."""
    rounded = {"dtype": "float32", "quantization": "int8"} if kind == "int8" else {"dtype": kind}
    llm = LLM(str(folder), num_threads=threads, enable_prefix_caching=False, max_model_len=8192, **rounded)

    def run(given: list[np.ndarray], tokens: int) -> int:
        params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        prompts = [{"prompt": _TURN, "multi_modal_data": {"audio": (each, RATE)}} for each in given]
        return sum(len(output.outputs[0].token_ids) for output in llm.generate(prompts, params, use_tqdm=False))

    return run


def theirs(folder: Path, threads: int) -> Run:
    torch.set_num_threads(threads)
    model = transformers.Qwen3ASRForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    extractor = transformers.Qwen3ASRFeatureExtractor.from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    @torch.no_grad()
    def run(given: list[np.ndarray], tokens: int) -> int:
        heard = extractor(given, sampling_rate=RATE, padding=True, return_attention_mask=True)
        seconds = int(heard["attention_mask"][0].sum()) // 100
        ids = tokenizer.encode(_TURN.replace(SOUND, SOUND * (13 * seconds)), add_special_tokens=False).ids
        prompts = torch.tensor([ids] * len(given))
        found = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            input_features=heard["input_features"],
            input_features_mask=heard["attention_mask"],
            max_new_tokens=tokens,
            do_sample=False,
        )
        return int(found[:, len(ids) :].numel())

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="qwen3-asr-0.6b")
    parser.add_argument("--engines", default="float32,int8,transformers", help="also bfloat16")
    parser.add_argument("--sounds", default="1,4", help="at once")
    parser.add_argument("--seconds", type=int, default=30, help="of each sound, whole ones")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = made(Path(place), args.size)
        engines = {name: _opened(name, folder, args.threads) for name in args.engines.split(",")}
        for count in map(int, args.sounds.split(",")):
            for tokens in (1, args.tokens):
                print(f"{count} of {args.seconds} s, {tokens} token{'s' * (tokens != 1)} each")
                _print(_measured(engines, count, args.seconds, tokens, args.rounds))


def _opened(name: str, folder: Path, threads: int) -> Run:
    return theirs(folder, threads) if name == "transformers" else ours(folder, name, threads)


def _measured(engines: dict[str, Run], count: int, seconds: int, tokens: int, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        given = sounds(count, seconds, turn)
        for name, run in engines.items():
            started = time.perf_counter()
            written = run(given, tokens)
            found[name].append(time.perf_counter() - started)
            if written != tokens * count:
                print(f"{name} wrote {written} tokens in place of {tokens * count}")
    return {name: times[1:] for name, times in found.items()}  # the first warms up


def _print(found: dict[str, list[float]]) -> None:
    first: Any = None
    for name, times in found.items():
        middle = statistics.median(times)
        first = first or middle
        print(f"  {name:<20} {middle:6.2f} s ({min(times):.2f} to {max(times):.2f})  {middle / first:.2f}")


if __name__ == "__main__":
    main()
