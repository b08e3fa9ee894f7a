"""SamplingParams: what is refused, what is normalized, and when logits are needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, UnsupportedFeature, short
from albireo.params import MAX_LOGPROB_TOKEN_IDS, MAX_SEED, PoolingParams, SamplingParams

REFUSED: list[dict[str, Any]] = [
    {"n": 0},
    {"n": True},
    {"temperature": -0.1},
    {"temperature": math.nan},
    {"temperature": math.inf},
    {"top_p": 0.0},
    {"top_p": 1.01},
    {"top_k": -2},
    {"top_k": 1.5},
    {"min_p": 1.5},
    {"repetition_penalty": 0.0},
    {"presence_penalty": 2.5},
    {"frequency_penalty": -2.5},
    {"seed": "7"},
    {"seed": 2**64},
    {"max_tokens": 0},
    {"min_tokens": -1},
    {"min_tokens": 5, "max_tokens": 4},
    {"logprobs": -2},
    {"prompt_logprobs": 1.0},
    {"stop": [""]},
    {"stop": 5},
    {"stop": "x", "detokenize": False},
    {"stop_token_ids": [-1]},
    {"stop_token_ids": 5},
    {"logprob_token_ids": [-1]},
    {"logprob_token_ids": "12"},
    {"logprob_token_ids": [0] * 129},
    {"allowed_token_ids": []},
    {"allowed_token_ids": "12"},
    {"bad_words": [3]},
    {"bad_words": "word"},
    {"logit_bias": {-1: 1.0}},
    {"logit_bias": {1: math.nan}},
    {"logit_bias": [1, 2]},
    {"logit_bias": {1: math.inf}},
    {"logit_bias": {1.5: 1.0}},
    {"logit_bias": {math.inf: 1.0}},
    {"logit_bias": {1: 10**400}},
    {"temperature": 10**400},
    {"presence_penalty": -(10**400)},
    {"seed": 10**5000},
    {"ignore_eos": "no"},
    {"detokenize": None},
    {"skip_special_tokens": 0},
    {"spaces_between_special_tokens": []},
    {"include_stop_str_in_output": "false"},
    {"skip_reading_prefix_cache": 1},
    {"truncate_prompt_tokens": 0},
    {"truncate_prompt_tokens": True},
    {"truncation_side": "middle"},
    {"truncation_side": []},
    {"thinking_token_budget": -2},
    {"thinking_token_budget": True},
    {"seed": -(2**64) - 1},
    {"n": 16385},
    {"stop": "\ud800"},
    {"bad_words": ["a", "\udc00b"]},
]


@pytest.mark.parametrize("fields", REFUSED, ids=short)
def test_a_value_out_of_range_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams) as error:
        SamplingParams(**fields)
    assert any(name in str(error.value) for name in fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 16384},
        {"temperature": 0.0},
        {"top_p": 1.0},
        {"min_p": 1.0},
        {"presence_penalty": 2.0},
        {"frequency_penalty": -2.0},
        {"seed": MAX_SEED},
        {"seed": -MAX_SEED - 1},
        {"max_tokens": 4, "min_tokens": 4},
        {"logprobs": -1},
        {"logprob_token_ids": (0,) * MAX_LOGPROB_TOKEN_IDS},
        {"stop_token_ids": (0,)},
        {"truncate_prompt_tokens": 1},
        {"truncate_prompt_tokens": -1},
        {"thinking_token_budget": 0},
    ],
    ids=short,
)
def test_a_value_at_its_limit_is_taken_as_it_is(fields: dict[str, Any]) -> None:
    made = SamplingParams(**fields)
    name, value = next(iter(fields.items()))
    assert getattr(made, name) == value


def test_limits_are_named() -> None:
    for fields, words in (
        ({"n": 0}, "a whole number of at least 1 and at most 16384"),
        ({"max_tokens": 0}, "a whole number of at least 1"),
        ({"temperature": -1.0}, r"is outside \[0.0, inf\)"),
        ({"top_p": 0.0}, r"is outside \(0.0, 1.0\]"),
    ):
        with pytest.raises(InvalidParams, match=f"{words}$"):
            SamplingParams(**fields)  # type: ignore[arg-type]


def test_best_of_is_neutral_when_it_equals_n_and_refused_otherwise() -> None:
    assert SamplingParams(n=2, best_of=2).best_of == 2
    with pytest.raises(UnsupportedFeature, match="best_of=3"):
        SamplingParams(best_of=3)


def test_shapes_a_caller_may_use() -> None:
    params = SamplingParams(stop="x", stop_token_ids=[3], top_k=-1, logit_bias={"5": 2})  # type: ignore[dict-item]
    assert (params.stop, params.stop_token_ids, params.top_k, params.logit_bias) == (("x",), (3,), 0, {5: 2.0})


def test_params_are_frozen_and_cloned() -> None:
    params = SamplingParams(temperature=0)
    with pytest.raises(AttributeError):
        params.temperature = 1.0  # type: ignore[misc]
    assert params.clone(n=3).n == 3
    assert params.n == 1


@pytest.mark.parametrize(
    ("fields", "num"),
    [
        ({"temperature": 0}, 1),
        ({"temperature": 0, "top_k": 9}, 1),
        ({"temperature": 1.0}, 0),
        ({"top_k": -1}, 0),
        ({"top_k": 1}, 1),
        ({"top_k": 64, "top_p": 0.5, "min_p": 0.1}, 64),
        ({"top_k": 65}, 0),
        ({"top_k": 20, "repetition_penalty": 1.05}, 0),
    ],
    ids=str,
)
def test_how_many_of_the_best_logits_decide(fields: dict[str, Any], num: int) -> None:
    assert SamplingParams(**fields).num_top == num


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1.0},
        {"logprobs": 0},
        {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1},
        {"repetition_penalty": 1.1},
        {"logit_bias": {1: 1.0}},
        {"allowed_token_ids": [1]},
        {"bad_words": ["x"]},
        {"min_tokens": 1},
        {"thinking_token_budget": 5},
        {"structured_outputs": {"regex": "a+"}},
        {"logprob_token_ids": [1]},
    ],
    ids=str,
)
def test_logits_are_needed_unless_the_raw_arg_max_decides(fields: dict[str, Any]) -> None:
    assert not SamplingParams(temperature=0, ignore_eos=True, stop="x", seed=1).needs_logits
    assert SamplingParams(**{"temperature": 0, **fields}).needs_logits


@pytest.mark.parametrize(
    "fields",
    [
        {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1},
        {"repetition_penalty": 1.1},
        {"logit_bias": {1: 1.0}},
        {"allowed_token_ids": [1]},
        {"bad_words": ["x"], "bad_words_token_ids": ((1,),)},
    ],
    ids=str,
)
def test_what_may_change_a_row_at_every_token(fields: dict[str, Any]) -> None:
    assert not SamplingParams(temperature=0, logprobs=5, min_tokens=3, seed=1).changes_logits
    assert SamplingParams(**fields).changes_logits


@pytest.mark.parametrize("name", ["MEAN", "mean", "Mean"])
def test_pooling_types_are_read_as_vllm_writes_them(name: Any) -> None:
    assert PoolingParams(pooling_type=name).pooling_type == "mean"
    assert PoolingParams().pooling_type is None, "what the model's files say"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pooling_type": "sum"}, "pooling_type='sum' is not supported; it must be last or mean or max or cls"),
        ({"pooling_type": 3}, "pooling_type=3"),
        ({"dimensions": 0}, "dimensions=0"),
        ({"dimensions": 2.0}, "dimensions=2.0"),
        ({"dimensions": True}, "dimensions=True"),
        ({"use_activation": 1}, "use_activation=1"),
        ({"type_start": -1}, "type_start=-1"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens=0 is not allowed; it must be at least 1, or -1"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens=-2"),
        ({"truncate_prompt_tokens": True}, "truncate_prompt_tokens=True"),
        ({"truncation_side": "middle"}, "truncation_side='middle' is not allowed; it must be left or right"),
    ],
    ids=str,
)
def test_pooling_parameters_that_cannot_be_are_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParams, match=words):
        PoolingParams(**fields)


def test_tokens_that_are_named_take_the_place_of_the_best() -> None:
    """They are found among all logits, and a device finds the best ones alone."""
    named = SamplingParams(temperature=0, logprobs=5, logprob_token_ids=[7, np.int64(3)])
    assert (named.logprobs, named.logprob_token_ids) == (0, (7, 3))
    assert not named.ignores_output and named.needs_logits
    assert SamplingParams(temperature=0, logprob_token_ids=[]) == SamplingParams(temperature=0)


def test_numbers_of_numpy_are_those_of_python() -> None:
    """Sweeps over parameters are often written with NumPy; what leaves for the engine process is plain."""
    made = SamplingParams(
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        min_p=np.float64(0.25),
        top_k=np.int64(5),  # type: ignore[arg-type]
        seed=np.uint8(7),  # type: ignore[arg-type]
        max_tokens=np.int32(9),  # type: ignore[arg-type]
        stop_token_ids=np.array([1, 2]),  # type: ignore[arg-type]
        allowed_token_ids=np.array([3]),  # type: ignore[arg-type]
    )
    same = SamplingParams(
        temperature=0.5, min_p=0.25, top_k=5, seed=7, max_tokens=9, stop_token_ids=[1, 2], allowed_token_ids=[3]
    )
    assert made == same and repr(made) == repr(same)
    for wrong in ({"temperature": np.float32(-1)}, {"top_k": np.float64(1)}, {"seed": np.bool_(True)}):
        with pytest.raises(InvalidParams, match=next(iter(wrong))):
            SamplingParams(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["1", True, [1.0]])
def test_what_is_no_number_is_not_said_to_be_outside(value: Any) -> None:
    with pytest.raises(InvalidParams, match=r"temperature=.* must be a number"):
        SamplingParams(temperature=value)


def test_the_seed_minus_one_is_none() -> None:
    assert SamplingParams(seed=-1).seed is None and SamplingParams(seed=-2).seed == -2
    assert SamplingParams(seed=np.int64(-1)).seed is None  # type: ignore[arg-type]
    assert SamplingParams(thinking_token_budget=-1).thinking_token_budget is None
