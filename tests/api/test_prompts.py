"""Shapes of prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from albireo.api.requests.prompts import Prompt, TextPrompt, TokensPrompt, parse_prompt, parse_prompts
from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.image_input import GivenImage


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("text", [Prompt("text", None)]),
        ("", [Prompt("", None)]),
        ([1, 2], [Prompt(None, [1, 2])]),
        ((1, 2), [Prompt(None, [1, 2])]),
        ({"prompt": "text"}, [Prompt("text", None)]),
        ({"prompt_token_ids": [3]}, [Prompt(None, [3])]),
        ({"prompt": "shown", "prompt_token_ids": (3,)}, [Prompt("shown", [3])]),
        ({"prompt": "text", "cache_salt": "mine"}, [Prompt("text", None, "mine")]),
        (TextPrompt(prompt="text", cache_salt="mine"), [Prompt("text", None, "mine")]),
        ([TokensPrompt(prompt_token_ids=[5, 6]), TextPrompt(prompt="a")], [Prompt(None, [5, 6]), Prompt("a", None)]),
        ({"prompt": "text", "multi_modal_data": None}, [Prompt("text", None)]),
        ({"prompt": "text", "multi_modal_data": {}}, [Prompt("text", None)]),
        ({"prompt": "a", "multi_modal_data": {"image": "b"}}, [Prompt("a", None, None, [GivenImage("b")])]),
        ({"prompt": "a", "multi_modal_data": {"image": [1, 2]}}, [Prompt("a", None, None, [(1, False), (2, False)])]),
        (
            {"prompt": "a", "multi_modal_data": {"image": "b"}, "multi_modal_uuids": {"image": "u"}},
            [Prompt("a", None, None, [GivenImage("b")])],
        ),
        ({"prompt": "a", "multi_modal_data": {"image": None}, "multi_modal_uuids": {}}, [Prompt("a", None)]),
        ([], []),
        (["a", [1], {"prompt": "b"}], [Prompt("a", None), Prompt(None, [1]), Prompt("b", None)]),
        ([[1], [2, 3]], [Prompt(None, [1]), Prompt(None, [2, 3])]),
        (np.array([4, 5]), [Prompt(None, [4, 5])]),
        ([np.array([4, 5])], [Prompt(None, [4, 5])]),
        ((text for text in "ab"), [Prompt("a", None), Prompt("b", None)]),
    ],
)
def test_every_shape_of_prompt(given: Any, expected: list[Prompt]) -> None:
    assert parse_prompts(given) == expected


def test_numpy_ids_become_ints() -> None:
    ids = parse_prompts(list(np.array([7, 8])))[0].token_ids
    assert ids == [7, 8] and all(type(token_id) is int for token_id in ids)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (None, InvalidParams, "NoneType"),
        (3, InvalidParams, "int"),
        (b"bytes", InvalidParams, "bytes"),
        (["a", None], InvalidParams, r"prompts\[1\].*None"),
        ([[1, "two"]], InvalidParams, r"prompts\[0\]"),
        ([1.5, 2.5], InvalidParams, r"1\.5"),
        ({}, InvalidParams, "neither prompt nor prompt_token_ids"),
        ({"prompt": 3}, InvalidParams, "int"),
        ({"prompt": "a", "cache_salt": ""}, InvalidParams, "cache_salt"),
        ({"prompt": "a", "cache_salt": "\ud800"}, InvalidParams, "cache_salt"),
        ({"prompt": "a", "multi_modal_data": {"smell": 1}}, UnsupportedFeature, "of kind 'smell'; supported: image"),
        ({"prompt": "a", "multi_modal_data": 1}, InvalidParams, "multi_modal_data=1; it must be a dict"),
    ],
)
def test_what_is_no_prompt_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_prompts(given)


def test_a_single_prompt_is_not_a_list_of_prompts() -> None:
    with pytest.raises(InvalidParams, match="the prompt"):
        parse_prompt(["a", "b"])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mm_processor_kwargs", {"fps": 1}, "mm_processor_kwargs of LLM holds for all"),
        ("prompt_embeds", [1], "embeddings are not taken"),
        ("encoder_prompt", "x", "a prompt is one text"),
        ("smell", "x", "supported: prompt"),
    ],
)
def test_keys_that_ask_for_what_there_is_not_are_told(key: str, value: Any, said: str) -> None:
    with pytest.raises(UnsupportedFeature, match=f"^the prompt has the key '{key}'; .*{said}"):
        parse_prompt({"prompt": "a", key: value})


@pytest.mark.parametrize(
    ("media", "names", "said"),
    [
        ({}, {"image": "u"}, "names 'image' in multi_modal_uuids"),
        ({"image": None}, {"image": "u"}, "names 'image' in multi_modal_uuids"),
        ({"image": ["a", None]}, {"image": ["u", "v"]}, "names 'image' in multi_modal_uuids"),
        ({"image": "a"}, ["u"], "must be a dict"),
    ],
)
def test_media_are_not_found_by_name(media: Any, names: Any, said: str) -> None:
    with pytest.raises(InvalidParams, match=said):
        parse_prompt({"prompt": "a", "multi_modal_data": media, "multi_modal_uuids": names})
