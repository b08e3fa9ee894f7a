"""plan_model: parts that add up, what fits, and speeds that follow the workload; without any weight."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from albireo.api.build import build
from albireo.api.load import plan
from albireo.api.machine import devices
from albireo.api.machine.cuda_device import ABSENT_GPU_BYTES, AbsentGpu
from albireo.api.programs import compile_program
from albireo.api.sources.locate import BUNDLED
from albireo.api.sources.source import open_source
from albireo.bench import plan as plan_module
from albireo.bench.plan import SPEED_FIGURES, PlanWorkload, plan_model
from albireo.bench.plan_report import plan_lines
from albireo.bench.roofline import Limits
from albireo.config import BuildConfig, EngineConfig
from albireo.errors import ConfigError, ModelError, OutOfMemory
from albireo.models import build_graph, load_config
from tiny_models import make_checkpoint

PARTS = ("weight_bytes", "adapter_bytes", "kv_bytes", "activation_bytes", "overhead_bytes")
LLAMA = Path(__file__).parents[2] / "../shared/data/configs/original/meta-llama"
GIB = 1 << 30
DEFAULT = EngineConfig()


class FixedProbe:
    """A machine with 100 GB/s and 1 Tflop/s, so that predictions can be compared."""

    read_bytes, num_threads = 1 << 20, 2

    def __init__(self, num_threads, dtype, read_bytes):
        pass

    def measure(self):
        return Limits(1e11, 1e12)


@pytest.fixture(autouse=True)
def fixed_machine(monkeypatch):
    monkeypatch.setattr(plan_module, "LimitProbe", FixedProbe)


def bundled(memory=None, config=DEFAULT, **workload):
    return plan_model(config, PlanWorkload(**workload), memory)


def expected(figures, batch, name):
    return figures[batch][name]["expected"]


def config_only(tmp_path, **changes):
    """The bundled model's config.json alone; a key set to None is left out."""
    data = json.loads((BUNDLED / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return str(tmp_path)


def test_the_parts_add_up():
    memory = bundled(2 * GIB, concurrency=3, input_len=20, output_len=15)["memory"]
    assert sum(memory[name] for name in PARTS) == memory["needed_bytes"]
    assert memory["needed_bytes"] + memory["free_bytes"] == memory["budget_bytes"] == 2 * GIB
    assert memory["kv_bytes"] == (1 + 3 * 3) * 16 * memory["kv_bytes_per_token"]  # 35 tokens in blocks of 16


def test_every_figure_has_bars_round_it():
    found = bundled(concurrency=4, input_len=8, output_len=4)
    for batch in ("one_request", "all_requests"):
        for name, bars in found[batch].items():
            if name != "num_requests":
                assert 0 < bars["low"] < bars["expected"] < bars["high"], name
    assert (found["one_request"]["num_requests"], found["all_requests"]["num_requests"]) == (1, 4)
    assert found["limits"]["read_bytes_per_s"]["min"] > 0


def test_a_speed_is_tokens_over_time(fixed_machine):
    found = bundled(concurrency=4, input_len=8, output_len=5)
    for batch, requests in (("one_request", 1), ("all_requests", 4)):
        elapsed = expected(found, batch, "elapsed_s")
        assert expected(found, batch, "output_tokens_per_s") == pytest.approx(requests * 5 / elapsed)
        assert expected(found, batch, "total_tokens_per_s") == pytest.approx(requests * 13 / elapsed)
        step = expected(found, batch, "decode_step_s")
        assert expected(found, batch, "decode_tokens_per_s") == pytest.approx(requests / step)
    prompt, step = (expected(found, "one_request", name) for name in ("first_token_s", "decode_step_s"))
    assert expected(found, "one_request", "elapsed_s") == pytest.approx(prompt + 4 * step, rel=1e-2)


def test_more_to_do_takes_longer(fixed_machine):
    short = bundled(concurrency=2, input_len=16, output_len=16)
    long = bundled(concurrency=2, input_len=64, output_len=16)
    many = bundled(concurrency=32, input_len=16, output_len=16)
    drawn, greedy = (bundled(concurrency=2, input_len=16, output_len=16, temperature=t) for t in (1.0, 0.0))
    assert expected(short, "one_request", "first_token_s") < expected(long, "one_request", "first_token_s")
    assert expected(short, "all_requests", "decode_step_s") < expected(long, "all_requests", "decode_step_s")
    assert expected(short, "all_requests", "elapsed_s") < expected(many, "all_requests", "elapsed_s")
    assert expected(short, "all_requests", "total_tokens_per_s") < expected(many, "all_requests", "total_tokens_per_s")
    assert expected(greedy, "all_requests", "decode_step_s") < expected(drawn, "all_requests", "decode_step_s")
    assert short["memory"]["needed_bytes"] < long["memory"]["needed_bytes"] < many["memory"]["needed_bytes"]


def test_more_memory_fits_more():
    small, large = (bundled(mib << 20, input_len=100, output_len=28)["memory"] for mib in (330, 400))
    assert small["requests_at_once"] < large["requests_at_once"]
    assert small["longest_context"] <= large["longest_context"] == 512


def test_concurrency_follows_memory_when_nobody_says():
    tight = bundled(320 << 20, input_len=100, output_len=156)
    assert 1 <= tight["workload"]["concurrency"] == tight["memory"]["requests_at_once"] < 16
    assert bundled(GIB)["workload"]["concurrency"] == 16
    assert bundled(GIB, EngineConfig(max_num_seqs=3))["workload"]["concurrency"] == 3


def test_what_is_said_to_fit_fits_and_one_more_does_not():
    tight = bundled(320 << 20, input_len=100, output_len=156)["memory"]["requests_at_once"]
    bundled(320 << 20, concurrency=tight, input_len=100, output_len=156)
    with pytest.raises(OutOfMemory, match=f"{tight + 1} requests of 256 tokens need .* 0.31 GiB are allowed"):
        bundled(320 << 20, concurrency=tight + 1, input_len=100, output_len=156)


@pytest.mark.parametrize(
    ("memory", "config", "said"),
    [
        (100 << 20, {}, "256 tokens need 0.3. GiB .*; 0.10 GiB are allowed.*nothing fits"),
        (None, {"num_gpu_blocks_override": 4}, "a context of 48 tokens fits"),
        (318 << 20, {"max_model_len": 512, "block_size": 32, "num_gpu_blocks_override": 12}, "512 tokens need"),
    ],
)
def test_too_little_memory(memory, config, said):
    with pytest.raises(OutOfMemory, match=said):
        bundled(memory, EngineConfig(**config))


@pytest.mark.parametrize(
    ("config", "workload", "said"),
    [
        ({}, {"input_len": 500}, "make 628 tokens, the context is 512"),
        ({"max_model_len": 100}, {}, "the context is 100"),
        ({"max_model_len": 1000}, {}, "max_position_embeddings=512"),
        ({}, {"concurrency": 65}, "max_num_seqs=64"),
    ],
)
def test_impossible(config, workload, said):
    with pytest.raises(ConfigError, match=said):
        bundled(None, EngineConfig(**config), **workload)


@pytest.mark.parametrize("name", ["concurrency", "input_len", "output_len"])
def test_at_least_one(name):
    with pytest.raises(ConfigError, match=f"{name}=0"):
        PlanWorkload(**{name: 0})


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_config_json_is_enough(tmp_path, quantization):
    models = (None, config_only(tmp_path))
    whole, alone = (plan_model(EngineConfig(model=m, quantization=quantization), PlanWorkload()) for m in models)
    assert alone["memory"] == whole["memory"]
    assert alone["dtype"] == whole["dtype"]


def test_what_config_json_says_of_quantized_weights_is_counted(tmp_path):
    """As if it were asked for of the original, but for the head, which such checkpoints leave as it is."""
    directory = config_only(
        tmp_path, quantization_config={"quant_method": "fp8", "modules_to_not_convert": ["lm_head"]}
    )
    found = plan_model(EngineConfig(model=directory), PlanWorkload())
    asked = plan_model(EngineConfig(quantization="fp8", quantization_head="bf16"), PlanWorkload())
    assert found["memory"] == asked["memory"]
    assert plan_model(EngineConfig(model=directory, quantization="fp8"), PlanWorkload())["memory"] == found["memory"]
    with pytest.raises(ConfigError, match="quantization=int8: this checkpoint is quantized already"):
        plan_model(EngineConfig(model=directory, quantization="int8"), PlanWorkload())


def test_an_engine_directory_is_planned_as_its_model(tmp_path):
    build(None, tmp_path / "engine", BuildConfig())
    built = plan_model(EngineConfig(model=str(tmp_path / "engine")), PlanWorkload())
    assert built["memory"] == plan_model(EngineConfig(), PlanWorkload())["memory"]


def test_a_dtype_nobody_names_is_bfloat16(tmp_path):
    directory = config_only(tmp_path, dtype=None, torch_dtype=None)
    assert plan_model(EngineConfig(model=directory), PlanWorkload())["dtype"] == "bfloat16"
    wide = plan_model(EngineConfig(model=directory, dtype="float32"), PlanWorkload())
    assert wide["dtype"] == "float32"


def test_a_dtype_nobody_names_is_the_weights_when_there_are_some(tmp_path):
    directory = make_checkpoint(tmp_path / "model", {**_tiny(), "max_position_embeddings": 512})
    assert plan_model(EngineConfig(model=str(directory)), PlanWorkload())["dtype"] == "float32"


@pytest.fixture
def absent_gpu(monkeypatch):
    monkeypatch.setattr(devices, "_has_gpu", lambda: False)


def test_of_a_gpu_memory_is_counted_and_no_speed_predicted(absent_gpu):
    """Its kernels' constants, its KV blocks, its memory; the processor's limits say nothing of it."""
    found = bundled(None, EngineConfig(device="cuda"), concurrency=2, input_len=8, output_len=4)
    assert all(found[name] is None for name in SPEED_FIGURES)
    assert found["memory"]["budget_bytes"] == int(0.9 * ABSENT_GPU_BYTES)
    config = EngineConfig(device="cuda", max_model_len=512)
    program, memory = plan(config, open_source(BUNDLED, config), AbsentGpu())
    assert found["memory"]["weight_bytes"] == program.weight_bytes
    assert found["memory"]["activation_bytes"] == program.arena_bytes
    assert found["memory"]["kv_bytes"] * memory.num_blocks == 3 * memory.kv_bytes
    assert (found["settings"]["device"], found["settings"]["max_num_seqs"]) == ("cuda", 256)
    shown = plan_lines(found)
    assert shown[-1] == "predicted     nothing: the cost model knows a processor's kernels, not a GPU's"
    assert "memory        72.00 GiB allowed of a GPU" in shown
    assert not any("tok/s" in line for line in shown)


def test_no_config(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        plan_model(EngineConfig(model=str(tmp_path)), PlanWorkload())


def test_a_model_larger_than_this_machine(monkeypatch):
    # so many products a second that reading alone counts, in tile registers too
    monkeypatch.setattr(FixedProbe, "measure", lambda self: Limits(1e11, 1e14))
    directory = LLAMA / "Meta-Llama-3.1-405B"
    if not directory.is_dir():
        pytest.skip("the configurations of published models are not here")
    found = plan_model(EngineConfig(model=str(directory)), PlanWorkload(concurrency=2), 1024 * GIB)
    # 405.85 billion parameters of 2 bytes; the table of rotations comes on top.
    assert found["memory"]["weight_bytes"] == pytest.approx(2 * 405.85e9, rel=1e-3)
    assert found["memory"]["kv_bytes_per_token"] == 2 * 126 * 8 * 128 * 2
    assert found["memory"]["longest_context"] == 131072
    # A step reads all of it but the embedding, at 0.92 of 100 GB/s.
    step = expected(found, "one_request", "decode_step_s")
    assert step == pytest.approx((2 * 405.85e9 - 2 * 128256 * 16384) / 0.92e11, rel=0.02)


def test_the_probe_reads_what_a_step_reads(monkeypatch):
    asked = []

    class Probe(FixedProbe):
        def __init__(self, num_threads, dtype, read_bytes):
            asked.append((num_threads, dtype, read_bytes))

    monkeypatch.setattr(plan_module, "LimitProbe", Probe)
    found = bundled(None, EngineConfig(num_threads=1))
    model_config = load_config(BUNDLED)
    program = compile_program(build_graph(model_config, 512), EngineConfig(), 512)
    ((num_threads, dtype, read_bytes),) = asked
    assert (num_threads, dtype) == (1, "bfloat16")
    assert 0.5 * program.weight_bytes < read_bytes < program.weight_bytes
    assert found["limits"]["read_bytes_per_s"]["median"] == 1e11


def test_lines(fixed_machine):
    found = bundled(GIB, concurrency=2, input_len=8, output_len=4)
    shown = "\n".join(plan_lines(found))
    assert "2 requests at once, 8 prompt and 4 output tokens each, drawn at temperature 1" in shown
    assert "1.00 GiB allowed" in shown
    assert "one context of 512 tokens" in shown
    assert "one request   first token" in shown
    assert "2 at once     first token" in shown
    assert "read 100.0 GB/s, dot 1000 Gflop/s, 2 threads" in shown
    single = "\n".join(plan_lines(bundled(GIB, concurrency=1, input_len=8, output_len=1, temperature=0.0)))
    assert "1 request at once" in single
    assert "greedy" in single
    assert "2 at once" not in single


def _tiny():
    from albireo.models import load_architecture

    tiny = dict(load_architecture("llama").tiny)
    return {key: value for key, value in tiny.items() if key not in ("dtype", "torch_dtype")}


def test_what_reads_pictures_is_counted_and_predicted(tmp_path):
    tiny_sights = pytest.importorskip("tiny_sights")
    folder = str(tiny_sights.save(tmp_path, "idefics3"))
    config = EngineConfig(model=folder, dtype="float32")
    figures, bare = (
        plan_model(each, PlanWorkload()) for each in (config, replace(config, limit_mm_per_prompt={"image": 0}))
    )
    images = figures["images"]
    assert (images["tiles"], images["tokens"], images["patches"]) == (10, 40, 160)
    assert images["first_token_s"]["low"] < images["first_token_s"]["expected"] < images["first_token_s"]["high"]
    memory = figures["memory"]
    assert memory["needed_bytes"] - bare["memory"]["needed_bytes"] == memory["vision_bytes"] > 0
    assert bare["memory"]["vision_bytes"] == 0 and bare["images"]["problem"].startswith("limit_mm_per_prompt")
    text = "\n".join(plan_lines(figures))
    assert "of 1,024 x 768 pixels: 40 tokens, 10 tiles, first token in" in text and "the part that reads them" in text
    short = plan_model(replace(config, max_model_len=32), PlanWorkload(input_len=8, output_len=8))
    assert short["images"]["first_token_s"] is None, "the prompt of a picture is longer"
    assert "40 tokens, 10 tiles\n" in "\n".join(plan_lines(short))
    assert "images        not read: limit_mm_per_prompt" in "\n".join(plan_lines(bare))
    assert "images" not in "\n".join(plan_lines(plan_model(DEFAULT, PlanWorkload())))


@pytest.mark.parametrize(("most", "tokens"), [(6, 4), (70, 63), (280, 266)])
def test_a_budget_of_rows_is_what_a_picture_takes(tmp_path, most, tokens):
    tiny_sights = pytest.importorskip("tiny_sights")
    path = tiny_sights.save(tmp_path, "gemma4") / "processor_config.json"
    data, config = json.loads(path.read_text()), json.loads((tmp_path / "config.json").read_text())
    data["image_processor"]["max_soft_tokens"] = most
    path.write_text(json.dumps(data))
    config["vision_config"]["position_embedding_size"] = 2 * most
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in tmp_path.glob("*.safetensors"):
        name.unlink()
    images = plan_model(EngineConfig(model=str(tmp_path), dtype="float32"), PlanWorkload())["images"]
    assert (images["tiles"], images["tokens"], images["patches"]) == (1, tokens, 4 * tokens)
