"""Whole verifications: one in which everything is right, and the first wrong thing by name where something is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albireo.api.build import build
from albireo.api.sources.locate import BUNDLED
from albireo.config import BuildConfig
from albireo.errors import ConfigError
from albireo.verify import run
from albireo.verify.page import page
from albireo.verify.report import markdown
from albireo.verify.run import STAGES, verify
from artifact.engines import alter, make_engine
from compiler.ranks import WIDE
from verify.models import damage

Copied = Callable[[], tuple[Path, Path]]
O_PROJ = "model.layers.1.self_attn.o_proj.weight"


def double_eps(graph: Any) -> None:
    norm = next(n for n in graph["nodes"] if n["op"] == "rms_norm" and n["origin"] == "layers.1.mlp.norm")
    norm["attrs"]["eps"] *= 2


def test_what_is_right_passes(built: tuple[Path, Path]) -> None:
    checkpoint, engine = built
    before = sorted(path.name for path in engine.rglob("*"))
    shown: list[str] = []
    found = verify(engine, str(checkpoint), num_tokens=100, progress=lambda what, total: _note(shown, what))
    assert found.is_verified
    assert [stage.name for stage in found.stages] == list(STAGES)
    assert {stage.verdict for stage in found.stages} == {"passed"}
    assert (found.finding, found.not_run) == ("", ())
    figures = {stage.name: stage.figures for stage in found.stages}
    assert figures["tokens"]["num_equal"] == figures["tokens"]["num_tokens"] > 0
    assert figures["tokens"]["same_kernels"]
    assert 0 < figures["quality"]["mean_kl"] < 1e-3
    assert figures["quality"]["num_predictions"] == 99
    assert not figures["quality"]["is_text"]
    assert "weights" in shown and "op by op" in shown
    assert sorted(path.name for path in engine.rglob("*")) == before


@pytest.mark.parametrize(
    ("dtype", "kv"), [("bfloat16", "int8"), ("bfloat16", "fp8"), ("float32", "int8"), ("float32", "bf16")]
)
def test_a_kv_cache_of_another_type_passes(tmp_path: Path, dtype: str, kv: str) -> None:
    """What is in the cache is held against the reference's rounding, and tokens against the same cache in memory."""
    checkpoint, engine = make_engine(tmp_path, dtype=dtype, kv_cache_dtype=kv)
    found = verify(engine, str(checkpoint), num_tokens=640)
    assert found.is_verified, found.finding
    figures = {stage.name: stage.figures for stage in found.stages}
    assert figures["tokens"]["same_kernels"]
    assert figures["quality"]["mean_kl"] > 0


def test_a_bundled_model_on_a_text(tmp_path: Path) -> None:
    """With a tokenizer: the text given, as far as it is asked for; float32 beside float32 is the same."""
    build(BUNDLED, tmp_path / "story", BuildConfig(dtype="float32", max_model_len=64))
    (tmp_path / "text.txt").write_text("Once upon a time, there was a little girl. She liked to play in the park. " * 9)
    found = verify(tmp_path / "story", str(BUNDLED), text=tmp_path / "text.txt", num_tokens=120)
    assert found.is_verified, found.finding
    quality = found.stages[-1].figures
    assert (quality["mean_kl"], quality["top1_agreement"]) == (0.0, 1.0)
    assert 1 < quality["perplexity"] < 30
    assert quality["perplexity"] == quality["oracle_perplexity"]
    assert (quality["text"], quality["num_tokens"], quality["window"]) == ("text.txt", 120, 64)
    assert quality["num_tokens_left_out"] > 0


def test_a_damaged_weight_is_named(copied: Copied) -> None:
    """The hashes are not asked: the tensor, row and column, and who reads it, are known from the checkpoint."""
    checkpoint, engine = copied()
    damage(engine, O_PROJ)
    found = verify(engine, str(checkpoint))
    assert not found.is_verified
    assert found.not_run == ("ops", "layers", "tokens", "quality")
    assert found.finding.startswith(f"weights: layers.1.attn.o: {O_PROJ} is not the checkpoint's: row ")


def test_a_changed_graph_is_named(copied: Copied) -> None:
    checkpoint, engine = copied()
    alter(engine, "graph.json", double_eps)
    found = verify(engine, str(checkpoint))
    assert found.finding == "graph: layers.1.mlp.norm (rms_norm): eps is 2e-06, the checkpoint's is 1e-06"
    assert [stage.name for stage in found.stages] == ["graph"]


def test_a_wrong_call_is_named(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a kernel were wrong: the stages before have nothing to say."""
    checkpoint, engine = copied()
    damage(engine, O_PROJ)
    monkeypatch.setattr(run, "find_damage", lambda *args: None)
    found = verify(engine, str(checkpoint))
    assert found.finding.startswith("ops: layers.1.attn.o (linear, linear.bfloat16.")
    assert "times the tolerance" in found.finding
    assert found.not_run == ("layers", "tokens", "quality")


def test_what_is_no_pair_is_refused(built: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, engine = built
    with pytest.raises(ConfigError, match="no engine directory, so there is nothing to verify; build one"):
        verify(checkpoint, str(checkpoint))
    with pytest.raises(ConfigError, match="is an engine directory too"):
        verify(engine, str(engine))
    other, _ = make_engine(tmp_path, changes={"rms_norm_eps": 0.5})
    with pytest.raises(ConfigError, match=r"was not built from .*: config.json has .* there.*albireo build MODEL"):
        verify(engine, str(other))
    (other / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    data = bytearray((checkpoint / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    with pytest.raises(ConfigError, match=r"was not built from .*: model\.safetensors has sha256 "):
        verify(engine, str(other))
    (other / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model\.safetensors is missing there"):
        verify(engine, str(other))


class _note:
    """A progress bar that keeps what it was for."""

    def __init__(self, shown: list[str], what: str) -> None:
        shown.append(what)

    def __enter__(self) -> Callable[[int], None]:
        return lambda done: None

    def __exit__(self, *error: object) -> None:
        pass


def test_a_directory_of_several_ranks(tmp_path: Path) -> None:
    """All but single calls is looked at; damage in the second rank's file is found."""
    checkpoint, engine = make_engine(tmp_path, changes=WIDE, tensor_parallel_size=2)
    found = verify(engine, str(checkpoint), num_tokens=100)
    assert found.is_verified, found.finding
    assert {stage.name: stage.verdict for stage in found.stages} == {
        **dict.fromkeys(STAGES, "passed"),
        "ops": "not judged",
        "layers": "not judged",
    }
    figures = {stage.name: stage.figures for stage in found.stages}
    assert figures["tokens"]["num_equal"] == figures["tokens"]["num_tokens"] > 0
    assert figures["quality"]["num_predictions"] == 99
    assert markdown(found, {}).count("not looked at on several ranks") == 4 and "<h2>Quality" in page(found, {})
    with open(engine / "weights.1.bin", "r+b") as file:
        file.seek(4000)
        file.write(b"\x41" * 64)
    found = verify(engine, str(checkpoint), num_tokens=20)
    assert found.finding.startswith("weights: ") and found.not_run == STAGES[2:]


def test_one_rank_in_the_order_of_several_passes(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, changes=WIDE, tp_invariant=True)
    found = verify(engine, str(checkpoint), num_tokens=60)
    assert {stage.verdict for stage in found.stages} == {"passed"}, found.finding
