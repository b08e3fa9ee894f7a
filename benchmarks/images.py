"""How long a picture takes to the first token of an answer, beside transformers on the same weights, in turn.

    python benchmarks/images.py --size 1024x768 --dtypes float32,bfloat16 --rounds 3

Makes a model of the shape of SmolVLM-256M with random weights, or takes MODEL, an Idefics 3 or SmolVLM. Both read the
picture, prepare it and compute the prompt; transformers with one processor and its best attention (sdpa). --whole
leaves the picture in one tile. Prints for each the median of the rounds with its spread, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from embeddings import measured
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from albireo import LLM, SamplingParams

TEXT = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "head_dim": 64}
TEXT |= {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280, "max_position_embeddings": 8192}
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
VISION |= {"image_size": 512, "patch_size": 16}
SIZES = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}, "resample": 1}
#: Of a tile: (512 / 16 / 4) squared.
ROWS = 64
SPECIAL = ("<end>", "<image>", "<fake_token_around_image>", "<global-img>")
TEMPLATE = (
    "{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}"
)


def made(folder: Path) -> Path:
    """A model of random weights, with a token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    lines = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    backend = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in (*SPECIAL, *lines)])
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "pad_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    image = backend.token_to_id("<image>")
    config = transformers.Idefics3Config(  # type: ignore[call-arg]
        text_config=TEXT, vision_config=VISION, scale_factor=4, image_token_id=image, pad_token_id=0
    )
    torch.manual_seed(0)
    transformers.Idefics3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def say_how(folder: Path, *, is_cut: bool) -> None:
    """Processor files."""
    image = {"image_processor_type": "Idefics3ImageProcessor", **SIZES, "do_image_splitting": is_cut}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "processor_config.json").write_text(json.dumps({"image_seq_len": ROWS}))


def ours(model: Path, dtype: str, picture: Image.Image, threads: int) -> tuple[Callable[[], None], LLM]:
    llm = LLM(str(model), dtype=dtype, num_threads=threads, enable_prefix_caching=False)
    chat = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]}]
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)

    def run() -> None:
        llm.loaded.execute.__self__._images._kept.clear()  # a tower that has seen it before would not run
        llm.chat(chat, params, use_tqdm=False)

    return run, llm


def theirs(model: Path, dtype: str, picture: Image.Image, *, is_cut: bool) -> Callable[[], None]:
    processor = transformers.Idefics3Processor(
        Idefics3ImageProcessorPil(**SIZES, do_image_splitting=is_cut),
        transformers.AutoTokenizer.from_pretrained(model),
        image_seq_len=ROWS,
    )
    kind = transformers.Idefics3ForConditionalGeneration
    whole: Any = kind.from_pretrained(model, dtype=getattr(torch, dtype)).eval()

    def run() -> None:
        inputs = processor(text="<image>What is it?", images=[picture], return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            whole.generate(**inputs.to(whole.dtype), max_new_tokens=1, do_sample=False)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--size", default="1024x768", help="of the picture")
    parser.add_argument("--whole", action="store_true", help="one tile")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--their-dtypes", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    transformers.logging.set_verbosity_error()
    width, height = map(int, args.size.split("x"))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        model = args.model
        if model is None:
            model = made(Path(folder))
            say_how(model, is_cut=not args.whole)
        runs, llms = {}, []
        for dtype in args.dtypes.split(","):
            runs[f"albireo {dtype}"], llm = ours(model, dtype, picture, args.num_threads)
            llms.append(llm)
        for dtype in filter(None, args.their_dtypes.split(",")):
            runs[f"transformers {dtype}"] = theirs(model, dtype, picture, is_cut=not args.whole)
        seconds = measured(runs, args.rounds)
        for llm in llms:
            llm.close()
    best = min(statistics.median(each) for name, each in seconds.items() if name.startswith("albireo"))
    for name, each in seconds.items():
        median = statistics.median(each)
        print(f"{name:24} {median:7.2f} s  ({min(each):.2f} to {max(each):.2f})   {median / best:5.2f}")


if __name__ == "__main__":
    main()
