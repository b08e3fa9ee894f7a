"""Models whose tokens see what comes behind them: against transformers, and the same bits however they are served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import albireo
from albireo import LLM, PoolingParams
from albireo.backends.cpu.machine import isa_levels
from albireo.errors import ConfigError, InvalidParams, ModelError, PromptTooLong, UnsupportedFeature, WeightMismatch
from albireo.models import encoder_types, load_architecture
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.models.settings.sentence_transformers import with_modules as read_modules
from albireo.params import PoolingType
from e2e.serving import spoil
from tiny_encoders import Vectors, change_config, hidden_states, logits, save_encoder

#: Without what transformers has by other names, see test_published_encoders.py and test_published_embedders.py. Of
#: towers of texts: test_pairs.py.
NOT_HERE = ("new", "llama_bidirec", "t5", "clip_text_model", "siglip_text_model")
TYPES = tuple(name for name in encoder_types() if name not in NOT_HERE)
#: Seen from both sides: Gemma 3 has windows, one KV head, norms of what is added, and no end of an encoder.
EMBEDDING_GEMMA = {
    **load_architecture("gemma3_text").tiny,
    "architectures": ["Gemma3TextModel"],
    "use_bidirectional_attention": True,
    "sliding_window": 20,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {name: dict(load_architecture(name).tiny) for name in TYPES}
CONFIGS["gemma3_text"] = EMBEDDING_GEMMA
POOLS: tuple[PoolingType, ...] = ("cls", "mean", "last", "max")


def prompts(seed: int = 1) -> list[list[int]]:
    """Shorter and longer than any window; in one step with others and alone in one."""
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 127, length).tolist() for length in (1, 2, 5, 33, 90, 64, 17)]


def saved(folder: Path, name: str, dtype: str = "float32", **changes: Any) -> Path:
    save_encoder(folder, CONFIGS[name] | changes, 4, dtype)
    if name == "gemma3_text":  # transformers writes what it makes of it
        change_config(folder, sliding_window=20)
    return folder


def opened(folder: Path, **config: Any) -> LLM:
    # what is cached of a prompt is spoilt before the next
    defaults = {"num_threads": 1, "skip_tokenizer_init": True, "max_model_len": 90, "enable_prefix_caching": False}
    return LLM(str(folder), use_tqdm_on_load=False, **{**defaults, **config})


def embedded(llm: LLM, kind: PoolingType | None, which: list[list[int]], **params: Any) -> list[list[float]]:
    assert llm.loaded is not None
    spoil(llm.loaded.model)
    asked = PoolingParams(pooling_type=kind, **params)
    return [out.outputs.embedding for out in llm.embed([{"prompt_token_ids": ids} for ids in which], asked)]


def classified(llm: LLM, which: list[list[int]], **params: Any) -> list[list[float]]:
    assert llm.loaded is not None
    spoil(llm.loaded.model)
    asked = PoolingParams(**params)
    return [
        out.outputs.probs for out in llm.classify([{"prompt_token_ids": ids} for ids in which], pooling_params=asked)
    ]


def pooled(states: Vectors, kind: PoolingType) -> Vectors:
    return [
        {"cls": rows[0], "last": rows[-1], "mean": rows.mean(axis=0), "max": rows.max(axis=0)}[kind] for rows in states
    ]


def farthest(a: Any, b: Vectors) -> float:
    return max(float(np.linalg.norm(np.array(x) - y) / np.linalg.norm(y)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "bfloat16") for name in CONFIGS),
        # in float32 there are scores to compare, too
        *(pytest.param(name, "float32", marks=pytest.mark.thorough if name in TYPES else ()) for name in CONFIGS),
    ],
)
def test_as_near_to_exact_as_transformers(name: str, dtype: str, tmp_path: Path) -> None:
    """Exact is the same weights in float64; in 16 bits transformers rounds after every operation, and we less often."""
    folder = saved(tmp_path, name, dtype)
    exact, theirs = (hidden_states(folder, prompts(), each) for each in ("float64", dtype))
    llm = opened(folder, dtype=dtype)
    for kind in POOLS:
        ours = embedded(llm, kind, prompts(), use_activation=False)
        noise = farthest(pooled(theirs, kind), pooled(exact, kind))
        assert noise < {"bfloat16": 0.08, "float32": 5e-6}[dtype], "too rough to prove anything"
        assert farthest(ours, pooled(exact, kind)) < noise * (4 if dtype == "float32" else 1.1)
    assert farthest(ours[1:], pooled(exact, kind)[:-1]) > 0.1, "all embeddings are alike"


@pytest.mark.parametrize("level", isa_levels())
def test_bits_do_not_depend_on_what_is_served_beside(level: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Alone and together, in steps with room for all or for one, in blocks of other sizes, on several threads."""
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    folder = saved(tmp_path, "modernbert", "bfloat16")
    lone = opened(folder)
    alone = {kind: [embedded(lone, kind, [ids])[0] for ids in prompts()] for kind in POOLS}
    for config in ({}, {"max_num_batched_tokens": 90, "block_size": 8}, {"num_threads": 3, "max_num_seqs": 2}):
        llm = opened(folder, **config)
        for kind in POOLS:
            assert embedded(llm, kind, prompts()) == alone[kind], config


def test_a_prompt_waits_until_a_step_has_room_for_all_of_it(tmp_path: Path) -> None:
    """Of 1 2 5 33 90 64 17 tokens 41 go first, and 90 not beside 64; nobody is passed."""
    llm = opened(saved(tmp_path, "bert"), max_num_batched_tokens=100)
    assert llm.loaded is not None
    execute, sizes = llm.loaded.execute, []
    object.__setattr__(llm.loaded, "execute", lambda plan: (sizes.append(plan.num_tokens), execute(plan))[1])
    embedded(LLM.from_loaded(llm.loaded), None, prompts())
    assert sizes == [41, 90, 81]


@pytest.mark.parametrize("name", ["bert", "modernbert", "deberta_v2", "albert"])
def test_an_engine_directory_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    changes = {"architectures": [CONFIGS[name]["architectures"][0].replace("Model", "ForSequenceClassification")]}
    folder = saved(tmp_path / "model", name, "bfloat16", **changes, num_labels=3)
    built = tmp_path / "built"
    albireo.build(folder, built)
    one, other = opened(folder), opened(built)
    assert one.loaded is not None and other.loaded is not None
    assert other.loaded.pooling_rule == one.loaded.pooling_rule
    assert classified(one, prompts()) == classified(other, prompts())


@pytest.mark.parametrize("stored", ["own", "of the whole", "long ago"])
def test_names_of_tensors(stored: str, tmp_path: Path) -> None:
    """Without what they begin with, with it, and with what norms were once called."""
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path, "bert")
    wanted = embedded(opened(folder), "mean", prompts())
    tensors = load_file(folder / "model.safetensors")
    if stored != "own":
        tensors = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    if stored == "long ago":
        for new, old in (("weight", "gamma"), ("bias", "beta")):
            tensors = {name.replace(f"LayerNorm.{new}", f"LayerNorm.{old}"): each for name, each in tensors.items()}
        tensors["cls.predictions.bias"] = tensors["bert.pooler.dense.bias"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert embedded(opened(folder), "mean", prompts()) == wanted


# -- classifiers -------------------------------------------------------------------------------------------------------

CLASSIFIERS: dict[str, dict[str, Any]] = {
    **{name: CONFIGS[name] for name in TYPES},
    "qwen3": {**load_architecture("qwen3").tiny, "pad_token_id": 0},
    "gemma2": {**load_architecture("gemma2").tiny, "pad_token_id": 0},
}


def classifier(folder: Path, name: str, **changes: Any) -> Path:
    config = CLASSIFIERS[name]
    stem = config["architectures"][0].removesuffix("Model").removesuffix("ForCausalLM")
    return save_encoder(folder, {**config, "architectures": [f"{stem}ForSequenceClassification"], **changes}, 5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = classifier(tmp_path, name, num_labels=3)
    exact, theirs = (logits(folder, prompts(), each) for each in ("float64", "float32"))
    llm = opened(folder)
    ours = classified(llm, prompts(), use_activation=False)
    assert farthest(ours, exact) < max(4 * farthest(theirs, exact), 1e-6)
    powers = [np.exp(scores - scores.max()) for scores in exact]
    assert farthest(classified(llm, prompts()), [each / each.sum() for each in powers]) < 1e-5


def test_a_mean_classifies(tmp_path: Path) -> None:
    folder = classifier(tmp_path, "modernbert", num_labels=1, classifier_pooling="mean")
    exact = logits(folder, prompts(), "float64")
    assert farthest(classified(opened(folder), prompts(), use_activation=False), exact) < 1e-5
    assert farthest(classified(opened(folder), prompts()), [1 / (1 + np.exp(-scores)) for scores in exact]) < 1e-5


@pytest.mark.parametrize(
    ("changes", "activation"),
    [
        ({}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"problem_type": "regression"}, "none"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "none"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, "sigmoid"),
    ],
)
def test_what_scores_become(changes: dict[str, Any], activation: str, tmp_path: Path) -> None:
    folder = classifier(tmp_path, "bert", num_labels=2, id2label={0: "no", 1: "yes"})
    change_config(folder, **changes)
    llm = opened(folder)
    assert llm.loaded is not None
    rule = llm.loaded.pooling_rule
    assert (rule.labels, rule.activation) == (("no", "yes"), activation)


@pytest.mark.parametrize(("function", "activation"), [("linear.Identity", "none"), ("activation.Sigmoid", "sigmoid")])
def test_what_scores_of_a_cross_encoder_become(function: str, activation: str, tmp_path: Path) -> None:
    """As sentence-transformers 6 saves it: beside config.json, which says nothing. Also where it is built."""
    folder = classifier(tmp_path / "model", "bert", num_labels=1)
    settings = {"model_type": "CrossEncoder", "activation_fn": f"torch.nn.modules.{function}", "prompts": {}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    albireo.build(folder, tmp_path / "built")
    for place in (folder, tmp_path / "built"):
        loaded = opened(place).loaded
        assert loaded is not None and loaded.pooling_rule.activation == activation
    (folder / "config_sentence_transformers.json").write_text('{"activation_fn": "torch.nn.modules.activation.Tanh"}')
    with pytest.raises(ModelError, match=r"activation_fn='torch\.nn\..*Tanh' is not supported"):
        opened(folder)


def test_a_second_text_has_types_of_its_own(tmp_path: Path) -> None:
    import torch

    folder = classifier(tmp_path, "bert", num_labels=1)
    llm, ids = opened(folder), prompts()[3]
    for start in (0, 1, 12, 32, 33):
        types = torch.tensor([[0] * start + [1] * (33 - start)])
        (exact,) = logits(folder, [ids], "float64", token_type_ids=types)
        beside = [{"prompt_token_ids": each} for each in (prompts()[4], ids, prompts()[2])]
        asked = [PoolingParams(use_activation=False, type_start=each) for each in (50, start, None)]
        ours = llm.classify(beside, pooling_params=asked)[1].outputs.probs
        assert farthest([ours], [exact]) < 1e-5
    (plain,) = logits(folder, [ids], "float64")
    assert farthest([ours], [plain]) < 1e-5  # none of its tokens is of a second text


# -- what the files of sentence-transformers say -----------------------------------------------------------------------


def with_modules(folder: Path, *modules: tuple[str, dict[str, Any] | None]) -> None:
    listed = []
    for place, (kind, config) in enumerate(modules):
        path = "" if kind == "Transformer" else f"{place}_{kind}"
        listed.append({"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"})
        if config is not None:
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(listed))


def pooling(**modes: bool) -> dict[str, Any]:
    modes = {"cls_token": False, "mean_tokens": False, "max_tokens": False, "lasttoken": False} | modes
    return {"word_embedding_dimension": 48, **{f"pooling_mode_{name}": is_on for name, is_on in modes.items()}}


def test_linears_behind_a_mean(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder, numbers = saved(tmp_path / "model", "gemma3_text"), np.random.default_rng(3)
    dense = {
        "in_features": 48,
        "out_features": 64,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    back = {
        "in_features": 64,
        "out_features": 24,
        "bias": False,
        "activation_function": "torch.nn.modules.activation.Tanh",
        # what version 6 writes besides
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
    }
    with_modules(
        folder,
        ("Transformer", None),
        ("Pooling", pooling(mean_tokens=True)),
        ("Dense", dense),
        ("Dense", back),
        ("Normalize", None),
    )
    first, bias, second = (numbers.standard_normal(shape).astype(np.float32) for shape in ((64, 48), 64, (24, 64)))
    tensors = {"linear.weight": torch.tensor(first), "linear.bias": torch.tensor(bias)}
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    save_file({"linear.weight": torch.tensor(second)}, folder / "3_Dense" / "model.safetensors")
    wanted = []
    for mean in pooled(hidden_states(folder, prompts(), "float64"), "mean"):
        vector = np.tanh(second @ (first @ mean + bias))
        wanted.append(vector / np.linalg.norm(vector))
    ours = embedded(opened(folder), None, prompts())
    assert len(ours[0]) == 24 and farthest(ours, wanted) < 1e-5
    albireo.build(folder, tmp_path / "built")
    assert embedded(opened(tmp_path / "built"), None, prompts()) == ours


@pytest.mark.parametrize(
    ("mode", "kind"), [("cls_token", "cls"), ("mean_tokens", "mean"), ("max_tokens", "max"), ("lasttoken", "last")]
)
def test_how_it_is_pooled_where_nobody_says(mode: str, kind: PoolingType, tmp_path: Path) -> None:
    folder = saved(tmp_path, "xlm_roberta")
    with_modules(folder, ("Transformer", None), ("Pooling", pooling(**{mode: True})))
    llm = opened(folder)
    assert embedded(llm, None, prompts()) == embedded(llm, kind, prompts(), use_activation=False)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([("Transformer", None), ("Pooling", pooling(weightedmean_tokens=True))], "pooling_mode_weightedmean_tokens"),
        (
            [("Transformer", None), ("Pooling", pooling(cls_token=True, mean_tokens=True))],
            "one of pooling_mode_cls_token",
        ),
        ([("Transformer", None), ("CNN", None)], "a module of type .*CNN"),
        ([("Transformer", None), ("Normalize", None), ("Pooling", pooling(cls_token=True))], "comes behind Normalize"),
    ],
)
def test_modules_that_are_not_computed(modules: Any, words: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    with_modules(folder, *modules)
    with pytest.raises(ModelError, match=words):
        opened(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('[{"type": "a.Pooling", "path": "\\ud800"}]', "is no folder of this directory"),
        ('[{"type": "a.Pooling", "path": "1\\u0000"}]', "is no folder of this directory"),
        ('[{"type": "a.Pooling", "path": "%s"}]' % ("x" * 5000), "is no folder of this directory"),
    ],
)
def test_modules_that_no_program_writes(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=words):
        read_modules(PoolingRule(), tmp_path)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"tensor_parallel_size": 2}, "tensor_parallel_size=2"),
        ({"speculative_config": {"method": "ngram"}}, "speculative_config: this model gives embeddings"),
        ({"enable_lora": True}, "enable_lora: this model gives embeddings"),
        ({"max_num_batched_tokens": 40}, "max_num_batched_tokens=40 is less than max_model_len=90"),
    ],
)
def test_settings_that_are_not_for_it(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        opened(saved(tmp_path, "bert"), **config)


def test_requests_that_are_not_for_it(tmp_path: Path) -> None:
    llm = opened(saved(tmp_path / "bert", "bert"))
    with pytest.raises(UnsupportedFeature, match=r"gives embeddings .*writes no text"):
        llm.generate([{"prompt_token_ids": [4, 5]}])
    with pytest.raises(PromptTooLong, match="91 tokens, max_model_len=90"):
        embedded(llm, None, [[5] * 91])
    with pytest.raises(InvalidParams, match="type_start=7 of 3 tokens"):
        embedded(llm, None, [[5, 6, 7]], type_start=7)
    no_types = opened(saved(tmp_path / "distilbert", "distilbert"))
    with pytest.raises(InvalidParams, match="tells 0 types"):
        embedded(no_types, None, [[5, 6, 7]], type_start=1)
    scores = opened(classifier(tmp_path / "scores", "bert", num_labels=2))
    with pytest.raises(InvalidParams, match="dimensions=1: the scores"):
        classified(scores, [[5, 6]], dimensions=1)
    with pytest.raises(UnsupportedFeature, match=r"gives scores of 2 labels .*gives no embeddings"):
        embedded(scores, None, [[5, 6]])


def test_labels_are_held_to_the_matrix(tmp_path: Path) -> None:
    folder = classifier(tmp_path, "bert", num_labels=2)
    change_config(folder, id2label={"0": "a", "1": "b", "2": "c"}, label2id=None)
    with pytest.raises(WeightMismatch, match=r"2 scores, config\.json names 3 labels"):
        opened(folder)


def test_commands_say_what_it_is(tmp_path: Path) -> None:
    """Built without a run that measures what it writes; looked at; and not verified, which compares such text."""
    from click.testing import CliRunner

    from albireo.cli.main import main

    folder, built = classifier(tmp_path / "model", "bert", num_labels=2), str(tmp_path / "built")
    made = CliRunner().invoke(main, ["build", str(folder), "-o", built])
    assert made.exit_code == 0 and f"albireo serve {built}" in made.output
    for each in (str(folder), built):
        shown = CliRunner().invoke(main, ["inspect", each]).output
        assert "learned positions, all tokens see each other" in shown
        assert "scores of 2 labels (classify, score, /classify), pooled by cls" in shown
    refused = CliRunner().invoke(main, ["verify", built, "--against", str(folder)])
    assert refused.exit_code == 2 and "verify compares what a model writes" in refused.stderr
    planned = CliRunner().invoke(main, ["plan", str(folder), "--input-len", "40"])
    assert planned.exit_code == 0 and "decode step" not in planned.output
