"""route, combine and gate_rows at every level: against the reference, and bit by bit against themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.reference import experts
from albireo.backends.reference.call import OpCall
from albireo.graph.op_numbers import GATES, GROUPS
from backends.cpu.harness import assert_same_bits, normal, pool, rows_step, variants

F32 = NDArray[np.float32]
ROUTERS = [level for dtype, level in variants("route") if dtype == "float32"]
U = 2.0**-24


def run(family: str, level: str, tokens: int, threads: int = 1, **args: Any) -> None:
    values = {name: v.ctypes.data if isinstance(v, np.ndarray) else v for name, v in args.items()}
    program = _native.Program(pool(threads), 4)
    program.add(family, level, "float32", values)
    step = rows_step(tokens)
    program.run(*step.arrays, np.zeros((4, _native.TOP_MOST), np.int32), np.zeros((4, _native.TOP_MOST), np.float32))


def route(
    x: F32, top_k: int, renormalize: bool, level: str, threads: int = 1, **rules: Any
) -> tuple[NDArray[np.int32], F32]:
    """rules: further arguments of the kernel."""
    ids, weights = np.full((len(x), top_k), -7, np.int32), np.full((len(x), top_k), np.nan, np.float32)
    args = {"x": x, "k": x.shape[1], "x_stride": x.shape[1], "top_k": top_k, "renormalize": int(renormalize)} | rules
    run("route", level, len(x), threads, ids=ids, weights=weights, **args)
    return ids, weights


def reference(x: F32, top_k: int, renormalize: bool) -> tuple[Any, ...]:
    return experts.route(OpCall({"x": x}, {"top_k": top_k, "renormalize": renormalize}, rows_step(len(x))))


@pytest.mark.parametrize("level", ROUTERS)
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(("count", "top_k"), [(1, 1), (5, 2), (16, 16), (60, 4), (128, 8), (257, 64)])
def test_route(level: str, renormalize: bool, count: int, top_k: int) -> None:
    x = 4 * normal(23, count, seed=count)
    x[3] = 0  # all equal: the lowest ids, in order
    x[4, : count // 2] = x[4, -1]
    x[5] *= 30
    ids, weights = route(x, top_k, renormalize, level)
    wanted_ids, wanted = reference(x, top_k, renormalize)
    np.testing.assert_array_equal(ids, wanted_ids)
    spread = np.minimum(x.max(axis=1, keepdims=True) - x.min(axis=1, keepdims=True), 90)
    allowed = wanted * (2 * (16 + 4 * spread) + count + 4) * U + count * 2.0**-126
    assert (np.abs(weights - wanted.astype(np.float64)) <= allowed).all()
    assert np.linalg.norm(allowed) < 1e-3 * np.linalg.norm(wanted)
    for row in (0, 3, 22):
        alone = route(x[row : row + 1].copy(), top_k, renormalize, level)
        np.testing.assert_array_equal(alone[0][0], ids[row])
        assert_same_bits(alone[1][0], weights[row], "alone")
    assert_same_bits(route(x, top_k, renormalize, level, threads=3)[1], weights, "by three threads")


def torch_choice(x: F32, bias: F32 | None, top_k: int, renormalize: bool, scores: str, groups: Any) -> Any:
    """ids, weights as transformers' routers have them (those of deepseek_v3 and of ernie4_5_moe), in float64."""
    torch = pytest.importorskip("torch")
    logits = torch.tensor(x).double()
    found = logits.sigmoid() if scores == "sigmoid" else logits.softmax(-1)
    choice = found if bias is None else found + torch.tensor(bias).double()
    if groups is not None:
        count, kept, best = groups
        worth = choice.view(len(x), count, -1).topk(best, dim=-1)[0].sum(-1)
        mask = torch.zeros_like(worth).scatter_(1, worth.topk(kept, dim=-1)[1], 1)
        mask = mask[:, :, None].expand(-1, -1, x.shape[1] // count).reshape(len(x), -1)
        choice = choice.masked_fill(~mask.bool(), -torch.inf)
    ids = choice.topk(top_k, dim=-1)[1]
    weights = found.gather(1, ids)
    return ids.numpy(), (weights / weights.sum(-1, keepdim=True) if renormalize else weights).numpy()


#: Experts, of a token, scores, whether there is a bias, groups, whether each expert has a gain.
CHOICES = [
    (12, 3, "sigmoid", True, (4, 2, 2), False),
    (12, 3, "sigmoid", False, None, False),
    (256, 8, "sigmoid", True, (8, 4, 2), True),
    (64, 6, "softmax", True, None, False),
    (160, 6, "softmax", False, (8, 3, 1), False),
    (20, 2, "softmax", True, (5, 1, 2), False),
    (128, 8, "softmax", False, None, True),
]


@pytest.mark.parametrize("level", ROUTERS)
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(("count", "top_k", "scores", "has_bias", "groups", "has_gain"), CHOICES)
def test_choices_by_a_bias_and_in_groups(
    count: int, top_k: int, scores: str, has_bias: bool, groups: Any, has_gain: bool, renormalize: bool, level: str
) -> None:
    x, bias = 2 * normal(40, count, seed=count), 0.3 * normal(count + -count % 16, seed=1)
    given = bias[:count] if has_bias else None
    wanted_ids, wanted = torch_choice(x, given, top_k, renormalize, scores, groups)
    rules: dict[str, Any] = {"sigmoid": int(scores == "sigmoid"), "scale": 2.5} | ({"bias": bias} if has_bias else {})
    attrs: dict[str, Any] = {"scores": scores, "factor": 2.5, "top_k": top_k, "renormalize": renormalize}
    if groups is not None:
        rules |= dict(zip(GROUPS, groups, strict=True))
        attrs |= dict(zip(GROUPS, groups, strict=True))
    inputs = {"x": x} | ({"bias": given} if given is not None else {})
    if has_gain:
        gain = normal(count + -count % 16, seed=2)
        wanted = wanted * gain[wanted_ids]
        inputs, rules = inputs | {"gain": gain[:count]}, rules | {"weight": gain}
    ids, weights = route(x, top_k, renormalize, level, **rules)
    for found_ids, found in ((ids, weights), experts.route(OpCall(inputs, attrs, rows_step(len(x))))):
        np.testing.assert_array_equal(found_ids, wanted_ids)
        np.testing.assert_allclose(found, 2.5 * wanted, rtol=1e-5)
    plain = np.argsort(-x, axis=1)[:, :top_k]
    assert not (has_bias or groups) or (np.sort(plain) != np.sort(ids)).any(axis=1).mean() > 0.3, "it decides nothing"
    assert_same_bits(route(x, top_k, renormalize, level, threads=3, **rules)[1], weights, "by three threads")
    assert_same_bits(route(x[7:8].copy(), top_k, renormalize, level, **rules)[1][0], weights[7], "alone")


@pytest.mark.parametrize("level", ROUTERS)
@pytest.mark.parametrize(("size", "shift", "count"), [(1, 0, 16), (3, 0, 5), (0.5, 6, 33), (0.5, -6, 16), (300, 0, 16)])
def test_a_softmax_over_what_is_near(size: float, shift: float, count: int, level: str) -> None:
    """As the router of Phi-3.5-MoE has it in transformers: two choices, each weighed among those near it."""
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.phimoe.modeling_phimoe")
    x = size * normal(60, count, seed=count) + np.float32(shift)
    x[3] = x[3, 0]
    wanted, wanted_ids = modeling.sparsemixer(torch.tensor(x), jitter_eps=0.1, training=False)
    margin = 0.2
    by_reference = experts.route(OpCall({"x": x}, {"top_k": 2, "renormalize": False, "margin": margin}, rows_step(60)))
    found = route(x, 2, False, level, margin=margin)
    for ids, weights in (found, by_reference):
        np.testing.assert_array_equal(ids, wanted_ids.numpy())
        np.testing.assert_allclose(weights, wanted.numpy(), rtol=1e-5)
    assert abs(shift) > 0 or 0.05 < (found[1] < 0.999).mean() < 0.95, "some are alone and some are not"
    assert_same_bits(route(x, 2, False, level, threads=3, margin=margin)[1], found[1], "by three threads")
    assert_same_bits(route(x[7:8].copy(), 2, False, level, margin=margin)[1][0], found[1][7], "alone")


@pytest.mark.parametrize("level", ROUTERS)
def test_small_sigmoids_are_divided_by_more_than_their_sum(level: str) -> None:
    """As the router of lfm2_moe has it in transformers: its sum of scores and 1e-6, which is most of it here."""
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.lfm2_moe.modeling_lfm2_moe")
    x = normal(9, 12, seed=4) - 15
    settings = {"num_experts_per_tok": 3, "num_experts": 12, "hidden_size": 12, "use_expert_bias": False}
    theirs = modeling.Lfm2MoeTopKRouter(modeling.Lfm2MoeConfig(**settings, routed_scaling_factor=2.5))
    with torch.no_grad():
        theirs.weight.copy_(torch.eye(12))
        _, wanted, wanted_ids = theirs(torch.tensor(x))
    attrs = {"scores": "sigmoid", "factor": 2.5, "top_k": 3, "renormalize": True, "eps": 1e-6}
    by_reference = experts.route(OpCall({"x": x}, attrs, rows_step(len(x))))
    for ids, weights in (route(x, 3, True, level, sigmoid=1, scale=2.5, eps=1e-6), by_reference):
        np.testing.assert_array_equal(ids, wanted_ids.numpy())
        np.testing.assert_allclose(weights, wanted.numpy(), rtol=1e-5)
    assert (weights.sum(axis=1) < 2.4).all()


@pytest.mark.parametrize("level", ROUTERS)
@pytest.mark.parametrize("sigmoid", [0, 1])
def test_weights_of_experts_that_a_bias_chose_stay_numbers(sigmoid: int, level: str) -> None:
    """Scores of next to nothing are not divided by nothing; groups with a NaN are taken, and it is seen."""
    bias = np.zeros(16, np.float32)
    bias[:2] = 9
    x = np.full((2, 16), 0.0, np.float32)
    x[:, :2] = -200
    x[1, 13] = np.nan
    rules = {"sigmoid": sigmoid, "num_groups": 4, "kept_groups": 2, "group_best": 2}
    ids, weights = route(x, 2, True, level, bias=bias, **rules)
    assert ids[0].tolist() == [0, 1] and np.isfinite(weights[0]).all() and (weights[0] < 1e-6).all()
    assert np.isnan(weights[1]).any() and (sigmoid == 0 or ids[1].tolist() == [13, 0])


@pytest.mark.parametrize("level", ROUTERS)
def test_what_is_no_number_is_seen(level: str) -> None:
    """Ids are of experts that there are, each once; what is weighed is no number."""
    x = normal(3, 10)
    x[0, 4], x[1, [2, 7]], x[2] = np.nan, np.nan, np.nan
    ids, weights = route(x, 3, True, level)
    assert ids[0, 0] == 4 and ids[1, :2].tolist() == [2, 7] and ids[2].tolist() == [0, 1, 2]
    assert np.isnan(weights).all()
    x[0, 4] = np.inf
    assert np.isnan(route(x, 3, True, level)[1][0]).any()


@pytest.mark.parametrize("level", [level for dtype, level in variants("combine") if dtype == "float32"])
@pytest.mark.parametrize(("top_k", "n"), [(1, 16), (2, 43), (8, 515), (3, 1024)])
def test_combine_is_exact(level: str, top_k: int, n: int) -> None:
    tokens = 5
    x, weights, residual = normal(tokens * top_k, n), np.abs(normal(tokens, top_k, seed=1)), normal(tokens, n, seed=2)
    (wanted,) = experts.combine(OpCall({"x": x, "weights": weights}, {}, rows_step(tokens)))
    args = {"x": x, "weights": weights, "n": n, "top_k": top_k, "x_stride": n, "out_stride": n}
    for threads in (1, 3):
        out = np.full((tokens, n), np.nan, np.float32)
        run("combine", level, tokens, threads, out=out, **args)
        assert_same_bits(out, wanted)
        out = residual.copy()
        run("combine", level, tokens, threads, out=out, residual=out, **args)
        assert_same_bits(out, wanted + residual, "in place")


@pytest.mark.parametrize("level", [level for dtype, level in variants("combine") if dtype == "float32"])
@pytest.mark.parametrize(("top_k", "n"), [(1, 16), (4, 43), (12, 515)])
def test_what_is_given_back(level: str, top_k: int, n: int) -> None:
    """Of experts from the fifth on; a row of which none has one is zeros."""
    tokens, count = 7, 5
    x, residual = normal(tokens, n), normal(tokens, n, seed=2)
    weights = np.abs(normal(tokens, top_k, seed=1))
    ids = np.random.default_rng(3).integers(0, 9, (tokens, top_k), np.int32)
    ids[0], ids[1] = 4, 5
    whole = np.array([weights[t][ids[t] >= count].sum(dtype=np.float64) for t in range(tokens)])
    exact = whole[:, None] * x.astype(np.float64)
    call = OpCall({"x": x, "weights": weights, "ids": ids}, {"num_experts": count}, rows_step(tokens))
    np.testing.assert_allclose(experts.combine(call)[0], exact, rtol=U, atol=0)
    args = {"x": x, "weights": weights, "ids": ids, "num_experts": count, "n": n, "top_k": top_k}
    args |= {"x_stride": n, "out_stride": n}
    for threads in (1, 3):
        out = np.full((tokens, n), np.nan, np.float32)
        run("combine", level, tokens, threads, out=out, **args)
        np.testing.assert_allclose(out, exact, rtol=(top_k + 1) * U, atol=0)
        assert not out[0].any() and out[1].any()
        added = residual.copy()
        run("combine", level, tokens, threads, out=added, residual=added, **args)
        assert_same_bits(added, out + residual, "in place")


@pytest.mark.parametrize("level", ROUTERS)
def test_a_bias_may_be_added_to_logits(level: str) -> None:
    """As the router of kolibri1 has it in transformers; with sigmoids in their place others would be chosen."""
    modeling = pytest.importorskip("transformers.models.kolibri1.modeling_kolibri1")
    from transformers import Kolibri1Config

    torch, count = pytest.importorskip("torch"), 37
    config = Kolibri1Config(hidden_size=count, num_experts=count, num_experts_per_tok=4, norm_topk_prob=True)
    router = modeling.Kolibri1TopKRouter(config)
    x, bias = 3 * normal(50, count), 2 * normal(1, count, seed=1)[0]
    with torch.no_grad():
        router.weight.copy_(torch.eye(count))
        router.e_score_correction_bias.copy_(torch.tensor(bias))
        _, wanted, wanted_ids = router(torch.tensor(x))
    padded = np.zeros(48, np.float32)
    padded[:count] = bias
    ids, weights = route(x, 4, True, level, sigmoid=1, act=1, bias=padded)
    np.testing.assert_array_equal(ids, wanted_ids.numpy())
    np.testing.assert_allclose(weights, wanted.numpy(), rtol=1e-5)
    attrs = {"scores": "sigmoid", "top_k": 4, "renormalize": True, "by_logits": True}
    by_reference = experts.route(OpCall({"x": x, "bias": bias}, attrs, rows_step(50)))
    np.testing.assert_array_equal(ids, by_reference[0])
    assert (route(x, 4, True, level, sigmoid=1, bias=padded)[0] != ids).any()


@pytest.mark.parametrize("level", [level for dtype, level in variants("gate_rows") if dtype == "float32"])
@pytest.mark.parametrize("n", [1, 40, 700])
def test_gate_rows(level: str, n: int) -> None:
    x, gate, residual = normal(7, n), 3 * normal(7, 1, seed=1), normal(7, n, seed=2)
    gate[:2, 0] = -100, 100
    (wanted,) = experts.gate_rows(OpCall({"x": x, "gate": gate}, {}, rows_step(7)))
    off = (20 + 4 * np.minimum(np.abs(gate), 90)) * U
    args = {"x": x, "y": gate, "n": n, "k": n, "x_stride": n, "out_stride": n}
    out = np.full((7, n), np.nan, np.float32)
    run("gate_rows", level, 7, out=out, **args)
    assert (np.abs(out - wanted.astype(np.float64)) <= np.abs(x) * off * np.abs(wanted / x) + 2.0**-120).all()
    gated, out = out, residual.copy()
    run("gate_rows", level, 7, 2, out=out, residual=out, **args)
    assert_same_bits(out, gated + residual, "in place")


@pytest.mark.parametrize("level", [level for dtype, level in variants("gate_rows") if dtype == "float32"])
@pytest.mark.parametrize(("parts", "width"), [(5, 1), (3, 40), (6, 128)])
@pytest.mark.parametrize("kind", GATES)
def test_gates_of_parts(level: str, parts: int, width: int, kind: str) -> None:
    n = parts * width
    x, gate, residual = normal(7, n), 3 * normal(7, parts, seed=1), normal(7, n, seed=2)
    gate[0, 0], gate[1, 1] = -80, 80
    (wanted,) = experts.gate_rows(OpCall({"x": x, "gate": gate}, {"kind": kind}, rows_step(7)))
    args = {"x": x, "y": gate, "n": n, "k": width, "act": GATES.index(kind), "x_stride": n, "out_stride": n}
    out = np.full((7, n), np.nan, np.float32)
    run("gate_rows", level, 7, out=out, **args)
    off = (20 + 4 * np.minimum(np.abs(gate), 90)) * U
    off = np.repeat(off, width, axis=1) * np.abs(wanted) + 2.0**-100
    assert (np.abs(out - wanted.astype(np.float64)) <= off).all()
    gated, out = out, residual.copy()
    run("gate_rows", level, 7, 2, out=out, residual=out, **args)
    assert_same_bits(out, gated + residual, "in place")
