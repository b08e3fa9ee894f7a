"""How long a window of 30 s takes to hear and to write down, beside other engines on the same weights, in turn.

    python benchmarks/speech.py --size base --engines float32,int8,transformers --windows 1,4 --rounds 3

Makes a Whisper of a published shape with random weights. Every engine prepares the sounds, hears them, and writes the
likeliest tokens, as many as asked for: ours in a type, or with matrices rounded to int8; transformers in float32, with
its best attention (sdpa) and its cache; ctranslate2 (faster-whisper's engine) in a type, where it is installed. Prints
for each the median of the rounds with its spread, and the ratio to the first.
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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from albireo import LLM, SamplingParams

#: Width, layers of encoder and decoder, heads, bands, tokens.
SIZES = {
    "tiny": (384, 4, 4, 6, 80, 51865),
    "base": (512, 6, 6, 8, 80, 51865),
    "small": (768, 12, 12, 12, 80, 51865),
    "large-v3-turbo": (1280, 32, 4, 20, 128, 51866),
}
RATE, SECONDS = 16000, 30
NUM_TEXT, NUM_TIMES = 50257, 1501
TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
START, TRANSCRIBE, WITHOUT_TIMES = 50258, 50359, 50363


def made(folder: Path, size: str) -> Path:
    """A model of random weights; of its tokens only bytes and special ones are texts that mean something."""
    width, encoder, decoder, heads, bands, vocab = SIZES[size]
    config = transformers.WhisperConfig(
        vocab_size=vocab,
        num_mel_bins=bands,
        d_model=width,
        encoder_layers=encoder,
        decoder_layers=decoder,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        decoder_start_token_id=START,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    transformers.WhisperForConditionalGeneration(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=bands).save_pretrained(folder)
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"no text {n}" for n in range(NUM_TEXT - 256))]
    backend = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    languages = [f"<|l{n}|>" for n in range(vocab - NUM_TEXT - NUM_TIMES - 2 - len(TASKS))]
    special = ("endoftext", "startoftranscript")
    backend.add_special_tokens([f"<|{name}|>" for name in special] + languages + [f"<|{name}|>" for name in TASKS])
    backend.add_tokens([f"<|{step / 50:.2f}|>" for step in range(NUM_TIMES)])
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "bos_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def sounds(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(RATE * SECONDS) * 0.1).astype(np.float32) for _ in range(count)]


Run = Callable[[list[np.ndarray]], int]


def ours(folder: Path, kind: str, threads: int, tokens: int) -> Run:
    """kind: a type, or int8 (beside float32)."""
    rounded = {"dtype": "float32", "quantization": "int8"} if kind == "int8" else {"dtype": kind}
    llm = LLM(str(folder), num_threads=threads, enable_prefix_caching=False, **rounded)
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)

    def run(given: list[np.ndarray]) -> int:
        shift = llm.loaded.model_config.vocab_size - 51865  # one language more
        ids = [START, START + 1, TRANSCRIBE + shift, WITHOUT_TIMES + shift]
        prompts = [{"prompt_token_ids": ids, "multi_modal_data": {"audio": (each, RATE)}} for each in given]
        return sum(len(output.outputs[0].token_ids) for output in llm.generate(prompts, params, use_tqdm=False))

    return run


def theirs(folder: Path, threads: int, tokens: int) -> Run:
    torch.set_num_threads(threads)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)

    @torch.no_grad()
    def run(given: list[np.ndarray]) -> int:
        heard = extractor(given, sampling_rate=RATE, return_tensors="pt")["input_features"]
        encoded = model.model.encoder(heard)
        cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
        ids, count = torch.tensor([[START, START + 1, TRANSCRIBE, WITHOUT_TIMES]] * len(given)), 0
        for _ in range(tokens):
            out = model(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache, use_cache=True)
            ids, count = out.logits[:, -1].argmax(-1, keepdim=True), count + len(given)
        return count

    return run


def by_ctranslate2(folder: Path, kind: str, threads: int, tokens: int) -> Run:
    """kind: a compute type of it, as float32 or int8."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    converted = folder / f"ctranslate2-{kind}"
    TransformersConverter(str(folder)).convert(str(converted), quantization=None if kind == "float32" else kind)
    model = ctranslate2.models.Whisper(str(converted), device="cpu", compute_type=kind, intra_threads=threads)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)

    # of max_length it writes half at most
    def run(given: list[np.ndarray]) -> int:
        heard = extractor(given, sampling_rate=RATE, return_tensors="np")["input_features"].astype(np.float32)
        prompts = [[START, START + 1, TRANSCRIBE, WITHOUT_TIMES]] * len(given)
        features = ctranslate2.StorageView.from_array(np.ascontiguousarray(heard))
        found = model.generate(
            features, prompts, beam_size=1, max_length=2 * tokens, suppress_blank=False, suppress_tokens=[]
        )
        return sum(len(each.sequences_ids[0]) for each in found)

    return run


def opened(engine: str, folder: Path, threads: int, tokens: int) -> Run:
    name, _, kind = engine.partition(":")
    if name == "transformers":
        return theirs(folder, threads, tokens)
    return (
        by_ctranslate2(folder, kind or "int8", threads, tokens)
        if name == "ctranslate2"
        else ours(folder, name, threads, tokens)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--engines", default="float32,int8,transformers", help="also bfloat16, ctranslate2:int8")
    parser.add_argument("--windows", default="1,4", help="at once")
    parser.add_argument("--tokens", type=int, default=64, help="of each window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = made(Path(place), args.size)
        engines = {name: opened(name, folder, args.threads, args.tokens) for name in args.engines.split(",")}
        for count in map(int, args.windows.split(",")):
            _print(count, _measured(engines, count, args.rounds, args.tokens), args.tokens)


def _measured(engines: dict[str, Run], count: int, rounds: int, tokens: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        given = sounds(count, turn)
        for name, run in engines.items():
            started = time.perf_counter()
            written = run(given)
            found[name].append(time.perf_counter() - started)
            if written != tokens * count:
                print(f"{name} wrote {written} tokens in place of {tokens * count}")
    return {name: times[1:] for name, times in found.items()}  # the first warms up


def _print(count: int, found: dict[str, list[float]], tokens: int) -> None:
    first: Any = None
    print(f"{count} window{'s' * (count != 1)} of {SECONDS} s, {tokens} tokens each")
    for name, times in found.items():
        middle = statistics.median(times)
        first = first or middle
        print(f"  {name:<20} {middle:6.2f} s ({min(times):.2f} to {max(times):.2f})  {middle / first:.2f}")


if __name__ == "__main__":
    main()
