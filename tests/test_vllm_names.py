"""What is said of vLLM's names that are not here, where they are used."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from albireo.errors import UnsupportedFeature
from albireo.lora_request import LoRARequest
from albireo.params import PoolingParams, SamplingParams
from albireo.vllm_names import ATTRIBUTES, attribute_error, takes_vllms


@takes_vllms(far="near is there", quiet="")
def call(near: int, *, loud: bool = False) -> tuple[int, bool]:
    """Documented."""
    return near, loud


@pytest.mark.parametrize("nothing", [None, False, "", "auto", [], (), {}, 0])
def test_an_argument_that_asks_for_nothing_is_left_out(nothing: Any) -> None:
    assert call(3, loud=True, far=nothing) == (3, True)  # type: ignore[call-arg]


@pytest.mark.parametrize("something", [True, 1, "x", [0], object()])
def test_one_that_asks_for_something_is_refused_unless_it_needs_no_words(something: Any) -> None:
    with pytest.raises(UnsupportedFeature, match=r"^far=.* is vLLM's, and is not taken: near is there"):
        call(3, far=something)  # type: ignore[call-arg]
    assert call(3, quiet=something) == (3, False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'farther'"):
        call(3, farther=something)  # type: ignore[call-arg]
    assert call.__doc__ == "Documented."


def test_attributes_are_told_and_stay_attribute_errors() -> None:
    @dataclass
    class Door:
        def __getattr__(self, name: str) -> Any:
            raise attribute_error(self, name)

    assert not any(hasattr(Door(), name) for name in (*ATTRIBUTES, "nowhere"))
    with pytest.raises(AttributeError, match=r"^Door.collective_rpc is vLLM's, and is not there; nothing but"):
        Door().collective_rpc("x")
    with pytest.raises(AttributeError, match="'Door' object has no attribute 'nowhere'"):
        Door().nowhere  # noqa: B018


def test_adapters_are_named_as_vllm_names_them() -> None:
    given: Any = {"base_model_name": "llama", "long_lora_max_len": None}
    request = LoRARequest("sql", 1, "adapters/sql", **given)
    assert request == LoRARequest(lora_name="sql", lora_int_id=1, lora_path="adapters/sql")
    assert (request.name, request.adapter_id, request.path) == ("sql", 1, "adapters/sql")
    older: Any = {"lora_local_path": "adapters/sql"}
    with pytest.raises(UnsupportedFeature, match="here it is lora_path"):
        LoRARequest("sql", 1, **older)


def test_parameters_say_how_they_are_changed_and_what_older_fields_are_now() -> None:
    params = SamplingParams(guided_decoding=None, logits_processors=[], skip_clone=True, max_tokens=3)  # type: ignore[call-arg]
    assert params == SamplingParams(max_tokens=3) == SamplingParams.from_optional(max_tokens=3, temperature=None)
    with pytest.raises(FrozenInstanceError, match=r"params.clone\(max_tokens=5\) in place of setting it"):
        params.max_tokens = 5  # type: ignore[misc]
    assert params.clone(max_tokens=5).max_tokens == 5 and pickle.loads(pickle.dumps(params)) == params
    with pytest.raises(UnsupportedFeature, match="structured_outputs=StructuredOutputsParams"):
        SamplingParams(guided_decoding={"json": {}})  # type: ignore[call-arg]
    with pytest.raises(UnsupportedFeature, match="here it is use_activation"):
        PoolingParams(normalize=True)  # type: ignore[call-arg]
    pooling = PoolingParams(dimensions=4)
    with pytest.raises(FrozenInstanceError, match=r"params.clone\(dimensions=5\)"):
        pooling.dimensions = 5  # type: ignore[misc]
    assert pooling.clone(use_activation=False) == PoolingParams(dimensions=4, use_activation=False)
