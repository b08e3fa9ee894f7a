"""The whole native path against transformers: every logit and greedy token, every architecture and rope scaling."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.cpu.machine import isa_levels
from albireo.models import architectures, load_architecture
from albireo.params import SamplingParams
from e2e.serving import Answer, Ask, Server
from in_turn import meets
from representatives import ALL_REPRESENTATIVES, LATENT, OF_WIRING, WITH_STATES
from tiny_models import MIXTURES, make_checkpoint, shared_data
from transformers_models import transformers
from variants import MIXED, VARIANTS, tiny_of

torch = pytest.importorskip("torch")

LEVELS = isa_levels()
LLAMA = {**load_architecture("llama").tiny}
PLAIN = {**LLAMA, "rope_scaling": None, "attention_bias": False, "mlp_bias": False}
MISTRAL = {**load_architecture("mistral").tiny}
QWEN2 = {**load_architecture("qwen2").tiny}
QWEN3 = {**load_architecture("qwen3").tiny}
YARN_NUMBERS = {"factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", **YARN_NUMBERS}
#: Of which no rounding decides which are chosen.
ALL_EXPERTS = "kimi_linear, all experts"
#: Every architecture as its file has it, and what its files can say besides.
CONFIGS: dict[str, dict[str, Any]] = {
    **{name: tiny_of(name) for name in (*architectures(), *VARIANTS)},
    "llama, heads of 64, tied": PLAIN | {"hidden_size": 126, "head_dim": 64, "tie_word_embeddings": True},
    "llama, one KV head of 128": PLAIN | {"head_dim": 128, "num_attention_heads": 3, "num_key_value_heads": 1},
    "llama, no grouping, heads of 80": PLAIN | {"head_dim": 80, "num_attention_heads": 2, "num_key_value_heads": 2},
    "llama, heads of 256": PLAIN | {"head_dim": 256, "num_attention_heads": 2, "num_key_value_heads": 1},
    "llama, linear": PLAIN | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
    "llama, dynamic": PLAIN | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "llama, yarn": PLAIN | {"rope_scaling": YARN},
    "llama, yarn, own attention factor": PLAIN | {"rope_scaling": YARN | {"attention_factor": 0.9, "beta_fast": 8.0}},
    "llama, relu behind a gate": PLAIN | {"hidden_act": "relu"},
    "llama, gelu behind a gate": PLAIN | {"hidden_act": "gelu"},
    "gemma2, gelu without tanh": tiny_of("gemma2") | {"hidden_activation": "gelu"},
    "gpt2, scores by layer": tiny_of("gpt2") | {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
    "llama4_text, heads normed behind a stretched rotation": tiny_of("llama4_text")
    | {"rope_scaling": YARN, "rms_norm_eps": 1e-2},
    "exaone4, windows in no layer": tiny_of("exaone4")
    | {"layer_types": ["full_attention"] * tiny_of("exaone4")["num_hidden_layers"]},
    "ernie4_5, heads of what is left": tiny_of("ernie4_5") | {"head_dim": None},
    "mistral, no window": MISTRAL | {"sliding_window": None},
    "mistral, a window of one tile": MISTRAL | {"sliding_window": 64},
    "qwen2, no window": QWEN2 | {"use_sliding_window": False, "tie_word_embeddings": True},
    "qwen3, biases, windows": QWEN3
    | {"attention_bias": True, "use_sliding_window": True, "sliding_window": 10, "max_window_layers": 1},
    "lfm2, biases": tiny_of("lfm2") | {"conv_bias": True, "conv_L_cache": 4, "tie_embedding": False},
    "cohere, heads normed": tiny_of("cohere") | {"use_qk_norm": True},
    "stablelm, heads normed": tiny_of("stablelm") | {"qk_layernorm": True, "num_key_value_heads": 2},
    "olmo, queries, keys and values limited": tiny_of("olmo") | {"clip_qkv": 0.7},
    "olmoe, likewise": tiny_of("olmoe") | {"clip_qkv": 0.7},
    ALL_EXPERTS: tiny_of("kimi_linear") | {"num_experts_per_token": 12},
    "deepseek_v4, as published": {
        **{key: value for key, value in tiny_of("deepseek_v4").items() if not key.endswith(("_types", "_rates"))},
        **{
            "num_hidden_layers": 4,
            "compress_ratios": [128, 0, 4, 128, 0],
            "compress_rate_hca": 8,
            "num_hash_layers": 1,
        },
        **{"rope_scaling": {"type": "yarn", **YARN_NUMBERS}, "num_nextn_predict_layers": 1, "topk_method": "noaux_tc"},
    },
    "qwen3, yarn": QWEN3 | {"rope_scaling": YARN, "tie_word_embeddings": False},
}
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=0, prompt_logprobs=0)


def asks(seed: int) -> list[Ask]:
    """Shorter and longer than any window, and longer than a tile of attention."""
    rng = np.random.default_rng(seed)
    return [Ask(tuple(rng.integers(3, 90, length).tolist()), GREEDY) for length in (1, 5, 30, 100)]


def reference(directory: Path, dtype: str, sequences: list[list[int]]) -> list[NDArray[np.float32]]:
    """transformers' logits at every position of each sequence; its weights are the checkpoint's, computed in dtype."""
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=getattr(torch, dtype), attn_implementation="eager", experts_implementation="eager"
    ).eval()
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0].float().numpy() for ids in sequences]


@functools.lru_cache(maxsize=8)
def reference_of(
    name: str, seed: int, stored: str, dtype: str, sequences: tuple[tuple[int, ...], ...]
) -> NDArray[np.float32]:
    """The same of a config's checkpoint, all in one; once for all levels, which mostly make the same tokens."""
    with tempfile.TemporaryDirectory() as folder:
        directory = make_checkpoint(Path(folder), CONFIGS[name], seed, dtype=stored)
        return np.concatenate(reference(directory, dtype, [list(ids) for ids in sequences]))


def parts_of(rows: NDArray[np.float32], sequences: list[list[int]]) -> list[NDArray[np.float32]]:
    """Rows of each sequence."""
    return np.split(rows, np.cumsum([len(ids) for ids in sequences])[:-1])


def serve(directory: Path, **config: Any) -> tuple[list[list[int]], list[Answer]]:
    """The sequences, prompt and output, as far as they were computed; and the answers."""
    wanted = asks(1)
    answers, _ = Server.load(directory, max_num_batched_tokens=48, **config).serve(wanted)
    sequences = [[*a.prompt, *b.tokens[0][:-1]] for a, b in zip(wanted, answers, strict=True)]
    for sequence, answer in zip(sequences, answers, strict=True):
        assert sorted(answer.rows) == list(range(len(sequence))), "a row of logits is missing"
    return sequences, answers


def all_rows(answers: list[Answer]) -> NDArray[np.float32]:
    return np.concatenate([np.stack([a.rows[p] for p in sorted(a.rows)]) for a in answers])


def assert_greedy(sequences: list[list[int]], answers: list[Answer], logits: list[NDArray[np.float32]]) -> None:
    """Given its own output so far, the reference would take the same next token, every time."""
    for sequence, answer, rows in zip(sequences, answers, logits, strict=True):
        made = len(answer.tokens[0])
        assert rows[len(sequence) - made :].argmax(axis=1).tolist() == answer.tokens[0]


def distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


def assert_near(sequences: list[list[int]], answers: list[Answer], logits: NDArray[np.float32]) -> None:
    assert_greedy(sequences, answers, parts_of(logits, sequences))
    # Both are float32 with different orders of summation; layers multiply what a layer is off by.
    assert distance(all_rows(answers), logits) < 3e-6
    np.testing.assert_allclose(all_rows(answers), logits, rtol=0, atol=2e-5 * np.abs(logits).max())


@pytest.mark.parametrize("config", [name for name in CONFIGS if name not in ALL_REPRESENTATIVES])
def test_float32_logits_and_greedy_tokens(config: str, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, CONFIGS[config], 1)
    sequences, answers = serve(directory)
    assert_near(sequences, answers, np.concatenate(reference(directory, "float32", sequences)))


@pytest.mark.parametrize(
    ("name", "level"),
    [
        pytest.param(name, level, marks=() if meets(i, j) else pytest.mark.thorough)
        for i, name in enumerate(ALL_REPRESENTATIVES)
        for j, level in enumerate(LEVELS)
    ],
)
def test_float32_at_every_level(name: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    directory = make_checkpoint(tmp_path, CONFIGS[name], 3)
    sequences, answers = serve(directory, num_threads=2)
    logits = reference_of(name, 3, "float32", "float32", tuple(map(tuple, sequences)))
    assert_near(sequences, answers, logits)


IN_16_BITS = sorted(set(ALL_REPRESENTATIVES) - set(MIXTURES) - set(LATENT) - set(MIXED))


@pytest.mark.parametrize(
    ("name", "dtype", "level"),
    [
        # types in turn; // lets both meet each level
        pytest.param(name, dtype, level, marks=() if (i + j) % 2 and meets(i // 2, k) else pytest.mark.thorough)
        for i, name in enumerate(IN_16_BITS)
        for j, dtype in enumerate(("bfloat16", "float16"))
        for k, level in enumerate(LEVELS)
    ],
)
def test_16_bits_are_nearer_to_exact_than_transformers(
    name: str, dtype: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact is the same weights in float32. transformers rounds after every operation, the residual stream too; so it
    bounds what 16 bits may cost, and how far the two may be apart. Of experts it may choose others, which says nothing
    of kernels; tests/backends/cpu/test_model.py holds those to the graph."""
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    assert_nearer_to_exact(name, dtype, tmp_path)


@pytest.mark.parametrize("name", [*sorted(set(OF_WIRING) - set(MIXTURES)), ALL_EXPERTS])
def test_bfloat16_is_nearer_to_exact_than_transformers(name: str, tmp_path: Path) -> None:
    """The same of architectures whose kernels are those of others."""
    assert_nearer_to_exact(name, "bfloat16", tmp_path)


def assert_nearer_to_exact(name: str, dtype: str, directory: Path) -> None:
    make_checkpoint(directory, CONFIGS[name], 4, dtype=dtype)
    sequences, answers = serve(directory)
    exact, theirs = (reference_of(name, 4, dtype, t, tuple(map(tuple, sequences))) for t in ("float32", dtype))
    ours = all_rows(answers)
    noise = distance(theirs, exact)
    # of states transformers rounds what is read of them at every token, which adds up
    limit = {"bfloat16": 0.05, "float16": 0.015 if name in {*WITH_STATES, *OF_WIRING} else 0.006}[dtype]
    assert noise < limit, "the model is too rough to prove anything"
    assert 0 < distance(ours, exact) < noise
    assert distance(ours, theirs) < 1.5 * noise


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_float32_checkpoint_computed_in_16_bits_is_one_stored_so(dtype: str, tmp_path: Path) -> None:
    """Rounding while packing equals rounding while writing the file, matrices aside from vectors."""
    config = {**PLAIN, "tie_word_embeddings": True}
    wide, narrow = (make_checkpoint(tmp_path / t, config, 5, dtype=t) for t in ("float32", dtype))
    sequences, answers = serve(wide, dtype=dtype)
    exact = np.concatenate(reference(narrow, "float32", sequences))
    assert distance(all_rows(answers), exact) < {"bfloat16": 0.03, "float16": 0.004}[dtype]


@pytest.mark.parametrize("level", LEVELS)
def test_stories260k(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real model: all twelve stories, token by token, and the five best next tokens with their logits."""
    directory = shared_data("models", "stories260k")
    expected = json.loads((directory / "expected.json").read_text())
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    params = SamplingParams(
        temperature=0.0, max_tokens=expected["max_new_tokens"], stop_token_ids=expected["stop_ids"], logprobs=0
    )
    cases = expected["cases"]
    server = Server.load(directory, dtype="float32", max_num_seqs=12)
    answers, _ = server.serve([Ask(tuple(case["prompt_ids"]), params) for case in cases])
    assert len(cases) == 12
    for case, answer in zip(cases, answers, strict=True):
        made = answer.tokens[0]
        assert made == case["greedy_ids"] or (case["stopped"] and made[:-1] == case["greedy_ids"])
        row = answer.rows[len(case["prompt_ids"]) - 1]
        ids = [token_id for token_id, _ in case["next_top5"]]
        assert np.argsort(-row)[:5].tolist() == ids
        np.testing.assert_allclose(row[ids], [logit for _, logit in case["next_top5"]], rtol=0, atol=2e-3)
