"""Heads that draft: they compute what transformers' modules compute, and answers are those without them, to the bit."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from albireo import LLM, BuildConfig, build
from albireo.api.drafts.draft_head import HeadDrafter
from albireo.api.load import Loaded, _plan_all, load
from albireo.api.machine.devices import open_device
from albireo.api.sources.source import open_source
from albireo.config import EngineConfig
from albireo.errors import ConfigError, EngineError, ModelError
from albireo.execution.draft_head import HeadModel
from albireo.execution.inputs import pack_step
from albireo.execution.runner import Runner
from albireo.models import load_architecture
from albireo.params import SamplingParams
from albireo.step import SampleTask, SequenceWork, StepPlan
from compiler.ranks import WIDE, wide_config
from e2e.serving import Answer, Server, assert_same_answers
from e2e.test_speculative import Eager, requests
from engine.test_model_guesses import give_freely
from tiny_heads import MTP, config_with_mtp, eagle3_head, eagle_head, gemma4_assistant, markov, mtp_weights
from tiny_models import make_checkpoint
from tiny_sights import picture, save
from transformers_models import transformers

torch = pytest.importorskip("torch")

F32 = NDArray[np.float32]
TOKENS = [(i * 37) % 83 + 4 for i in range(30)]
#: Blocks of the one sequence, in no order.
TABLE = [3, 1, 5, 2, 4]


def opened(directory: Path, **asked: Any) -> tuple[Loaded, HeadModel]:
    """A model in float32 with a head, and the head."""
    config = EngineConfig(
        model=str(directory),
        dtype="float32",
        num_threads=1,
        max_num_seqs=4,
        block_size=8,
        skip_tokenizer_init=True,
        speculative_config=asked,
    )
    loaded = load(config)
    assert loaded.method is not None
    runner = getattr(loaded.method.execute, "__self__", None)
    assert isinstance(runner, Runner) and isinstance(runner._model, HeadModel)
    return loaded, runner._model


def plan(tokens: list[int], start: int = 0, slot: int = -1) -> StepPlan:
    task = SampleTask(0, SamplingParams(temperature=0), 0, [], [])
    return StepPlan(0, [SequenceWork(0, tokens, start, (TABLE,), (task,), state_slot=slot)], len(tokens))


def guesses(loaded: Loaded, head: HeadModel) -> tuple[F32, F32]:
    """Logits of each row behind TOKENS but the last; and of one more, behind a draft that is TOKENS[0]."""
    loaded.execute(plan(TOKENS[:-1], slot=0 if loaded.settings.num_state_slots else -1))
    found = []
    for step in (plan(TOKENS[1:]), plan(TOKENS[:1], len(TOKENS) - 1)):
        inputs = pack_step(step, 8, num_ahead=1).inputs
        last = inputs.top_rows
        # all rows but the last would write what they leave over what the model left
        rows = np.arange(inputs.num_tokens, dtype=np.int32)
        states = head._states.read(inputs.slots)
        found.append(head.run(replace(inputs, logit_rows=rows, top_rows=last[:0], top_counts=last[:0])).logits.copy())
        head._states.write(inputs.slots, states)
        head.run(inputs)
    return found[0], found[1]


class Reference:
    """A head of transformers' modules. model: it is for; state: of its hidden states, what it reads."""

    def __init__(self, model: Any, one_layer: Any, join: Callable[[Any, Any], Any], leaves_normed: bool) -> None:
        self.model, self.layer, self.join, self.leaves_normed = model, one_layer, join, leaves_normed

    def __call__(self, state: Any) -> tuple[Any, Any]:
        """As guesses(). Args: state: [1, n, E]."""
        tokens = torch.tensor([TOKENS])
        embeds = self.model.get_input_embeddings()
        joined = self.join(embeds(tokens[:, 1:]), state)
        first, following = self._run(joined)
        more = self.join(embeds(tokens[:, :1]), following[:, -1:])
        return first, self._run(torch.cat([joined, more], 1))[0][-1:]

    def _run(self, joined: Any) -> tuple[Any, Any]:
        read = []
        hook = self.layer.model.norm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        with torch.no_grad():
            normed = self.layer.model(inputs_embeds=joined).last_hidden_state
            logits = self.layer.lm_head(normed)
        hook.remove()
        return logits[0].numpy(), normed if self.leaves_normed else read[0]


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def as_torch(tensors: Mapping[str, F32]) -> dict[str, Any]:
    return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}


def in_transformers(directory: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", MTP)
def test_layers_that_guess_are_what_transformers_computes(kind: str, tmp_path: Path) -> None:
    """The layer as a model of one layer of transformers'; norms and the linear before it as their files say."""
    config = config_with_mtp(kind)
    weights = mtp_weights(config, 7)
    directory = make_checkpoint(tmp_path / "model", config, weights=weights)
    place, fc, embedding_norm, state_norm, last_norm = MTP[kind]
    place = place.format(n=config["num_hidden_layers"])
    inner = f"{place}layers.0." if place == "mtp." else place
    own = {name: weights[name] for name in ("model.embed_tokens.weight", "lm_head.weight") if name in weights}
    own["model.norm.weight"] = weights[f"{place}{last_norm}.weight"]
    own |= {f"model.layers.0.{name[len(inner) :]}": each for name, each in weights.items() if name.startswith(inner)}
    one = {**config, "num_hidden_layers": 1, "first_k_dense_replace": 0, "mlp_only_layers": []}
    for key, kept in (("layer_types", "full_attention"), ("mlp_layer_types", "sparse")):
        one |= {key: [kept]} if key in config else {}
    one = {key: value for key, value in one.items() if key in config}
    layer = in_transformers(make_checkpoint(tmp_path / "layer", one, weights=own))
    parts = as_torch({name: weights[f"{place}{name}.weight"] for name in (fc, embedding_norm, state_norm)})
    added = 1.0 if kind.startswith("qwen3") else 0.0

    def join(embedding: Any, state: Any) -> Any:
        both = [
            rms_norm(each, added + parts[name], config["rms_norm_eps"])
            for each, name in ((embedding, embedding_norm), (state, state_norm))
        ]
        return torch.cat(both[::-1] if kind == "mimo" else both, -1) @ parts[fc].T

    model = in_transformers(directory)
    with torch.no_grad():
        state = model.model(torch.tensor([TOKENS[:-1]])).last_hidden_state
        wanted = Reference(model, layer, join, "shared_head" not in last_norm)(state)
    assert_near(guesses(*opened(directory, method="mtp")), wanted)


def llama_layer(directory: Path, head: Mapping[str, F32], *, place: str, head_weight: Any, last_norm: Any) -> Any:
    """A model of one layer of llama's with a head's weights, its q, k and v as wide as these; None: no last norm."""
    config = transformers.AutoConfig.from_pretrained(directory)
    config.vocab_size = len(head_weight)
    layer = transformers.LlamaForCausalLM._from_config(config, dtype=torch.float32).eval()
    block = layer.model.layers[0]
    for p in "qkv":
        rows, columns = head[f"{place}self_attn.{p}_proj.weight"].shape
        setattr(block.self_attn, f"{p}_proj", torch.nn.Linear(columns, rows, bias=False))
    own = {name[len(place) :]: each for name, each in as_torch(head).items() if name.startswith(place)}
    own = {name: each for name, each in own.items() if "input_layernorm" not in name and "hidden_norm" not in name}
    missing, unexpected = block.load_state_dict(own, strict=False)
    assert missing == ["input_layernorm.weight"] and not unexpected
    layer.lm_head.weight.data = head_weight
    if last_norm is None:
        layer.model.norm = torch.nn.Identity()
    else:
        layer.model.norm.weight.data = last_norm
    return layer


def test_eagle_is_what_llama_computes(tmp_path: Path) -> None:
    config = dict(load_architecture("qwen3").tiny)
    directory = make_checkpoint(tmp_path / "model", config, seed=3)
    where, head = eagle_head(tmp_path / "head", config, 5, has_bias=True)
    model = in_transformers(directory)
    layer = llama_layer(where, head, place="layers.0.", head_weight=model.lm_head.weight.data, last_norm=None)
    layer.model.layers[0].input_layernorm = torch.nn.Identity()
    fc = as_torch(head)

    def join(embedding: Any, state: Any) -> Any:
        return torch.cat([embedding, state], -1) @ fc["fc.weight"].T + fc["fc.bias"]

    with torch.no_grad():
        state = model.model(torch.tensor([TOKENS[:-1]])).last_hidden_state
        wanted = Reference(model, layer, join, leaves_normed=False)(state)
    assert_near(guesses(*opened(directory, method="eagle", model=str(where))), wanted)


@pytest.mark.parametrize("way", ["as published", "own ids", "other layers, normed", "tied"])
def test_eagle3_is_what_llama_computes(way: str, tmp_path: Path) -> None:
    """Its linears read an embedding and a state side by side; states are of three layers."""
    config = dict(load_architecture("llama").tiny) | {"num_hidden_layers": 7}
    config["tie_word_embeddings"] = way == "tied"
    directory = make_checkpoint(tmp_path / "model", config, seed=3)
    is_other, vocab = way == "other layers, normed", 40 if way == "own ids" else 0
    layers, place = ([1, 4, 6], "layers.0.") if is_other else ([2, 3, 4], "midlayer.")
    more: dict[str, Any] = {}
    if is_other:
        more = {"norm_before_residual": True, "eagle_aux_hidden_state_layer_ids": layers}
    where, head = eagle3_head(tmp_path / "head", config, 5, draft_vocab_size=vocab, layer=place, **more)
    model, own = in_transformers(directory), as_torch(head)
    weight = own.get("lm_head.weight", model.lm_head.weight.data)
    layer = llama_layer(where, head, place=place, head_weight=weight, last_norm=own["norm.weight"])
    hidden, eps = config["hidden_size"], config["rms_norm_eps"]

    def join(embedding: Any, state: Any) -> Any:
        normed = rms_norm(state, own[f"{place}hidden_norm.weight"], eps)
        first = rms_norm(embedding, own[f"{place}input_layernorm.weight"], eps)
        return torch.cat([first, normed, normed if is_other else state], -1)

    class Given(torch.nn.Module):
        def forward(self, _: Any) -> Any:
            return self.rows

    given = layer.model.layers[0].input_layernorm = Given()

    def take(_: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given.rows = inputs[0][..., : 2 * hidden]
        return (inputs[0][..., 2 * hidden :], *inputs[1:]), kwargs

    layer.model.layers[0].register_forward_pre_hook(take, with_kwargs=True)
    with torch.no_grad():
        states = model(torch.tensor([TOKENS[:-1]]), output_hidden_states=True).hidden_states
        state = torch.cat([states[each] for each in layers], -1) @ own["fc.weight"].T
        wanted = Reference(model, layer, join, leaves_normed=False)(state)
    got = guesses(*opened(directory, method="eagle3", model=str(where)))
    if vocab:
        extra = load_file(where / "model.safetensors")
        ids = extra["d2t"] + np.arange(vocab)
        assert all(np.isneginf(np.delete(each, ids, axis=1)).all() for each in got)
        got = got[0][:, ids], got[1][:, ids]
    assert_near(got, wanted)


def gemma4_config(**more: Any) -> dict[str, Any]:
    config = dict(load_architecture("gemma4_text").tiny) | {"num_hidden_layers": 6}
    return config | {"layer_types": ["sliding_attention", "full_attention"] * 3} | more


@pytest.mark.parametrize("window", [21, 200])
def test_an_assistant_of_gemma4_is_what_transformers_computes(window: int, tmp_path: Path) -> None:
    """It reads the keys and values of the model's last layers, and guesses again and again at one position."""
    config = gemma4_config(sliding_window=window)
    directory = make_checkpoint(tmp_path / "model", config, seed=3)
    where, theirs = gemma4_assistant(tmp_path / "head", config, 1)
    model = in_transformers(directory)
    tokens = [TOKENS[-1], *TOKENS[:2]]
    with torch.no_grad():
        out = model(torch.tensor([TOKENS[:-1]]), output_hidden_states=True, return_shared_kv_states=True)
        state, wanted = out.hidden_states[-1][:, -1:], []
        for token in tokens:
            embedding = model.get_input_embeddings()(torch.tensor([[token]]))
            at = torch.tensor([[len(TOKENS) - 1]])
            said = theirs(
                inputs_embeds=torch.cat([embedding, state], -1),
                position_ids=at,
                shared_kv_states=out.shared_kv_states,
                use_cache=False,
            )
            wanted.append(said.logits[0, 0].numpy())
            state = said.last_hidden_state
    loaded, head = opened(directory, method="mtp", model=str(where))
    tables = tuple([each + 5 * group for each in TABLE] for group in range(len(loaded.settings.windows)))

    def step(ids: list[int], start: int) -> StepPlan:
        (work,) = plan(ids, start).work
        return StepPlan(0, [replace(work, block_tables=tables)], len(ids))

    loaded.execute(step(TOKENS[:-1], 0))
    found = []
    for token in tokens:
        inputs = pack_step(step([token], len(TOKENS) - 2), 8).inputs
        rows = inputs.top_rows
        found.append(
            head.run(replace(inputs, logit_rows=rows, top_rows=rows[:0], top_counts=rows[:0])).logits[0].copy()
        )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("way", ["preempted", "int8"])
def test_served_with_an_assistant(way: str, eager: None, tmp_path: Path) -> None:
    """It has no cache to catch up with, blocks of windows are let go meanwhile, and its table is its own."""
    config, settings = gemma4_config(sliding_window=9), dict(WAYS[way])
    if "num_gpu_blocks_override" in settings:
        settings["num_gpu_blocks_override"] = 16
    directory = make_checkpoint(tmp_path / "model", config, seed=3, dtype="bfloat16")
    where, _ = gemma4_assistant(tmp_path / "head", config, 1)
    same = {key: value for key, value in settings.items() if key == "quantization"}
    plain = Server.load(directory, enable_prefix_caching=False, **same).alone(requests())
    asked = {"method": "mtp", "model": str(where), "num_speculative_tokens": 4, "draft_vocab_size": 64}
    server = Server.load(directory, **settings, speculative_config=asked)
    got, stats = server.serve(requests(), stagger=2)
    assert_same_answers(got, plain)
    assert stats.num_draft_tokens > stats.num_accepted_tokens > 0
    assert ("num_gpu_blocks_override" in settings) == (stats.num_preemptions > 0)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts wherever there is room for one."""
    give_freely(monkeypatch)
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Eager)


WAYS: dict[str, dict[str, Any]] = {
    "one thread": {},
    "no prefix cache": {"enable_prefix_caching": False},
    "preempted": {"num_gpu_blocks_override": 14, "block_size": 8, "max_num_batched_tokens": 40},
    "two threads, short steps": {"num_threads": 2, "max_num_batched_tokens": 16},
    "int8": {"quantization": "int8"},
}


@pytest.fixture(scope="module")
def plain_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str | None], tuple[Path, list[Answer]]]:
    """(kind, "random" or "knowing", quantization) -> a model whose layers that guess are so, and what it answers."""

    @functools.cache
    def checkpoint(kind: str, name: str) -> Path:
        config = config_with_mtp(kind)
        weights = mtp_weights(config, 5)
        weights = markov(weights, config) if name == "knowing" else weights
        return make_checkpoint(tmp_path_factory.mktemp(name), config, dtype="bfloat16", weights=weights)

    @functools.cache
    def answers(kind: str, name: str, quantization: str | None) -> tuple[Path, list[Answer]]:
        directory = checkpoint(kind, name)
        server = Server.load(directory, enable_prefix_caching=False, quantization=quantization)
        return directory, server.alone(requests())

    return answers


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        pytest.param(kind, way, marks=() if way == "preempted" or (i + j) % 2 else pytest.mark.thorough)
        for i, kind in enumerate(("mimo", "qwen3_5_text"))
        for j, way in enumerate(WAYS)
    ],
)
def test_served_as_without_drafts(kind: str, way: str, eager: None, plain_of: Callable[..., Any]) -> None:
    """By a layer that knows the model, whose drafts come true, and by a random one; with states and without."""
    settings = WAYS[way]
    for name in ("random", "knowing"):
        directory, plain = plain_of(kind, name, settings.get("quantization"))
        asked = {"method": "mtp", "num_speculative_tokens": 4}
        got, stats = Server.load(directory, **settings, speculative_config=asked).serve(requests(), stagger=2)
        assert_same_answers(got, plain)
        assert ("num_gpu_blocks_override" in settings) == (stats.num_preemptions > 0)
        assert (name == "knowing") == (stats.num_accepted_tokens > 0.8 * stats.num_draft_tokens > 0)


def test_ranks_are_guessed_for_as_one_is(eager: None, tmp_path: Path) -> None:
    """By the checkpoint's layer, whole with the model's head; by EAGLE's, of three hidden states, for a directory."""
    config = config_with_mtp("mimo") | {key: WIDE[key] for key in ("hidden_size", "head_dim", "intermediate_size")}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 4}
    weights = mtp_weights(config, 5)
    directory = make_checkpoint(tmp_path / "model", config, dtype="bfloat16", weights=markov(weights, config))
    plain = Server.load(directory, tp_invariant=True, enable_prefix_caching=False).alone(requests())
    asked = {"method": "mtp", "num_speculative_tokens": 4}
    for size, ranks in ((1, {"tp_invariant": True}), (4, {"tensor_parallel_size": 4, "num_threads": 4})):
        got, stats = Server.load(directory, **ranks, speculative_config=asked).serve(requests(), stagger=2)
        assert_same_answers(got, plain)
        assert stats.num_accepted_tokens > 0.8 * stats.num_draft_tokens > 0, size
    deep = make_checkpoint(tmp_path / "deep", wide_config("llama", num_hidden_layers=7), seed=5, dtype="bfloat16")
    head, _ = eagle3_head(tmp_path / "head", wide_config("llama", num_hidden_layers=7), 3, draft_vocab_size=60)
    plain = Server.load(deep, tp_invariant=True).alone(requests()[:6])
    build(deep, tmp_path / "built", BuildConfig(tensor_parallel_size=2))
    asked = {"method": "eagle3", "model": str(head)}
    got, stats = Server.load(tmp_path / "built", num_threads=2, speculative_config=asked).serve(
        requests()[:6], stagger=2
    )
    assert_same_answers(got, plain)
    assert stats.num_draft_tokens > 0


def test_eagle_heads_serve_any_model(eager: None, tmp_path: Path) -> None:
    """Of block groups, with a head that has ids of its own; and of an engine directory."""
    config = dict(load_architecture("gpt_oss").tiny) | {"num_hidden_layers": 7}
    config["layer_types"] = ["sliding_attention", "full_attention"] * 3 + ["sliding_attention"]
    directory = make_checkpoint(tmp_path / "model", config, seed=5, dtype="bfloat16")
    head, _ = eagle3_head(tmp_path / "head", config, 3, draft_vocab_size=60)
    plain = Server.load(directory, enable_prefix_caching=False).alone(requests()[:8])
    asked = {"method": "eagle3", "model": str(head)}
    got, stats = Server.load(directory, speculative_config=asked).serve(requests()[:8], stagger=2)
    assert_same_answers(got, plain)
    assert stats.num_draft_tokens > stats.num_accepted_tokens > 0
    build(directory, tmp_path / "built", BuildConfig(quantization="int8"))
    plain = Server.load(tmp_path / "built").alone(requests()[:4])
    got, stats = Server.load(tmp_path / "built", speculative_config=asked).serve(requests()[:4], stagger=2)
    assert_same_answers(got, plain)
    assert stats.num_draft_tokens > 0


@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_a_head_takes_what_is_the_models_from_it(is_tied: bool, quantization: str | None, tmp_path: Path) -> None:
    """Tables of tokens are in memory once; one that is multiplied is its own where it is asked for in other bits."""
    config = config_with_mtp("qwen3_5_text") | {"tie_word_embeddings": is_tied}
    directory = make_checkpoint(tmp_path / "model", config, weights=mtp_weights(config, 5), dtype="bfloat16")
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    all_of_it = (table,) if is_tied else (table, head)
    none_multiplied = () if is_tied else (table,)
    ways: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"method": "mtp"}, all_of_it),
        ({"method": "mtp", "quantization": "int8"}, all_of_it if quantization else none_multiplied),
        ({"method": "mtp", "draft_vocab_size": 64}, (table,)),
    ]

    def planned(asked: dict[str, Any] | None) -> Any:
        settings = EngineConfig(
            model=str(directory), device="cpu", max_num_seqs=8, quantization=quantization, speculative_config=asked
        )
        source = open_source(directory, settings)
        return _plan_all(source.adopt(settings), source, open_device(settings))

    _, plain, nobody, *_ = planned(None)
    assert nobody is None
    for asked, borrowed in ways:
        _, memory, drafter, *_ = planned(asked)
        assert isinstance(drafter, HeadDrafter) and drafter.borrowed == borrowed
        assert memory.kv_bytes > plain.kv_bytes and memory.weight_bytes > plain.weight_bytes


@pytest.mark.parametrize(("kind", "settings"), [("mimo", {}), ("qwen3_5_text", {"quantization": "int8"})])
def test_guesses_among_few_tokens(
    kind: str, settings: dict[str, Any], eager: None, plain_of: Callable[..., Any]
) -> None:
    """What was said gets a row; and logits of rows that were put there are the model's own of these tokens."""
    directory, plain = plain_of(kind, "knowing", settings.get("quantization"))
    asked = {"method": "mtp", "draft_vocab_size": 60}
    server = Server.load(directory, speculative_config=asked, **settings)
    got, stats = server.serve(requests(), stagger=2)
    assert_same_answers(got, plain)
    assert 0.5 * stats.num_draft_tokens < stats.num_accepted_tokens < stats.num_draft_tokens
    assert server.loaded.method is not None
    head = server.loaded.method.execute.__self__._model  # type: ignore[union-attr]
    ids = head._token_ids.of_row
    assert len(ids) == 64 == len(set(ids.tolist())) and max(ids) > 64
    whole = opened_head(directory, {"method": "mtp", "draft_vocab_size": 0}, settings)
    inputs = pack_step(plan(TOKENS), 8, num_ahead=1).inputs
    inputs = replace(inputs, logit_rows=inputs.top_rows, top_rows=inputs.top_rows[:0], top_counts=inputs.top_counts[:0])
    found = []
    for each in (head, whole):
        each._states._flat[:] = 0
        found.append(each.run(inputs).logits.copy())
    has_row = np.isfinite(found[0][0])
    assert has_row.sum() == 64 and np.array_equal(found[0][0, has_row], found[1][0, has_row])


@pytest.mark.parametrize(
    ("name", "kind", "place", "published"),
    [
        ("qwen3_5", "qwen3_5_text", "mtp.", "mtp."),
        ("glm_ocr", "glm4", "model.layers.3.", "model.language_model.layers.3."),
    ],
)
def test_pictures_in_prompts_change_nothing(
    name: str, kind: str, place: str, published: str, eager: None, tmp_path: Path
) -> None:
    directory = save(tmp_path, name)
    config = json.loads((directory / "config.json").read_text())
    text = {**config["text_config"], "model_type": kind, "attention_bias": False}
    rope = text.pop("rope_parameters") if kind == "glm4" else {}
    text |= {key: value for key, value in rope.items() if key == "rope_theta"}
    layer = {
        published + tensor.removeprefix(place): each
        for tensor, each in mtp_weights(text, 5).items()
        if tensor.startswith(place)
    }
    path = directory / "model.safetensors"
    save_file({**load_file(path), **layer}, path)
    config["text_config"] |= {"num_nextn_predict_layers": 1} if kind == "glm4" else {}
    (directory / "config.json").write_text(json.dumps(config))
    parts = [{"type": "image", "image": picture(50, 30)}, {"type": "text", "text": "What is it?"}]
    found = []
    for asked in (None, {"method": "mtp"}):
        llm = LLM(str(directory), dtype="float32", num_threads=1, speculative_config=asked)
        params = [SamplingParams(temperature=t, seed=1, max_tokens=16, ignore_eos=True, logprobs=1) for t in (0, 1)]
        outputs = llm.chat([[{"role": "user", "content": parts}]] * 2, params, use_tqdm=False)
        found.append([(output.outputs[0].token_ids, output.outputs[0].cumulative_logprob) for output in outputs])
        assert (llm.stats().num_draft_tokens > 0) == (asked is not None)
    assert found[0] == found[1]


def opened_head(directory: Path, asked: dict[str, Any], settings: dict[str, Any]) -> HeadModel:
    server = Server.load(directory, speculative_config=asked, **settings)
    assert server.loaded.method is not None
    model: HeadModel = server.loaded.method.execute.__self__._model  # type: ignore[union-attr]
    return model


def test_what_is_refused(tmp_path: Path) -> None:
    llama = dict(load_architecture("llama").tiny)
    plain = make_checkpoint(tmp_path / "llama", llama)
    deep = make_checkpoint(tmp_path / "deep", llama | {"num_hidden_layers": 7})
    mimo = config_with_mtp("mimo")
    without = make_checkpoint(tmp_path / "without", mimo)
    head, _ = eagle3_head(tmp_path / "head", llama | {"hidden_size": 96}, 3)
    first, _ = eagle_head(tmp_path / "first", llama, 3)
    bad, _ = eagle3_head(tmp_path / "bad", llama, 3, draft_vocab_size=40, eagle_aux_hidden_state_layer_ids=[1, 2, 9])
    helping, _ = gemma4_assistant(tmp_path / "helping", gemma4_config(), 1)
    other = make_checkpoint(tmp_path / "other", gemma4_config(num_key_value_heads=4))
    fitting, _ = gemma4_assistant(tmp_path / "fitting", gemma4_config(num_key_value_heads=4), 1)
    build(without, tmp_path / "built")
    none, empty = tmp_path / "none", tmp_path / "empty"
    empty.mkdir()
    few, tensors = eagle3_head(tmp_path / "few", llama, 3, draft_vocab_size=40)
    lost, far = (Path(shutil.copytree(few, tmp_path / name)) for name in ("lost", "far"))
    save_file(tensors, lost / "model.safetensors")
    save_file({**tensors, "d2t": np.full(40, 100)}, far / "model.safetensors")
    cases: list[tuple[Path, dict[str, Any], type[EngineError], str]] = [
        (deep, {"method": "eagle3", "model": str(lost)}, ModelError, "no tensor d2t that says which those are"),
        (deep, {"method": "eagle3", "model": str(far)}, ModelError, "leads to ids 100 to 139, .* has 131 tokens"),
        (plain, {"method": "mtp"}, ConfigError, "llama has no layers that guess; models of deepseek_v3, .* may, and"),
        (without, {"method": "mtp"}, ConfigError, "without has no layers that guess; checkpoints that were trained"),
        (
            tmp_path / "built",
            {"method": "mtp"},
            ConfigError,
            "is an engine directory, which keeps no layers that guess",
        ),
        (plain, {"method": "eagle3", "model": str(head)}, ConfigError, "for a model of width 96; this one has 48"),
        (
            plain,
            {"method": "eagle3", "model": str(none)},
            ConfigError,
            "speculative_config.model: there is",
        ),
        (
            plain,
            {"method": "eagle3", "model": str(tmp_path / "empty")},
            ModelError,
            "speculative_config: .*config.json",
        ),
        (
            plain,
            {"method": "eagle3", "model": str(bad)},
            ConfigError,
            r"what layers \[1, 2, 9\] are given, .* 3 layers",
        ),
        (deep, {"method": "eagle3", "model": str(first)}, ModelError, "speculative_config: .*first: .*state_norm"),
        (
            plain,
            {"method": "mtp", "model": str(helping)},
            ConfigError,
            "assistant of a gemma4 of width 48; this",
        ),
        (
            other,
            {"method": "mtp", "model": str(helping)},
            ConfigError,
            "2 heads of 16, which no layer with a window",
        ),
        (plain, {"model": str(helping)}, ConfigError, 'not a model; say which: "method": "mtp"'),
        (plain, {"model": str(head)}, ConfigError, 'is a head that drafts, not a model; say which: "method": "eagle3"'),
        (plain, {"model": str(first)}, ConfigError, 'not a model; say which: "method": "eagle"$'),
    ]
    for directory, asked, kind, message in cases:
        with pytest.raises(kind, match=message):
            Server.load(directory, speculative_config=asked)
    with pytest.raises(ConfigError, match="reads the model's KV cache, of which each of 2 ranks has a part"):
        Server.load(other, speculative_config={"method": "mtp", "model": str(fitting)}, tensor_parallel_size=2)


def assert_near(got: tuple[F32, F32], wanted: tuple[Any, Any]) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * np.abs(b).max())
