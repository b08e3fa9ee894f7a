"""Train a head that drafts (EAGLE 3) for a model, on what the model writes itself, and save it as such heads are.

    python tools/train_draft_head.py MODEL OUT_FOLDER [--tokens 1000000] [--minutes 30] [--texts TEXTS.npz]

The texts are sampled by the engine, so that the head learns what it will have to guess; they are kept in --texts, if
that is named. Then it learns the model's own distributions, of up to --depth tokens ahead of what the model has
computed: of further ones it reads what it left itself. Needs the test extra (torch, transformers).
Source: Li et al., EAGLE-3, arXiv:2503.01840.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import (
    LlamaConfig,
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from albireo import LLM, SamplingParams

STARTS = (
    "Once upon a time", "One day", "Lily", "Tom", "The old man", "There was", "In a small village", "A little girl",
    "It was a", "Max", "Sara and Ben", "The dog", "Every morning", "She", "He", "They", "Tell me a story about a cat.",
)  # fmt: skip
LENGTH = 256
WARMUP_STEPS, LAST_RATE = 40, 0.02


def written(model: Path, num_tokens: int) -> np.ndarray:
    """[texts, LENGTH] of what the model goes on with, at several temperatures; -1 behind the end of a text."""
    llm = LLM(str(model), device="cpu", max_num_seqs=64)
    rng, rows, seed = random.Random(1), [], 0
    while len(rows) * LENGTH < num_tokens:
        prompts = [rng.choice(STARTS) for _ in range(256)]
        params = []
        for _ in prompts:
            seed += 1
            temperature = rng.choice([0.0, 0.7, 0.9, 1.0, 1.0])
            params.append(SamplingParams(temperature=temperature, seed=seed, max_tokens=LENGTH - 16))
        for output in llm.generate(prompts, params, use_tqdm=False):
            ids = [*output.prompt_token_ids, *output.outputs[0].token_ids][:LENGTH]
            rows.append(np.array(ids + [-1] * (LENGTH - len(ids)), np.int32))
        print(f"{len(rows)} texts", flush=True)
    return np.stack(rows)


class Head(nn.Module):
    """One layer of llama's, whose q, k and v read an embedding and a hidden state side by side."""

    def __init__(self, config: LlamaConfig, taps: int) -> None:
        super().__init__()
        hidden, dim = config.hidden_size, config.head_dim
        self.heads, self.kv_heads, self.dim = config.num_attention_heads, config.num_key_value_heads, dim
        self.fc = nn.Linear(taps * hidden, hidden, bias=False)
        self.input_layernorm, self.hidden_norm, self.post_attention_layernorm, self.norm = (
            LlamaRMSNorm(hidden, config.rms_norm_eps) for _ in range(4)
        )
        self.q_proj = nn.Linear(2 * hidden, self.heads * dim, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(2 * hidden, self.kv_heads * dim, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(self.heads * dim, hidden, bias=False)
        self.mlp = LlamaMLP(config)
        self.rotary = LlamaRotaryEmbedding(config)

    def unrolled(self, embeds: Tensor, states: Tensor, depth: int) -> list[Tensor]:
        """What it leaves of each row [B, T, E], from the model's states, then from its own of one row before, ..."""
        batch, length, _ = states.shape
        cosines = self.rotary(states, torch.arange(length)[None])
        steps: list[tuple[Tensor, Tensor]] = []
        left = []
        for _ in range(depth):
            x = torch.cat([self.input_layernorm(embeds), self.hidden_norm(states)], -1)
            q, k, v = (
                linear(x).view(batch, length, -1, self.dim).transpose(1, 2)
                for linear in (self.q_proj, self.k_proj, self.v_proj)
            )
            q, k = apply_rotary_pos_emb(q, k, *cosines)
            repeat = self.heads // self.kv_heads
            steps.append((k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)))
            a = self._attention(q, steps)
            x = states + self.o_proj(a.transpose(1, 2).reshape(batch, length, -1))
            x = x + self.mlp(self.post_attention_layernorm(x))
            left.append(x)
            states = F.pad(x, (0, 0, 1, 0))[:, :length]
        return left

    def _attention(self, q: Tensor, steps: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Rows see what the model had computed when their guess began, and the guesses since."""
        length, num_back = q.shape[2], len(steps) - 1
        first_k, first_v = steps[0]
        scores = q @ first_k.transpose(2, 3) / math.sqrt(self.dim)
        mask = torch.ones(length, length, dtype=torch.bool).tril(-num_back)
        scores = scores.masked_fill(~mask, -torch.inf)
        own = []
        for number, (k, _) in enumerate(steps[1:], 1):
            back = num_back - number
            own.append((q * F.pad(k, (0, 0, back, 0))[:, :, :length]).sum(-1, keepdim=True) / math.sqrt(self.dim))
        weights = torch.cat([scores, *own], -1).softmax(-1)
        out = weights[..., :length] @ first_v
        for number, (_, v) in enumerate(steps[1:], 1):
            back = num_back - number
            out = out + weights[..., length + number - 1, None] * F.pad(v, (0, 0, back, 0))[:, :, :length]
        return out


class Trainer:
    """A head and the model it is for, on rows of texts."""

    def __init__(self, directory: Path, taps: list[int], depth: int) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.taps, self.depth = taps, depth
        self.head = Head(self.model.config, len(taps))

    def losses(self, tokens: Tensor) -> tuple[list[Tensor], list[float]]:
        """Of each depth: how far its distributions are from the model's, and how often the likeliest token is its."""
        known = tokens.clamp_min(0)
        with torch.no_grad():
            outputs = self.model(known, output_hidden_states=True)
            wanted = outputs.logits.log_softmax(-1)
            states = torch.cat([outputs.hidden_states[tap] for tap in self.taps], -1)
            embeds = self.model.get_input_embeddings()(known)
        # row t reads the state of token t and token t + 1, and guesses token t + 2
        left = self.head.unrolled(embeds[:, 1:], self.head.fc(states[:, :-1]), self.depth)
        losses, hits = [], []
        for step, x in enumerate(left):
            rows = tokens[:, 1:] >= 0
            rows[:, :step] = False
            logits = self.model.lm_head(self.head.norm(x[rows]))
            target = wanted[:, 1:][rows]
            losses.append(F.kl_div(logits.log_softmax(-1), target, reduction="batchmean", log_target=True))
            hits.append((logits.argmax(-1) == target.argmax(-1)).float().mean().item())
        return losses, hits

    def save(self, folder: Path) -> None:
        """As EAGLE 3's heads are published; tables of tokens are the model's."""
        folder.mkdir(parents=True, exist_ok=True)
        model = self.model.config
        kept = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
        kept += ("rms_norm_eps", "hidden_act", "max_position_embeddings", "vocab_size", "rope_parameters")
        config: dict[str, Any] = {"architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama"}
        config |= {name: getattr(model, name) for name in kept}
        config |= {"num_hidden_layers": 1, "draft_vocab_size": model.vocab_size, "dtype": "bfloat16"}
        config["eagle_aux_hidden_state_layer_ids"] = self.taps
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {}
        for name, each in self.head.state_dict().items():
            if name.startswith("rotary"):
                continue
            place = "" if name.startswith(("fc.", "norm.")) else "midlayer."
            is_attention = name.split(".")[0] in ("q_proj", "k_proj", "v_proj", "o_proj")
            tensors[f"{place}{'self_attn.' if is_attention else ''}{name}"] = each.to(torch.bfloat16).contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--taps", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    args = parser.parse_args()
    if args.texts is not None and args.texts.exists():
        rows = np.load(args.texts)["rows"]
    else:
        rows = written(args.model, args.tokens)
        if args.texts is not None:
            np.savez_compressed(args.texts, rows=rows)
    tokens = torch.from_numpy(rows.astype(np.int64))
    held, tokens = tokens[:64], tokens[64:]
    torch.manual_seed(1)
    trainer = Trainer(args.model, args.taps, args.depth)
    optimizer = torch.optim.AdamW(trainer.head.parameters(), args.rate, betas=(0.9, 0.95), weight_decay=0.01)
    started, step = time.monotonic(), 0
    while (passed := (time.monotonic() - started) / (60 * args.minutes)) < 1:
        for group in optimizer.param_groups:
            fall = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * passed))
            group["lr"] = args.rate * min(1.0, (step + 1) / WARMUP_STEPS) * fall
        batch = tokens[torch.randint(len(tokens), (args.batch,))]
        losses, hits = trainer.losses(batch)
        sum(losses).backward()
        nn.utils.clip_grad_norm_(trainer.head.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            shown = " ".join(f"{loss.item():.3f}/{hit:.3f}" for loss, hit in zip(losses, hits, strict=True))
            print(f"{step} {passed:.2f} {shown}", flush=True)
    with torch.no_grad():
        losses, hits = trainer.losses(held)
    print(f"{step} steps, held out: {[round(hit, 3) for hit in hits]} of the likeliest tokens are the model's")
    trainer.save(args.out)


if __name__ == "__main__":
    main()
