"""build and load: an engine directory computes what its checkpoint computes, to the bit, under every setting."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albireo import BuildConfig, ConfigError, Corrupt, ModelError, TargetMismatch, build
from albireo.api.sources.locate import BUNDLED
from albireo.api.sources.source import open_source
from albireo.artifact.graph_json import graph_to_json
from albireo.backends.cpu import model as cpu_model
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.stored_weights import StoredWeights
from albireo.config import EngineConfig
from albireo.models import architectures, build_graph, load_architecture
from albireo.models.config_keys import parse_config
from artifact.engines import alter, make_engine, run
from compiler.ranks import WIDE
from in_turn import in_turn
from representatives import ALL_REPRESENTATIVES, LATENT, OF_SEVERAL_CACHES, REPRESENTATIVES
from tiny_layer_norm import with_changes
from tiny_models import MIXTURES, make_checkpoint, shared_data

DTYPES = ["float32", "bfloat16"]


@in_turn(("dtype", DTYPES), ("model_type", ALL_REPRESENTATIVES))
def test_the_same_bits_as_from_the_checkpoint(model_type: str, dtype: str, tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, model_type, dtype)
    assert run(engine) == run(checkpoint)


def test_a_head_that_config_json_implies_none_of(tmp_path: Path) -> None:
    """Weights said so, as of Mistral Small 3.1, and lie elsewhere now."""
    config = {**load_architecture("gemma").tiny, "tie_word_embeddings": False}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", config, seed=5)
    said = {key: value for key, value in config.items() if key != "tie_word_embeddings"}
    (checkpoint / "config.json").write_text(json.dumps({**said, "torch_dtype": "float32"}))
    build(checkpoint, tmp_path / "engine")
    assert not open_source(tmp_path / "engine", EngineConfig()).model_config.tie_word_embeddings
    assert run(tmp_path / "engine") == run(checkpoint)
    tied = make_engine(tmp_path / "tied", "gemma", "float32")[1]
    assert open_source(tied, EngineConfig()).model_config.tie_word_embeddings


@pytest.mark.parametrize("text", ["[]", "{", '{"temperature": "hot"}', '{"eos_token_id": "x"}'])
def test_a_recommendation_that_no_load_takes_is_refused(text: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", load_architecture("llama").tiny)
    (checkpoint / "generation_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"checkpoint/generation_config\.json: "):
        build(checkpoint, tmp_path / "engine")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "preprocessor_config.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "locked"])
def test_what_cannot_be_read_is_named_and_not_left_out(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the checkpoint is at fault, not the place that is written to."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", load_architecture("llama").tiny)
    path = checkpoint / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("blob")
    else:
        bundled = BUNDLED / name
        path.write_bytes(bundled.read_bytes() if bundled.exists() else b"{}")
        monkeypatch.setattr(Path, "read_bytes", refusing(path))
    with pytest.raises(ModelError, match=rf"checkpoint/{name}: (is not a regular file|cannot be read)"):
        build(checkpoint, tmp_path / "engine")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def refusing(locked: Path) -> Callable[[Path], bytes]:
    """Path.read_bytes() of one who may not read one file."""
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    return read_bytes


def test_the_checkpoint_is_not_needed_and_the_directory_may_be_read_only(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, dtype="float32")
    expected = run(checkpoint)
    for path in checkpoint.iterdir():
        path.unlink()
    for path in [*engine.rglob("*"), engine]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert run(engine) == expected
    finally:
        for path in [engine, *engine.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_num_seqs": 1, "max_num_batched_tokens": 7},
        {"max_num_seqs": 70, "max_num_batched_tokens": 4096},
        {"max_model_len": 50},
        {"max_model_len": 128},
        {"block_size": 8},
    ],
    ids=str,
)
def test_memory_is_planned_again_for_what_is_asked(settings: dict[str, Any], tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "bfloat16", max_num_seqs=2, max_model_len=64)
    assert run(engine, **settings) == run(checkpoint, **settings)


@in_turn(
    ("dtype", DTYPES),
    ("model_type", sorted(set(REPRESENTATIVES) - set(MIXTURES) - set(LATENT + OF_SEVERAL_CACHES))),
)
def test_ranks_of_a_directory(model_type: str, dtype: str, tmp_path: Path) -> None:
    """Two ranks, built and from the checkpoint, give the bits of one that adds in their order."""
    checkpoint, engine = make_engine(tmp_path, model_type, dtype, WIDE, tensor_parallel_size=2)
    built = run(engine, num_threads=2)
    assert built == run(checkpoint, tensor_parallel_size=2, num_threads=2) == run(checkpoint, tp_invariant=True)
    assert run(engine, num_threads=3, tensor_parallel_size=2, max_num_batched_tokens=5, block_size=8) == built
    assert {path.name for path in engine.glob("weights.*")} == {"weights.0.bin", "weights.1.bin"}
    assert "on 2 ranks; this is rank 0" in (engine / "report.md").read_text()


def test_two_builds_for_ranks_are_equal(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "bfloat16", WIDE, tensor_parallel_size=4)
    result = build(checkpoint, tmp_path / "again", BuildConfig(tensor_parallel_size=4))
    assert result.num_bytes == sum(path.stat().st_size for path in engine.rglob("*") if path.is_file())
    for path in sorted(path for path in engine.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(engine)).read_bytes() == path.read_bytes(), path.name


def test_one_rank_in_the_order_of_several(tmp_path: Path) -> None:
    """Such a directory runs as it was built; an ordinary one does not become one."""
    checkpoint, engine = make_engine(tmp_path, "qwen2", "float32", WIDE, tp_invariant=True)
    expected = run(checkpoint, tp_invariant=True)
    assert run(engine) == run(engine, tp_invariant=True) == expected != run(checkpoint)
    build(checkpoint, tmp_path / "chain")
    with pytest.raises(TargetMismatch, match=r"tp_invariant asks for another order; .* --force --tp-invariant$"):
        run(tmp_path / "chain", tp_invariant=True)


@pytest.mark.parametrize(("built", "asked"), [(2, 1), (2, 4), (1, 2)])
def test_other_ranks_are_refused_with_the_command(built: int, asked: int, tmp_path: Path) -> None:
    _, engine = make_engine(tmp_path, "llama", "float32", WIDE, tensor_parallel_size=built)
    message = f"is built for tensor_parallel_size={built}, {asked} is asked for; .* -o {engine} --force --tp {asked}$"
    with pytest.raises(TargetMismatch, match=message):
        run(engine, tensor_parallel_size=asked, num_threads=4)
    ranks = " --tp 2" if built == 2 else ""
    with pytest.raises(TargetMismatch, match=rf"-o {engine} --dtype float16 --force{ranks}$"):
        run(engine, dtype="float16", num_threads=4)


def test_a_model_that_cannot_be_cut_is_not_built(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", load_architecture("llama").tiny)
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=4 is not possible .*; possible for this model: 1$"):
        build(checkpoint, tmp_path / "engine", BuildConfig(tensor_parallel_size=4))
    assert not (tmp_path / "engine").exists()
    with pytest.raises(ConfigError, match="tensor_parallel_size=0 is not allowed"):
        BuildConfig(tensor_parallel_size=0)


@in_turn(("model_len", [40, 64, 200]), ("model_type", architectures()))
def test_the_graph_does_not_depend_on_the_context(model_type: str, model_len: int) -> None:
    """But for contexts that are shorter than a window: were it otherwise, graph.json could serve no other than it was
    built for."""
    architecture = load_architecture(model_type)
    scalings = [None, {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0}]
    # of these rope_scaling would contradict what is there by default
    if model_type in ("apertus", "cwm", "gpt_oss", "ministral3", "mistral4"):  # whose files must say it
        scalings = scalings[1:]
    # of each kind of layers; how much of a head turns; in rope_parameters alone
    says_more = model_type in ("mellum", "qwen4_exp_text", "cohere_compass_text", "cohere2_moe")
    if says_more:
        scalings = scalings[:1]
    for scaling in scalings[:1] if "rope_parameters" in architecture.rules.defaults else scalings:
        data = with_changes(architecture.tiny, {"max_position_embeddings": 256, "rope_scaling": scaling})
        if not says_more:
            data.pop("rope_parameters", None)
        config = parse_config(data, architecture.rules)
        assert graph_to_json(build_graph(config, model_len)) == graph_to_json(build_graph(config, 256))


def test_the_context_is_the_built_one_unless_asked_for(tmp_path: Path) -> None:
    from albireo.api.load import load
    from albireo.config import EngineConfig

    _, engine = make_engine(tmp_path, "llama", "float32", max_model_len=40)
    settings: dict[str, Any] = {"model": str(engine), "skip_tokenizer_init": True, "num_gpu_blocks_override": 64}
    assert load(EngineConfig(**settings)).settings.max_model_len == 40
    assert load(EngineConfig(max_model_len=100, **settings)).settings.max_model_len == 100
    with pytest.raises(ConfigError, match="max_position_embeddings=128"):
        load(EngineConfig(max_model_len=129, **settings))


@pytest.mark.parametrize(
    ("model_type", "changes", "built", "longest"),
    [
        ("mistral", {"sliding_window": 16}, 16, 16),
        ("mistral", {"sliding_window": 16}, 17, 128),
        ("llama4_text", {"attention_chunk_size": 40, "floor_scale": 50}, 30, 40),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 128}, 20, 128),
    ],
)
def test_a_context_that_is_computed_otherwise_is_refused_with_the_command(
    model_type: str, changes: dict[str, Any], built: int, longest: int, tmp_path: Path
) -> None:
    """Windows that no text of the build was long enough to notice are not in its graph."""
    checkpoint, engine = make_engine(tmp_path, model_type, "float32", changes, max_model_len=built)
    prompts = [[3, 4, 5], list(range(2, min(longest, 60) - 5))]
    settings = {"prompts": prompts, "max_model_len": longest}
    assert run(engine, **settings) == run(checkpoint, **settings)
    if longest < 128:
        with pytest.raises(TargetMismatch, match=rf"up to {built} tokens.*max_model_len={longest + 1} is .*--force"):
            run(engine, prompts=prompts, max_model_len=longest + 1)


def test_a_shorter_context_that_would_rotate_otherwise_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 32}
    changes = {"rope_scaling": {"type": "longrope", **factors}, "head_dim": 16, "max_position_embeddings": 128}
    _, engine = make_engine(tmp_path, "llama", "float32", changes, max_model_len=100)
    with caplog.at_level(logging.WARNING, logger="albireo"):
        run(engine, [[3, 4]], max_model_len=64)
        assert not [each for each in caplog.messages if "rotates positions" in each]
        run(engine, [[3, 4]], max_model_len=30)
    told = [each for each in caplog.messages if "rotates positions as for sequences of up to 100 tokens" in each]
    assert len(told) == 1 and "max_model_len=30" in told[0]


def test_another_dtype_is_refused_with_the_command(tmp_path: Path) -> None:
    _, engine = make_engine(tmp_path, "llama", "bfloat16")
    with pytest.raises(TargetMismatch, match=r"built for dtype bfloat16.*albireo build MODEL -o .* --dtype float16"):
        run(engine, dtype="fp16")
    assert run(engine, dtype="bf16") == run(engine)


@pytest.mark.parametrize("built, used", [(0, -1), (-1, 0)])
def test_kernels_are_chosen_again_for_another_level(
    built: int, used: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    levels = isa_levels()
    if len(levels) < 2:
        pytest.skip("this run has one instruction-set level")
    monkeypatch.setenv("ALBIREO_ISA_MAX", levels[built])
    checkpoint, engine = make_engine(tmp_path, "qwen2", "bfloat16")
    assert not caplog.records
    monkeypatch.setenv("ALBIREO_ISA_MAX", levels[used])
    expected = run(checkpoint)
    with caplog.at_level(logging.WARNING):
        assert run(engine) == expected
    (record,) = caplog.records
    text = record.getMessage()
    assert "chosen again from graph.json" in text
    ours, theirs = text.partition("the build's were of")[::2]
    assert levels[used] in ours
    assert levels[built] in theirs


def test_a_target_is_a_level_to_build_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same bytes wherever it is built; at home on that level, and chosen again for a better one."""
    if "avx2" not in isa_levels():
        pytest.skip("this run has no AVX2")
    checkpoint, engine = make_engine(tmp_path, "qwen2", "bfloat16", target="avx2")
    target = json.loads((engine / "target.json").read_text())
    assert target["isa_levels"] == ["avx2", "scalar"]
    assert "with kernels of avx2, scalar." in (engine / "report.md").read_text()
    native = run(checkpoint)
    with monkeypatch.context() as patch:
        patch.setenv("ALBIREO_ISA_MAX", "scalar")
        build(checkpoint, tmp_path / "again", BuildConfig(target="avx2"))
        assert contents(tmp_path / "again") == contents(engine)
        patch.setenv("ALBIREO_ISA_MAX", "avx2")
        expected = run(checkpoint)
        with caplog.at_level(logging.WARNING):
            assert run(engine) == run(engine, pin_numerics=True) == expected
        assert not caplog.records
    if isa_levels()[0] != "avx2":
        assert run(engine) == native
        assert "chosen again from graph.json" in caplog.text
        with pytest.raises(TargetMismatch, match=r"pin_numerics: it was built for kernels of avx2, here .*build MODEL"):
            run(engine, pin_numerics=True)


def test_a_target_above_this_machine_is_built_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBIREO_ISA_MAX", "scalar")
    checkpoint, engine = make_engine(tmp_path, "llama", "bfloat16", target="avx512bf16")
    program = json.loads((engine / "program.json").read_text())
    assert "linear.bfloat16.avx512bf16" in {call["kernel"] for call in program["calls"]}
    assert run(engine) == run(checkpoint)


@pytest.mark.parametrize(
    ("out", "config", "problem"),
    [
        ("x", {"force": True}, "config must be a BuildConfig, got dict"),
        (None, None, "out must be the name of a directory, got NoneType"),
        ("a\0b", None, r"out='a\\x00b' can be no directory: embedded null"),
        ("y" * 5000, None, "out='y+\\.\\.\\.y+' can be no directory: .* name too long"),
        ("~nobody-is-called-so/x", None, "can be no directory: .*home"),
    ],
)
def test_arguments_of_another_kind_are_named(out: Any, config: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){problem}"):
        build(None, out, config)


def test_an_unknown_target_names_the_levels(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="target='avx3' is no level; choose one of native, amx, avx512bf16, avx512vnni, avx512, avxv"
    ):
        make_engine(tmp_path, "llama", target="avx3")
    assert not (tmp_path / "engine").exists()


def test_pinned_numerics_refuse_another_version(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "float32")
    assert run(engine, pin_numerics=True) == run(checkpoint)
    alter(engine, "manifest.json", lambda data: data.update(created_by="albireo 0.0.9"))
    assert run(engine) == run(checkpoint)
    with pytest.raises(TargetMismatch, match=r"built by albireo 0\.0\.9, this is .*leave pin_numerics out"):
        run(engine, pin_numerics=True)
    with pytest.raises(ConfigError, match=r"pin_numerics: .* is a checkpoint"):
        run(checkpoint, pin_numerics=True)


def test_the_profile_of_the_build_is_the_default(tmp_path: Path) -> None:
    from albireo.api.load import load
    from albireo.config import EngineConfig

    checkpoint, engine = make_engine(tmp_path, "llama", "float32", profile="latency")
    assert "steps of up to 512 tokens of 64 sequences" in (engine / "report.md").read_text()
    settings: dict[str, Any] = {"skip_tokenizer_init": True, "num_gpu_blocks_override": 64}
    for model, asked, tokens in (
        (engine, {}, 512),
        (engine, {"profile": "throughput"}, 4096),
        (engine, {"max_num_batched_tokens": 100}, 100),
        (checkpoint, {}, 960),
        (checkpoint, {"profile": "latency"}, 512),
    ):
        loaded = load(EngineConfig(model=str(model), **settings, **asked))
        assert loaded.settings.max_num_batched_tokens == loaded.program.maxima["T"] == tokens
    assert run(engine) == run(checkpoint)


def test_passes_left_out_at_the_build_stay_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint, engine = make_engine(tmp_path, "qwen3", "bfloat16", without=("merge_qkv", "fuse_head"))
    with caplog.at_level(logging.WARNING):
        assert run(engine) == run(checkpoint) == run(engine, without="fuse_norm,last_layer_rows")
    assert not caplog.records
    _, fused = make_engine(tmp_path / "fused", "qwen3", "bfloat16")
    assert run(fused, without=("fuse_head", "fuse_norm")) == run(checkpoint)
    with pytest.raises(TargetMismatch, match=r"q_proj\.weight is not stored; without=merge_qkv is") as refused:
        run(fused, without=("merge_qkv",))
    assert str(refused.value).endswith(f"albireo build MODEL -o {fused} --force --without merge_qkv")
    with pytest.raises(TargetMismatch, match=r"--force --without merge_qkv,fuse_head,merge_gate_up$"):
        run(engine, without=("merge_gate_up",))
    with pytest.raises(ConfigError, match="'fuse_all' names no pass"):
        run(checkpoint, without=("fuse_all",))
    with pytest.raises(ConfigError, match="fuse_embed: this pass cannot be left out"):
        make_engine(tmp_path / "x", "llama", without=("fuse_embed",))


def test_a_directory_whose_manifest_is_gone_is_a_damaged_build(tmp_path: Path) -> None:
    """And no checkpoint without a config.json; --force does not replace it, as it is no engine directory."""
    checkpoint, engine = make_engine(tmp_path, "llama", "bfloat16")
    (engine / "manifest.json").unlink()
    with pytest.raises(Corrupt, match=r"without manifest\.json: a build that did not end.*albireo build MODEL -o"):
        run(engine)
    with pytest.raises(ConfigError, match="is not empty and no engine directory"):
        build(checkpoint, engine, BuildConfig(force=True))


def test_what_fusing_saved_is_counted(tmp_path: Path) -> None:
    checkpoint, _ = make_engine(tmp_path, "llama", "bfloat16")
    result = build(checkpoint, tmp_path / "again")
    assert result.unfused.ops_before == result.totals.ops_before
    assert result.unfused.ops_after > 1.8 * result.totals.ops_after
    assert result.unfused.barriers > 1.5 * result.totals.barriers
    assert result.unfused.bytes_per_token > result.totals.bytes_per_token
    assert result.levels == isa_levels()


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_hashes_of_a_checkpoint_cannot_be_verified(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "float32")
    with pytest.raises(ConfigError, match="verify_hashes"):
        run(checkpoint, verify_hashes=True)
    assert run(engine, verify_hashes=True) == run(checkpoint)


def test_a_directory_that_is_replaced_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "bfloat16")
    read_stored = cpu_model.read_stored

    def replace_first(stored: StoredWeights, *args: Any) -> None:
        build(checkpoint, engine, BuildConfig(force=True))
        read_stored(stored, *args)

    monkeypatch.setattr(cpu_model, "read_stored", replace_first)
    with pytest.raises(Corrupt, match="start again"):
        run(engine)
    monkeypatch.undo()
    assert run(engine) == run(checkpoint)


def test_weights_cut_short_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine = make_engine(tmp_path, "llama", "bfloat16")
    read_stored = cpu_model.read_stored

    def cut_first(stored: StoredWeights, *args: Any) -> None:
        os.truncate(stored.path, 5000)
        read_stored(stored, *args)

    monkeypatch.setattr(cpu_model, "read_stored", cut_first)
    with pytest.raises(Corrupt, match=r"truncated while it was read.*albireo build MODEL"):
        run(engine)


def test_build_limits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_model_len=4096"):
        make_engine(tmp_path, "llama", max_model_len=4096)
    with pytest.raises(ConfigError, match="max_num_seqs=0"):
        BuildConfig(max_num_seqs=0)
    assert not (tmp_path / "engine").exists()


def test_text_goes_in_and_comes_out(tmp_path: Path) -> None:
    from albireo import LLM, SamplingParams

    stories = shared_data("models", "stories260k")
    result = build(stories, tmp_path / "engine")
    assert result.num_bytes == sum(
        p.stat().st_size for p in (tmp_path / "engine").rglob("*") if p.is_file() or os.path.islink(p)
    )
    params = SamplingParams(temperature=0.0, max_tokens=12)
    texts = [LLM(str(d)).generate(["Once upon a"], params)[0].outputs[0].text for d in (stories, tmp_path / "engine")]
    assert texts[0] == texts[1] != ""
