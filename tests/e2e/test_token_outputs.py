"""What each token of a prompt is given, labels or embeddings: against transformers, and the same bits however it is
served. Scores that are made of them: tests/server/test_late_interaction.py."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import albireo
from albireo import LLM, AsyncLLM, PoolingParams
from albireo.backends.cpu.machine import isa_levels
from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.models import load_architecture
from e2e.serving import spoil
from tiny_encoders import change_config, hidden_states, save_encoder, token_logits

LABELS = {0: "O", 1: "B-PER", 2: "I-PER"}
#: Of DeBERTa's and Gemma's class the hidden state alone; ModernBERT's has a head before it; the last one is causal.
CLASSIFIERS = ("bert", "roberta", "distilbert", "electra", "albert", "deberta_v2", "modernbert", "eurobert", "qwen3")
CHUNKS = {"max_num_batched_tokens": 16, "block_size": 8}


def prompts(seed: int = 1) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 127, length).tolist() for length in (1, 2, 5, 33, 90, 64, 17)]


def saved(folder: Path, name: str, ending: str, **changes: Any) -> Path:
    config = {**load_architecture(name).tiny, "pad_token_id": 0}
    stem = config["architectures"][0].removesuffix("Model").removesuffix("ForCausalLM")
    return save_encoder(folder, {**config, "architectures": [f"{stem}{ending}"], **changes}, 5)


def opened(folder: Path, **config: Any) -> LLM:
    defaults = {"num_threads": 1, "skip_tokenizer_init": True, "max_model_len": 90, "enable_prefix_caching": False}
    return LLM(str(folder), use_tqdm_on_load=False, **{**defaults, **config})


def encoded(llm: LLM, which: list[list[int]], task: Any = None, **params: Any) -> list[Any]:
    assert llm.loaded is not None
    spoil(llm.loaded.model)
    asked = [{"prompt_token_ids": ids} for ids in which]
    return [out.outputs.data for out in llm.encode(asked, PoolingParams(**params), pooling_task=task, use_tqdm=False)]


def farthest(a: list[Any], b: list[Any]) -> float:
    assert [x.shape for x in a] == [y.shape for y in b]
    return max(float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_labels_of_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, name, "ForTokenClassification", num_labels=3, id2label=LABELS)
    exact, theirs = (token_logits(folder, prompts(), each) for each in ("float64", "float32"))
    llm = opened(folder)
    assert llm.loaded is not None and llm.loaded.pooling_rule.labels == ("O", "B-PER", "I-PER")
    assert farthest(encoded(llm, prompts(), use_activation=False), exact) < max(4 * farthest(theirs, exact), 1e-6)
    powers = [np.exp(scores - scores.max(axis=1, keepdims=True)) for scores in exact]
    wanted = [each / each.sum(axis=1, keepdims=True) for each in powers]
    assert farthest(encoded(llm, prompts(), "token_classify"), wanted) < 1e-5


@pytest.mark.parametrize(("name", "ending"), [("bert", "Model"), ("qwen3", "Model")])
def test_embeddings_of_tokens_are_hidden_states(name: str, ending: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, name, ending)
    exact = hidden_states(folder, prompts(), "float64")
    llm = opened(folder)
    plain = encoded(llm, prompts(), "token_embed", use_activation=False)
    assert farthest(plain, exact) < 1e-5
    unit = encoded(llm, prompts(), pooling_type="ALL", dimensions=12)
    assert farthest(unit, [x[:, :12] / np.linalg.norm(x[:, :12], axis=1, keepdims=True) for x in exact]) < 1e-5
    last = llm.embed([{"prompt_token_ids": ids} for ids in prompts()], PoolingParams(pooling_type="last"))
    assert (
        farthest(
            [np.array(out.outputs.embedding) for out in last], [x[-1] for x in encoded(llm, prompts(), "token_embed")]
        )
        == 0
    )


@pytest.mark.parametrize("level", isa_levels())
def test_bits_do_not_depend_on_what_is_served_beside(level: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ALBIREO_ISA", level)
    folder = saved(tmp_path, "qwen3", "ForTokenClassification", num_labels=3)
    together = encoded(opened(folder), prompts())
    alone = opened(folder, num_threads=2, **CHUNKS)
    for ids, found in zip(prompts(), together, strict=True):
        (again,) = encoded(alone, [ids])
        assert np.array_equal(again, found)


def test_after_a_preemption_no_token_is_given_twice(tmp_path: Path) -> None:
    folder = saved(tmp_path, "qwen3", "Model")
    wanted = encoded(opened(folder), prompts(), "token_embed")
    few = opened(folder, num_gpu_blocks_override=13, max_num_seqs=4, **CHUNKS)
    found = encoded(few, prompts(), "token_embed")
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_an_engine_directory_gives_the_same_bits(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "modernbert", "ForTokenClassification", num_labels=3)
    albireo.build(folder, tmp_path / "built")
    for a, b in zip(encoded(opened(folder), prompts()), encoded(opened(tmp_path / "built"), prompts()), strict=True):
        assert np.array_equal(a, b)


def test_asked_for_one_by_one(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert", "ForTokenClassification", num_labels=3)
    wanted = encoded(opened(folder), prompts())

    async def found() -> list[Any]:
        async with AsyncLLM(str(folder), num_threads=1, skip_tokenizer_init=True, max_model_len=90) as llm:
            made = [llm.encode({"prompt_token_ids": ids}) for ids in prompts()]
            return [out.outputs.data for out in await asyncio.gather(*made)]

    assert all(np.array_equal(a, b) for a, b in zip(asyncio.run(found()), wanted, strict=True))


@pytest.mark.parametrize("ending", ["ForProcessRewardModel", "ForRewardModel"])
def test_rewards_of_steps_and_of_texts(ending: str, tmp_path: Path) -> None:
    """Qwen's, with code of their own beside them: two linears behind hidden states."""
    folder = saved(tmp_path, "qwen2", "Model", vocab_size=131)
    exact = hidden_states(folder, prompts(), "float64")
    rng = np.random.default_rng(2)
    labels = 2 if ending == "ForProcessRewardModel" else 1
    sizes = {
        "score.0.weight": (60, 60),
        "score.0.bias": (60,),
        "score.2.weight": (labels, 60),
        "score.2.bias": (labels,),
    }
    made = {name: rng.normal(0, 0.3, size).astype(np.float32) for name, size in sizes.items()}
    save_file(load_file(folder / "model.safetensors") | made, folder / "model.safetensors")
    change_config(folder, architectures=[f"Qwen2{ending}"], auto_map={"AutoModel": f"modeling_qwen2_rm.Qwen2{ending}"})
    w = {name: value.astype(np.float64) for name, value in made.items()}
    inner = [np.maximum(rows @ w["score.0.weight"].T + w["score.0.bias"], 0) for rows in exact]
    wanted = [rows @ w["score.2.weight"].T + w["score.2.bias"] for rows in inner]
    llm = opened(folder)
    if labels == 2:
        powers = [np.exp(rows - rows.max(axis=1, keepdims=True)) for rows in wanted]
        assert farthest(encoded(llm, prompts()), [rows / rows.sum(axis=1, keepdims=True) for rows in powers]) < 1e-5
    else:
        assert farthest(encoded(llm, prompts()), [rows[-1] for rows in wanted]) < 1e-5


# -- an embedding of each token, and scores ----------------------------------------------------------------------------


def colbert(folder: Path, kind: str) -> Path:
    """Of a linear behind hidden states, as ColBERT's own class is published, or as PyLate writes it."""
    saved(folder, "bert", "Model")
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 48**-0.5, (16, 48)).astype(np.float32)
    if kind == "its class":
        tensors = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
        save_file(tensors | {"linear.weight": weight}, folder / "model.safetensors")
        change_config(folder, architectures=["HF_ColBERT"])
    else:
        dense = {"in_features": 48, "out_features": 16, "bias": False}
        dense["activation_function"] = "torch.nn.modules.linear.Identity"
        (folder / "1_Dense").mkdir()
        (folder / "1_Dense" / "config.json").write_text(json.dumps(dense))
        save_file({"linear.weight": weight}, folder / "1_Dense" / "model.safetensors")
        listed = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ]
        (folder / "modules.json").write_text(json.dumps(listed))
    return folder


@pytest.mark.parametrize("kind", ["its class", "modules"])
def test_vectors_of_tokens(kind: str, tmp_path: Path) -> None:
    folder = colbert(tmp_path / "model", kind)
    plain = saved(tmp_path / "plain", "bert", "Model")
    name = "linear.weight"
    place = folder / ("model.safetensors" if kind == "its class" else "1_Dense/model.safetensors")
    projected = [
        rows @ load_file(place)[name].astype(np.float64).T for rows in hidden_states(plain, prompts(), "float64")
    ]
    wanted = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in projected]
    llm = opened(folder)
    assert farthest(encoded(llm, prompts()), wanted) < 1e-5
    albireo.build(folder, tmp_path / "built")
    built = opened(tmp_path / "built")
    assert all(np.array_equal(a, b) for a, b in zip(encoded(built, prompts()), encoded(llm, prompts()), strict=True))
    with pytest.raises(
        UnsupportedFeature, match=r"gives an embedding of each token .* it gives no embeddings of texts"
    ):
        llm.embed({"prompt_token_ids": [5]})


def test_what_is_asked_of_the_wrong_model(tmp_path: Path) -> None:
    tagger = opened(saved(tmp_path / "tagger", "bert", "ForTokenClassification", num_labels=3))
    embedder = opened(saved(tmp_path / "embedder", "bert", "Model"))
    one: Any = {"prompt_token_ids": [5, 6]}
    with pytest.raises(
        UnsupportedFeature, match=r"gives scores of 3 labels of each token \(encode, /pooling\); it is no c"
    ):
        tagger.classify(one)
    for task, words in (("embed", "gives no embeddings of texts"), ("token_embed", "gives no embeddings of tokens")):
        with pytest.raises(UnsupportedFeature, match=words):
            tagger.encode(one, pooling_task=task)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedFeature, match="is no classifier of tokens"):
        embedder.encode(one, pooling_task="token_classify")
    with pytest.raises(
        InvalidParams, match=r"pooling_task='plugin' is unknown; it must be embed or classify or token_e"
    ):
        embedder.encode(one, pooling_task="plugin")  # type: ignore[arg-type]
    with pytest.raises(InvalidParams, match=r"pooling_type=mean: token_embed is of all tokens"):
        embedder.encode(one, PoolingParams(pooling_type="mean"), pooling_task="token_embed")
    with pytest.raises(InvalidParams, match=r"pooling_type=all gives each token its own embedding: that is encode"):
        embedder.embed(one, PoolingParams(pooling_type="all"))
    with pytest.raises(InvalidParams, match=r"dimensions=2: the scores of this classifier"):
        tagger.encode(one, PoolingParams(dimensions=2))


def test_more_values_than_are_given(tmp_path: Path, monkeypatch: Any) -> None:
    llm = opened(saved(tmp_path, "bert", "Model"))
    monkeypatch.setattr("albireo.engine.pooling.MAX_VALUES", 480)
    assert encoded(llm, [[5] * 10], "token_embed")[0].shape == (10, 48)
    with pytest.raises(InvalidParams, match=r"11 tokens have 48 values each, 528 in all; at most 480 are given"):
        encoded(llm, [[5] * 11], "token_embed")
    assert encoded(llm, [[5] * 11], "token_embed", dimensions=40)[0].shape == (11, 40)
