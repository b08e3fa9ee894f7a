"""Train the bundled story teller: a small Llama on a CPU, saved in Hugging Face layout with its tokenizer.

    python tools/train_story_model.py TEXT_FOLDER OUT_FOLDER [--minutes 60] [--hidden 256 --layers 6 ...]

Two mixtures: broad first, then mostly simple stories. The held-out loss is of stories never trained on. Needs the test
extra (torch, transformers). The result goes to src/albireo/models/bundled/story when it beats what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from story_texts import END, Texts, read_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

BROAD = {"tiny": 0.45, "books": 0.10, "chilit": 0.45}
FINE = {"tiny": 0.82, "books": 0.13, "chilit": 0.05}
#: The fraction of the time after which batches are drawn from FINE.
BROAD_UNTIL = 0.55
WARMUP_STEPS, LAST_RATE = 60, 0.05
#: The user's words and the model's are run together as one story, told in turns.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if not loop.first and message['role'] == 'user' %}{{ ' ' }}"
    "{% endif %}{{ message['content'] }}{% endfor %}"
)


def train_tokenizer(texts: Texts, vocab: int) -> Tokenizer:
    """Byte-level BPE on the training texts; long novels count with their beginnings, so that stories set the tone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    train = texts.train
    corpus = train["tiny"] * 2 + train["books"] * 2 + [novel[:120_000] for novel in train["chilit"]]
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Texts) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Token streams by kind, and of the held-out stories; documents begin with token 0 (novels only end with it)."""
    streams = {}
    for kind, documents in texts.train.items():
        led = [document if kind == "chilit" else END + document for document in documents]
        encoded = tokenizer.encode_batch(led)
        streams[kind] = np.concatenate([np.array([*e.ids, 0], np.uint16) for e in encoded])
    held = [np.array([0, *tokenizer.encode(story).ids], np.int64) for story in texts.held_out]
    return streams, np.concatenate(held)


def held_out_loss(model: LlamaForCausalLM, tokens: np.ndarray, context: int, windows: int = 24) -> float:
    """Nats a token over windows of context tokens."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, min(len(tokens) - context - 1, windows * context), context):
            x = torch.from_numpy(tokens[start : start + context + 1])[None]
            logits = model(x[:, :-1]).logits[0].float()
            total += torch.nn.functional.cross_entropy(logits, x[0, 1:], reduction="sum").item()
            count += context
    model.train()
    return total / count


class Training:
    """One run: batches, learning rate and the clock it follows."""

    def __init__(self, args: argparse.Namespace, streams: dict[str, np.ndarray]) -> None:
        self.args, self.streams, self.steps = args, streams, 0
        config = LlamaConfig(
            vocab_size=args.vocab,
            hidden_size=args.hidden,
            intermediate_size=args.ffn,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
            num_key_value_heads=args.kv_heads,
            head_dim=args.hidden // args.heads,
            max_position_embeddings=args.context,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )
        self.model = LlamaForCausalLM(config)
        self.run = torch.compile(self.model) if args.compile else self.model
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=True)

    def batch(self, mixture: dict[str, float]) -> torch.Tensor:
        rows = []
        for _ in range(self.args.batch):
            stream = self.streams[random.choices(list(mixture), list(mixture.values()))[0]]
            start = random.randrange(len(stream) - self.args.context - 1)
            rows.append(stream[start : start + self.args.context + 1].astype(np.int64))
        return torch.from_numpy(np.stack(rows))

    def step(self, frac: float) -> float:
        """One step at a fraction of the time; returns its loss."""
        cosine = 0.5 * (1 + math.cos(math.pi * frac))
        warm = min(1.0, (self.steps + 1) / WARMUP_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = self.args.lr * warm * (LAST_RATE + (1 - LAST_RATE) * cosine)
        x = self.batch(BROAD if frac < BROAD_UNTIL else FINE)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.run(input_ids=x[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, self.args.vocab).float(), x[:, 1:].reshape(-1))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        return float(loss.item())


def save(training: Training, tokenizer: Tokenizer, loss: float, out: Path) -> None:
    """The checkpoint as it ships; training.json says how it was made."""
    args = training.args
    training.model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END}:1 $B:1", special_tokens=[(END, 0)]
    )
    tokenizer.save(str(out / "tokenizer.json"))
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    names = {"bos_token": END, "eos_token": END}
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "model_max_length": args.context,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    made = {key: value for key, value in vars(args).items() if key not in ("text", "out")}
    made |= {"steps": training.steps, "tokens": training.steps * args.batch * args.context, "held_out_loss": loss}
    files = {
        "generation_config.json": ids | {"do_sample": True, "temperature": 0.6, "top_p": 0.95},
        "tokenizer_config.json": described,
        "special_tokens_map.json": names,
        "training.json": made,
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    sizes = {"hidden": 256, "layers": 6, "heads": 4, "kv-heads": 2, "ffn": 704, "vocab": 4096, "context": 512}
    for name, value in {**sizes, "batch": 16, "seed": 1, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    texts = read_texts(args.text)
    tokenizer = train_tokenizer(texts, args.vocab)
    streams, held = encode(tokenizer, texts)
    print({kind: f"{len(tokens) / 1e6:.2f} M tokens" for kind, tokens in streams.items()}, flush=True)
    training = Training(args, streams)
    begin = shown = time.monotonic()
    while (frac := (time.monotonic() - begin) / (args.minutes * 60)) < 1:
        loss = training.step(frac)
        if training.steps == 5 or time.monotonic() - shown > 240:
            shown = time.monotonic()
            held_loss = held_out_loss(training.model, held, args.context)
            minutes = (shown - begin) / 60
            print(f"{minutes:5.1f} min  step {training.steps}  loss {loss:.3f}  held-out {held_loss:.3f}", flush=True)
    loss = round(held_out_loss(training.model, held, args.context), 4)
    save(training, tokenizer, loss, args.out)
    print(f"held-out loss {loss}, {training.steps} steps", flush=True)


if __name__ == "__main__":
    main()
