"""What plan says of drafts is what is then loaded, byte for byte, and refused as loading refuses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from albireo import BuildConfig, build
from albireo.api.load import Loaded, load
from albireo.api.machine import devices
from albireo.api.sources.locate import BUNDLED
from albireo.backends.cpu.model import CpuModel
from albireo.bench import plan as plan_module
from albireo.bench.limits import Probe
from albireo.bench.plan import PlanWorkload, plan_model
from albireo.bench.plan_report import plan_lines
from albireo.bench.roofline import Limits
from albireo.config import EngineConfig
from albireo.errors import ConfigError, EngineError
from albireo.execution.draft_head import HeadModel
from albireo.execution.runner import Runner
from albireo.models import load_architecture
from compiler.ranks import wide_config
from tiny_heads import config_with_mtp, eagle3_head, eagle_head, gemma4_assistant, mtp_weights
from tiny_models import make_checkpoint

LLAMA = dict(load_architecture("llama").tiny)
DEEP = LLAMA | {"num_hidden_layers": 7}
WIDE = wide_config("qwen2", num_key_value_heads=8)
SHORT = PlanWorkload(concurrency=2, input_len=8, output_len=4)
Asked = dict[str, Any]


class FixedProbe:
    """A machine with 100 GB/s and 1 Tflop/s, so that nothing depends on this one."""

    gpu, read_bytes, num_threads = None, 1 << 20, 1

    def __init__(self, num_threads: int | None, dtype: str, read_bytes: int) -> None:
        pass

    def measure(self) -> Limits:
        return Limits(1e11, 1e12)


@pytest.fixture(autouse=True)
def fixed_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    probe: type[Probe] = FixedProbe
    monkeypatch.setattr(plan_module, "LimitProbe", probe)


def settings(directory: Path, asked: Asked | None, **more: Any) -> EngineConfig:
    return EngineConfig(
        model=str(directory),
        device="cpu",
        max_num_seqs=4,
        num_threads=1,
        skip_tokenizer_init=True,
        speculative_config=asked,
        **more,
    )


def lookup(path: Path) -> tuple[Path, Asked]:
    return make_checkpoint(path / "model", LLAMA), {"method": "ngram"}


def itself(path: Path) -> tuple[Path, Asked]:
    return make_checkpoint(path / "model", WIDE, dtype="bfloat16"), {"method": "draft_model", "quantization": "int8"}


def another(path: Path) -> tuple[Path, Asked]:
    tiny = LLAMA | {"vocab_size": WIDE["vocab_size"], "max_position_embeddings": 48}
    other = make_checkpoint(path / "other", tiny, seed=9)
    return make_checkpoint(path / "model", WIDE, dtype="bfloat16"), {"model": str(other)}


def mtp(path: Path, **more: Any) -> tuple[Path, Asked]:
    config = config_with_mtp("qwen3_5_text")
    model = make_checkpoint(path / "model", config, weights=mtp_weights(config, 5), dtype="bfloat16")
    return model, {"method": "mtp", **more}


def mtp_in_8_bits(path: Path) -> tuple[Path, Asked]:
    return mtp(path, quantization="int8", draft_vocab_size=64)


def eagle(path: Path) -> tuple[Path, Asked]:
    head, _ = eagle_head(path / "head", LLAMA, 3)
    return make_checkpoint(path / "model", LLAMA), {"method": "eagle", "model": str(head)}


def eagle3(path: Path) -> tuple[Path, Asked]:
    head, _ = eagle3_head(path / "head", DEEP, 3, draft_vocab_size=40)
    return make_checkpoint(path / "model", DEEP), {"method": "eagle3", "model": str(head)}


def assistant(path: Path) -> tuple[Path, Asked]:
    config = dict(load_architecture("gemma4_text").tiny) | {"num_hidden_layers": 6}
    config["layer_types"] = ["sliding_attention", "full_attention"] * 3
    head, _ = gemma4_assistant(path / "head", config, 1)
    return make_checkpoint(path / "model", config, seed=3), {"method": "mtp", "model": str(head)}


WAYS: dict[str, Callable[[Path], tuple[Path, Asked]]] = {
    way.__name__: way for way in (lookup, itself, another, mtp, mtp_in_8_bits, eagle, eagle3, assistant)
}


def models_of(loaded: Loaded) -> tuple[list[CpuModel], int]:
    """What is in memory: of the model first; and the bytes of hidden states."""
    found, states = [loaded.one_rank], 0
    if loaded.method is None:
        return found, states
    runner = getattr(loaded.method.execute, "__self__", None)
    assert isinstance(runner, Runner)
    guessing = runner._model
    if isinstance(guessing, HeadModel):
        states = guessing._states._rows.nbytes
        combine = guessing._states._combine
        found += [combine] if isinstance(combine, CpuModel) else []
        guessing = guessing._model
    assert isinstance(guessing, CpuModel)
    return [*found, guessing], states


@pytest.mark.parametrize("way", WAYS)
def test_bytes_are_those_that_are_loaded(way: str, tmp_path: Path) -> None:
    """In the loader's books, and in memory."""
    directory, asked = WAYS[way](tmp_path)
    config = settings(directory, asked)
    found = plan_model(config, SHORT)
    memory, drafts = found["memory"], found["speculative"]
    loaded = load(config)
    books = loaded.memory
    assert memory["weight_bytes"] + memory["drafter_bytes"] == books.weight_bytes
    assert memory["activation_bytes"] == books.arena_bytes
    groups = len(books.windows)
    assert memory["kv_bytes_per_token"] * config.block_size * books.num_blocks == groups * books.kv_bytes
    models, states = models_of(loaded)
    caches = {id(model._kv): model._kv.memory.num_bytes for model in models}
    guessing = models[1:]
    # a memory of no bytes has one
    weights = sum(model._weights.num_bytes for model in guessing)
    arenas = sum(model._arena.num_bytes for model in guessing)
    assert drafts["weight_bytes"] == memory["drafter_bytes"] == pytest.approx(weights, abs=len(guessing))
    assert drafts["activation_bytes"] == pytest.approx(arenas, abs=len(guessing))
    own = sum(caches.values()) - models[0]._kv.memory.num_bytes + states
    assert drafts["kv_bytes_per_block"] * books.num_blocks == pytest.approx(own, abs=len(guessing))
    assert (own > 0, weights > 0) == ((False, False) if way == "lookup" else (True, True))


@pytest.mark.parametrize("way", WAYS)
def test_the_parts_add_up_and_more_is_needed_than_without(way: str, tmp_path: Path) -> None:
    directory, asked = WAYS[way](tmp_path)
    with_drafts, without = (plan_model(settings(directory, each), SHORT)["memory"] for each in (asked, None))
    parts = ("weight", "drafter", "adapter", "state", "vision", "kv", "activation", "overhead")
    assert sum(with_drafts[f"{part}_bytes"] for part in parts) == with_drafts["needed_bytes"]
    assert without["drafter_bytes"] == 0
    added = with_drafts["needed_bytes"] - without["needed_bytes"]
    # of lookup, room for the logits of drafts alone
    assert (added > with_drafts["drafter_bytes"]) if way != "lookup" else (with_drafts["drafter_bytes"] == 0)
    assert with_drafts["weight_bytes"] == without["weight_bytes"]


@pytest.mark.parametrize("way", WAYS)
def test_speeds_and_lines(way: str, tmp_path: Path) -> None:
    directory, asked = WAYS[way](tmp_path)
    found = plan_model(settings(directory, asked), SHORT)
    drafts = found["speculative"]
    assert drafts["method"] == asked.get("method", "draft_model")
    assert (drafts["one_request"]["num_requests"], drafts["all_requests"]["num_requests"]) == (1, 2)
    guesses = [each["guess_s"] for each in drafts["one_request"]["by_number"]]
    assert [each["num_drafts"] for each in drafts["one_request"]["by_number"]] == [1, 2, 3, 4, 5]
    if way == "lookup":
        assert len(set(guesses)) == 1 and guesses[0] < 1e-4
    else:
        assert guesses == sorted(guesses) and guesses[0] < guesses[-1]
    assert (drafts["prompt_s"] is None) == (way in ("lookup", "assistant"))
    shown = "\n".join(plan_lines(found))
    assert f"drafts        {drafts['method']}, at most 5 of a request in a step" in shown
    assert ("weights of what guesses" in shown) == (way != "lookup")
    assert shown.count("% come true: ") == 6
    assert json.loads(json.dumps(drafts)) == drafts


def test_without_drafts_nothing_is_said(tmp_path: Path) -> None:
    found = plan_model(settings(make_checkpoint(tmp_path, LLAMA), None), SHORT)
    assert found["speculative"] is None
    assert not any(line.lstrip().startswith("drafts") for line in plan_lines(found))


def test_a_step_with_few_rows_has_fewer_drafts(tmp_path: Path) -> None:
    """Rows of drafts are shared out among the sequences of a step."""
    directory, asked = lookup(tmp_path)
    config = settings(directory, {**asked, "num_speculative_tokens": 8}, max_num_batched_tokens=7)
    speeds = plan_model(config, PlanWorkload(concurrency=3, input_len=8, output_len=4))["speculative"]
    assert len(speeds["one_request"]["by_number"]) == 6
    assert len(speeds["all_requests"]["by_number"]) == 1
    full = plan_model(
        settings(directory, asked, max_num_batched_tokens=4), PlanWorkload(concurrency=4, input_len=8, output_len=4)
    )
    assert full["speculative"]["all_requests"]["by_number"] == []
    assert "4 at once     no drafts: a step has no rows for them" in plan_lines(full)


@pytest.mark.parametrize("way", ["itself", "another", "mtp", "mtp_in_8_bits", "assistant"])
def test_config_json_is_enough(way: str, tmp_path: Path) -> None:
    """Of the model, and of what guesses for it."""
    directory, asked = WAYS[way](tmp_path)
    config = settings(directory, asked, dtype="bfloat16")
    whole = plan_model(config, SHORT)
    if way == "another":  # nobody says in what it would be stored, so it is taken to be as config.json says
        path = Path(asked["model"]) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float32", "torch_dtype": "float32"}))
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    alone = plan_model(config, SHORT)
    assert alone["memory"] == whole["memory"]
    assert alone["speculative"] == whole["speculative"]
    with pytest.raises(EngineError):
        load(config)


def test_refused_as_loading_refuses_it(tmp_path: Path) -> None:
    plain = make_checkpoint(tmp_path / "llama", LLAMA)
    mimo = config_with_mtp("mimo")
    without = make_checkpoint(tmp_path / "without", mimo)
    build(without, tmp_path / "built", BuildConfig())
    states = make_checkpoint(tmp_path / "states", load_architecture("lfm2").tiny | {"vocab_size": 90})
    windows = make_checkpoint(tmp_path / "windows", load_architecture("mistral").tiny | {"sliding_window": 24})
    wide, _ = eagle3_head(tmp_path / "wide", LLAMA | {"hidden_size": 96}, 3)
    few, _ = eagle3_head(tmp_path / "few", DEEP, 3, draft_vocab_size=40)
    deep = make_checkpoint(tmp_path / "deep", DEEP)
    (few / "model.safetensors").rename(tmp_path / "kept")
    from safetensors.numpy import load_file, save_file

    save_file({k: v for k, v in load_file(tmp_path / "kept").items() if k != "d2t"}, few / "model.safetensors")
    cases: list[tuple[Path, Asked, str]] = [
        (plain, {"method": "mtp"}, "llama has no layers that guess"),
        (without, {"method": "mtp"}, "without has no layers that guess; checkpoints that were trained"),
        (tmp_path / "built", {"method": "mtp"}, "is an engine directory, which keeps no layers"),
        (plain, {"method": "eagle3", "model": str(wide)}, "for a model of width 96; this one has 48"),
        (deep, {"method": "eagle3", "model": str(few)}, "no tensor d2t that says which those are"),
        (plain, {"model": str(wide)}, "is a head that drafts, not a model"),
        (plain, {"model": str(states)}, "a draft model that keeps states"),
        (plain, {"model": str(tmp_path / "none")}, "speculative_config.model: there is no"),
        (windows, {"method": "draft_model", "quantization": "int8"}, "all layers of this model have windows"),
    ]
    for directory, asked, message in cases:
        config = settings(directory, asked)
        with pytest.raises(EngineError, match=message) as planned:
            plan_model(config, SHORT)
        with pytest.raises(EngineError) as loaded:
            load(config)
        assert (type(planned.value), str(planned.value)) == (type(loaded.value), str(loaded.value))


def test_a_draft_model_of_other_tokens_is_refused(tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", LLAMA | {"vocab_size": 512}, tokenizer=True)
    config = EngineConfig(device="cpu", max_model_len=64, speculative_config={"model": str(other)})
    short = PlanWorkload(input_len=8, output_len=4)
    with pytest.raises(ConfigError, match="a draft model must have the model's tokens") as planned:
        plan_model(config, short)
    with pytest.raises(ConfigError) as loaded:
        load(config)
    assert str(planned.value) == str(loaded.value)
    # where nobody has its tokens they are taken to be right
    (other / "tokenizer.json").unlink()
    for path in other.glob("*.safetensors"):
        path.unlink()
    assert plan_model(config, short)["memory"]["drafter_bytes"] > 0


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "mtp"])
def test_on_a_gpu_a_head_has_its_part_of_the_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights without tables that are the model's, its keys and values, and hidden states in 16 bits."""
    monkeypatch.setattr(devices, "_has_gpu", lambda: False)
    config, asked = DEEP, Asked(method=kind)
    if kind == "mtp":
        config = config_with_mtp("mimo")
        directory = make_checkpoint(tmp_path / "model", config, weights=mtp_weights(config, 5), dtype="bfloat16")
    else:
        directory = make_checkpoint(tmp_path / "model", config, seed=5, dtype="bfloat16")
        make = eagle_head if kind == "eagle" else eagle3_head
        asked |= {"model": str(make(tmp_path / "head", config, 3)[0])}
    settings = EngineConfig(model=str(directory), device="cuda", max_model_len=64, block_size=16)
    plain, beside = (plan_model(replace(settings, speculative_config=each), SHORT) for each in (None, asked))
    told, without, drafts = beside["memory"], plain["memory"], beside["speculative"]
    assert told["drafter_bytes"] == drafts["weight_bytes"] > 0 == without["drafter_bytes"]
    table = config["vocab_size"] * config["hidden_size"] * 2
    assert kind == "eagle3" or drafts["weight_bytes"] < plain["memory"]["weight_bytes"] - 2 * table
    assert drafts["kv_bytes_per_block"] > 16 * config["hidden_size"] * 2
    # a block of each request, and the null block
    assert told["kv_bytes"] - without["kv_bytes"] == drafts["kv_bytes_per_block"] * (1 + SHORT.concurrency)


def test_on_a_gpu_a_draft_model_has_its_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_has_gpu", lambda: False)
    plain, beside = (
        plan_model(EngineConfig(model=str(BUNDLED), device="cuda", speculative_config=asked), SHORT)
        for asked in (None, {"method": "draft_model", "quantization": "int8"})
    )
    told, without, drafts = beside["memory"], plain["memory"], beside["speculative"]
    assert told["drafter_bytes"] == drafts["weight_bytes"] > 0 == without["drafter_bytes"]
    assert told["activation_bytes"] > without["activation_bytes"] + drafts["activation_bytes"] // 2
    # all layers of both are alike
    assert told["kv_bytes"] == 2 * without["kv_bytes"] and told["weight_bytes"] == without["weight_bytes"]


def test_on_a_gpu_nothing_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_has_gpu", lambda: False)
    found = plan_model(EngineConfig(model=str(BUNDLED), device="cuda", speculative_config={"method": "ngram"}), SHORT)
    assert found["speculative"]["one_request"] is None
    assert plan_lines(found)[-1].startswith("predicted     nothing")
