"""Expressions against Python's re, which says what they mean; and those that it would never be done with."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.errors import ModelError
from albireo.json_file import Fields
from albireo.quantization.formats.expressions import MAX_CHARS, MAX_DEPTH, Expression, Text
from albireo.quantization.formats.left_out import LeftOut, parse_left_out

#: As published, of llm-compressor's recipes and checkpoints, AutoRound's extra_config, GPTQModel's dynamic.
PUBLISHED = (
    r".*lm_head",
    r".*gate$",
    r".*\.mlp\.gate$",
    r".*mlp.shared_expert_gate$",
    r".*block_sparse_moe.gate",
    r".*self_attn.q_proj*",
    r".*kv_a_proj_with_mqa$",
    r"vision_tower.*",
    r".*linear_attn.*",
    r".*layers\.(?:0|1|2|77)\..*",
    r"model\.layers\.[0-9]+\.self_attn\.(q|k|v|o)_proj$",
    r"^model\.layers\.(?:[0-9]|1[0-9])\.mlp\.experts\.\d+\.(?:gate|up|down)_proj$",
    r"^(?!.*experts).*$",
    r"^(?!.*\.mlp\.experts(?:\.|$)).*$",
    r"^(?!.*language_model\.model\.layers\.)",
    r"^(?!.*(?:self_attn\.(?:q_proj|k_proj|v_proj|b_proj)|vision_tower\..*|mm_projector\..*)$).*$",
    r".*\.18\..*(?:gate|up|down).*",
    r"^model\.layers\.4\.mlp$",
    r"(?i).*LM_HEAD",
    r".*(?<!shared)_expert_gate",
)
NAMES = (
    "lm_head",
    "model.lm_head",
    "model.layers.4.mlp",
    "model.layers.18.mlp.gate",
    "model.layers.18.mlp.gate_proj",
    "model.layers.1.mlp.shared_expert_gate",
    "model.layers.1.mlp.routed_expert_gate",
    "model.layers.77.self_attn.q_proj",
    "model.layers.0.self_attn.kv_a_proj_with_mqa",
    "model.layers.11.mlp.experts.127.down_proj",
    "model.language_model.model.layers.3.linear_attn.in_proj",
    "model.layers.3.block_sparse_moe.gate",
    "vision_tower.blocks.0.attn.qkv",
    "mm_projector.linear_1",
)
_LETTERS = ("a", "b", ".", r"\.", "[ab]", "[^a]", "[]a]", r"\d", r"\w", "^", "$", r"\b", r"\B", r"\Z", "1", r"\x61")
_TIMES = ("*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}", "*?", "+?", "??", "{,}", "{a}", "{}")


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    behind = st.sampled_from(["a", "ab", r"[ab]\.", "(?:a|b)", r"\b"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(_TIMES)).map("(?:{0[0]}){0[1]}".format),
        st.tuples(st.sampled_from(["(", "(?P<x>", "(?=", "(?!"]), inner).map("{0[0]}{0[1]})".format),
        st.tuples(st.sampled_from(["(?<=", "(?<!"]), behind).map("{0[0]}{0[1]})".format),
    )


PATTERNS = st.recursive(st.sampled_from(_LETTERS), _grown, max_leaves=8)


@pytest.mark.parametrize("pattern", PUBLISHED)
def test_published_ones(pattern: str) -> None:
    expression = Expression(pattern)
    found = [name for name in NAMES if expression.begins(Text(name))]
    assert found == [name for name in NAMES if re.match(pattern, name)]
    assert found


@pytest.mark.filterwarnings("ignore::FutureWarning")
@given(st.sampled_from(["", "(?i)"]), PATTERNS, st.text("abA.1_\n", min_size=1, max_size=8))
def test_any_means_what_re_says(flag: str, pattern: str, text: str) -> None:
    try:
        wanted = re.match(flag + pattern, text) is not None
    except re.error:
        with pytest.raises(ValueError, match="no regular expression"):
            Expression(flag + pattern)
        return
    assert Expression(flag + pattern).begins(Text(text)) == wanted


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|a)*$", "((a*)*)*$", "(a?){60}a{60}$", ".*.*.*.*.*.*.*.*!", "(?=(a+)+!)", "(.*a){20}!"],
)
def test_one_that_re_goes_back_for_ever_in_is_matched_in_counted_steps(pattern: str) -> None:
    text = Text("a" * 60 + "b", max_steps=8000)
    assert not Expression(pattern).begins(text)
    assert text.steps_left > 0


@pytest.mark.parametrize("nothing", ["()", "(?:|)", "(?=)", "(?:a{0})", "(?!a{0}b)"])
def test_what_takes_no_letters_takes_steps(nothing: str) -> None:
    """Repeated within repetitions, of which each alone is short."""
    expression = Expression("(?:" * 3 + nothing + "{60})" * 3)
    with pytest.raises(ModelError, match="steps for the module 'aaaa"):
        expression.begins(Text("a" * 60))


def test_names_take_so_many_steps_and_no_more() -> None:
    usual = LeftOut(tuple(f"re:{pattern}" for pattern in PUBLISHED) * 5)
    assert "model.layers.18.self_attn.in_proj_of_nobody" not in LeftOut(tuple(f"re:{p}!" for p in PUBLISHED))
    assert "model.layers.77.self_attn.q_proj" in usual
    many = LeftOut(tuple(f"re:((({'a?' * 40})*b)*c)*{i}" for i in range(2000)))
    with pytest.raises(ModelError, match="more than 32768 steps for the module 'aaaaaaaaaa"):
        _ = "a" * 60 in many


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (r"(a)\1", r"has '\\\\1', which is not read; read are letters"),
        ("a++", "has '[+][+]', which is not read"),
        ("(?>a)", "has .*, which is not read"),
        ("(?s)a", "has .*, which is not read"),
        ("(a)(?(1)b|c)", "has .*, which is not read"),
        ("(", "is no regular expression: missing"),
        ("a{99999999999999}", "repeats something too often"),
        ("(" * 5000 + ")" * 5000, "has 10,000 characters; at most 2,048"),
        ("(" * 1000 + ")" * 1000, f"has groups within each other; at most {MAX_DEPTH}"),
        ("(?:" * 40 + ")" * 40, f"has groups within each other; at most {MAX_DEPTH}"),
        ("a" * (MAX_CHARS + 1), "has 2,049 characters; at most 2,048 are read"),
    ],
)
def test_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ModelError, match=f"quantization_config: ignore=.*{problem}"):
        parse_left_out(Fields({"ignore": ["lm_head", f"re:{pattern}"]}, "quantization_config"), "ignore")


def test_so_many_characters_of_patterns() -> None:
    def listed(patterns: list[Any]) -> LeftOut:
        return parse_left_out(Fields({"ignore": patterns}, "quantization_config"), "ignore")

    assert "model.layers.9.mlp" in listed([f"model.layers.{i}.mlp*" for i in range(1000)])
    assert "x" not in listed(["a" * 2**19])  # a name
    with pytest.raises(ModelError, match="patterns of more than 262,144 characters together"):
        listed([f"model.layers.{i}.mlp*" for i in range(20_000)])
