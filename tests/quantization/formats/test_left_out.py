"""Which modules a list of patterns leaves out, and what a look-up costs where hundreds are listed."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.quantization.formats.left_out import LeftOut

NAMES = st.lists(st.sampled_from(["model", "layers", "1", "11", "mlp", "gate", "gate_proj"]), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("lm_head", ["lm_head", "model.lm_head"], ["lm_heads", "model.lm_head_2"]),
        ("mlp.gate", ["model.layers.1.mlp.gate", "mlp.gate.x"], ["mlp.gate_proj", "mlp.x.gate"]),
        (".mlp.", ["a.mlp.b"], ["a.mlps.b"]),
        ("", [], ["a", "a.b"]),
        ("model.layers.1*", ["model.layers.1", "model.layers.11.mlp"], ["layers.1"]),
        ("*.gate", ["a.gate", "a.gate.b"], ["a.gates", "gate"]),
        (r"re:.*\.(q|k)_proj", ["a.q_proj", "a.k_proj.x"], ["a.v_proj"]),
        (r"re:(a)\.(?:a)$", ["a.a"], ["a.b"]),
    ],
)
def test_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    for listed in ((pattern,), ("zzz", pattern, "*.yyy", "re:x+$")):
        left_out = LeftOut(listed)
        assert [name for name in [*inside, *outside] if name in left_out] == inside


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=5), NAMES)
def test_several_patterns_are_any_of_them(listed: list[Any], parts: list[str]) -> None:
    patterns = [".".join(of) + ("*" if ends_open else "") for of, ends_open in listed]
    name = ".".join(parts)
    wanted = any(
        fnmatchcase(name, pattern) if "*" in pattern else f".{pattern}." in f".{name}." for pattern in patterns
    )
    assert (name in LeftOut(tuple(patterns))) == wanted


def test_a_lookup_goes_through_no_list() -> None:
    """A checkpoint of 256 experts a layer has 45,000 modules, and may list hundreds of names."""

    class Watched(str):
        num_asked = 0

        def startswith(self, *args: Any) -> bool:
            Watched.num_asked += 1
            return super().startswith(*args)

    left_out = LeftOut(tuple(Watched(f"model.layers.{i}.self_attn") for i in range(100)))
    before = Watched.num_asked
    assert sum(f"model.layers.{i}.self_attn.q_proj" in left_out for i in range(200)) == 100
    assert Watched.num_asked == before
