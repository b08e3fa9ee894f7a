"""The architectures that dear tests run show every mechanism that there is, and none of them is there for nothing."""

from __future__ import annotations

import pytest

from albireo.models import architectures, build_graph, load_architecture
from albireo.models.config_keys import parse_config
from representatives import (
    ALL_REPRESENTATIVES,
    IN_ANOTHER_ORDER,
    OF_SEVERAL_CACHES,
    OF_WIRING,
    WITH_STATES,
    mechanisms,
    mechanisms_of,
)
from variants import VARIANTS

#: Calls that are the same whatever is around them, of other rows or with another norm folded in; and what has tests of
#: its own.
_PLAIN_FAMILIES = (
    "elementwise",
    "gather",
    "head_norm",
    "linear",
    "norm",
    "slice",
    "add_parts",
    "row_map",
    "output_gate",
    "gate_rows",
)
_PLAIN_CALLS = (
    *(f"call {family}(" for family in _PLAIN_FAMILIES),
    # of GPUs alone: backends/cuda/test_parts.py and the like
    *("call linear_parts(", "call kv_write(", "call read_streams(", "call mix_streams("),
    *("call head_rows(", "call two_norms("),
    # backends/cpu/test_expert_linear.py, backends/cuda/test_moe.py
    "call expert_linear(ids, out, weight, x, act: clamped_swiglu)",
    "call expert_linear(ids, out, squares, weight, x, act: clamped_swiglu)",
)
_PLAIN_OPS = (
    "expert_linear(",
    "add_parts(",
    "match_length(",
    "cut(",
    "gain(",
    "shift(",
    # backends/cpu/test_recurrent.py
    "causal_conv(",
    "call causal_conv(",
    "gate_rows(",
    *("selective_state(x, slopes: some)", "call selective_state(out, x, slopes: some)"),
    "gated_delta_rule(",
    "call gated_delta_rule(",
    "choose_keys(",
    "call choose_keys(",
    "attention(q, kv, chosen, ",
    "attention(q, kv, sinks, chosen, ",
    "clip(",
    "call attention(chosen, ",
    # backends/cpu/test_pooled.py
    *("pool_rows(", "call pool_rows(", "join_sums(", "call join_sums(", "balance(", "call balance("),
    *("attention(q, kv, softcap: None, sums: True, ", "call attention(out, q, softcap: a number, sums: True, "),
    *("rope(x, positions, side_by_side: True", "call rope(out, rope, x, side_by_side: True"),
    *("route(x, chosen, ", "call route(chosen, "),
    "combine(x, weights, ids)",
    # backends/cpu/test_growth.py
    "rope(x, positions, slope, start)",
    "call rope(out, rope, slope, start, ",
    # of a bias, and not divided by a sum: backends/cpu/test_route.py
    "route(x, bias, renormalize: False)",
    "call route(bias, ids, weights, x, renormalize: False)",
    "call combine(ids, ",
)


@pytest.mark.parametrize("name", sorted({*architectures(), *VARIANTS} - set(OF_WIRING)))
def test_a_mechanism_is_shown_by_a_representative(name: str) -> None:
    shown = frozenset().union(*map(mechanisms, (*ALL_REPRESENTATIVES, *IN_ANOTHER_ORDER)))
    missing = sorted(mechanisms(name) - shown)
    assert not missing, f"{name} has what no representative has; add it to tests/representatives.py: {missing}"


@pytest.mark.parametrize("name", OF_WIRING)
def test_of_wiring_only_who_reads_what_is_new(name: str) -> None:
    shown = frozenset().union(*map(mechanisms, (*ALL_REPRESENTATIVES, *IN_ANOTHER_ORDER)))
    new = mechanisms(name) - shown
    ops = [each for each in new if " reads as " not in each and not each.startswith((*_PLAIN_CALLS, *_PLAIN_OPS))]
    assert new and not ops, f"{name} has what tests of kernels should see: {ops}"


@pytest.mark.parametrize("name", ALL_REPRESENTATIVES)
def test_a_representative_shows_what_the_others_do_not(name: str) -> None:
    # of a variant of it fewer tests are run, of what no ranks share none with ranks, and of what keeps states none of
    # single calls
    alike = set(ALL_REPRESENTATIVES)
    for fewer in (OF_SEVERAL_CACHES, WITH_STATES):
        alike -= set() if name in fewer else set(fewer)
    others = (each for each in alike if name not in (each, each.partition(",")[0]))
    shown = frozenset().union(*map(mechanisms, others))
    assert mechanisms(name) - shown, f"{name} shows nothing of its own; take it out of tests/representatives.py"


@pytest.mark.parametrize("name", IN_ANOTHER_ORDER)
def test_no_call_is_new_where_only_their_order_is(name: str) -> None:
    shown = frozenset().union(*map(mechanisms, ALL_REPRESENTATIVES))
    new = mechanisms(name) - shown
    assert new
    # of rows that only those that leave the model are, or all, a call is the same
    calls = {mechanism.rpartition(" of ")[0] for mechanism in shown}
    of_elements = ("clip(", "xielu(", "call elementwise(", "call attention(out, q, in_chunks: True")
    of_gpus = ("call linear_parts(", "call linear_norm(", "route(", "call route(", "call expert_linear(")
    for each in sorted(new):
        assert (
            " reads as " in each or each.startswith((*of_elements, *of_gpus)) or each.rpartition(" of ")[0] in calls
        ), each


def test_what_a_mechanism_is() -> None:
    """Kinds, not sizes: what makes a model another one for kernels is seen, what makes it a larger one is not."""
    gemma, gemma2, llama = map(mechanisms, ("gemma", "gemma2", "llama"))
    assert "attention(q, kv, softcap: a number, window: None)" in gemma2 - gemma
    assert "linear(x, weight, bias, role: ffn)" in llama - gemma
    assert "rms_norm reads as weight a constant, plus" in gemma - llama
    sizes = {"hidden_size": 96, "head_dim": 20, "intermediate_size": 130, "num_hidden_layers": 4, "rope_theta": 5e5}
    architecture = load_architecture("llama")
    larger = parse_config({**architecture.tiny, **sizes}, architecture.rules).with_dtype("bfloat16")
    assert mechanisms_of(build_graph(larger, 64)) == llama
