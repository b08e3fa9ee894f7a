"""What a config.json leaves out is what transformers' class of the model has by itself, or is asked for by name. Files
that are years old leave out what came later, and parts of models what their classes have.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import architectures, load_architecture
from albireo.models.config_keys import parse_config

pytest.importorskip("transformers")
errors = pytest.importorskip("huggingface_hub.errors")

#: What transformers raises for a class that it has not, and for numbers that do not go together.
_BEYOND = (errors.StrictDataclassError, ValueError, KeyError)
#: Ids and types are looked for in other files, too.
_ELSEWHERE = ("model_type", "architectures", "dtype", "torch_dtype", "bos_token_id", "eos_token_id")
#: Keys whose meaning, where they are left out, is not that of the class: of code that files were published with; what
#: hangs on other keys, or comes to the same; tables of rotations, which the class has of one published model.
_OTHERWISE: dict[str, tuple[str, ...]] = {
    "axk1": ("first_k_dense_replace",),
    "bailing_hybrid": ("head_dim",),
    "bailing_moe": ("rope_theta", "topk_group"),
    "dbrx": ("rope_theta",),
    "dory": ("layer_types", "n_recurrent_layers"),  # which it writes for attention and FFN apart
    "dots1": ("topk_group",),
    "exaone": ("num_key_value_heads",),
    "glm4_moe": ("topk_group",),
    "gpt_oss": ("rope_scaling",),
    "granite_swa": ("layer_rope_theta",),
    "granitemoe_swa": ("layer_rope_theta",),
    "hrm_text": ("num_layers_per_stack",),  # without which num_hidden_layers is another number
    "hyperclovax": ("attention_multiplier",),
    "kimi_k2": ("n_group", "topk_group"),
    "mimo": ("num_key_value_heads", "attention_bias"),
    "minicpm": ("tie_word_embeddings",),
    "ministral3": ("rope_parameters",),
    "mistral4": ("rope_parameters",),
    "nemotron_h": ("topk_group",),
    "phi3": ("original_max_position_embeddings",),
    "sarvam_moe": ("head_dim",),
    "solar_open": ("topk_group",),
}
#: Keys of transformers' files that are an other key again, which may not be there twice.
_AGAIN = ("num_local_experts", "per_layer_config", "rope_parameters", "transformers_version")


def _read(name: str, data: dict[str, Any]) -> Any:
    try:
        return parse_config(data, load_architecture(name).rules)
    except ModelError as error:
        return str(error)


def _theirs(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What transformers' class makes of a file, as it would write it, and under the names of old files, too."""
    from transformers_models import transformers

    made = transformers.AutoConfig.for_model(**copy.deepcopy(data))
    written: dict[str, Any] = json.loads(json.dumps(made.to_dict(), default=str))
    names = {ours: written[theirs] for ours, theirs in type(made).attribute_map.items() if theirs in written}
    rope = written.get("rope_parameters")
    return written, {**(rope if isinstance(rope, dict) else {}), **names, **written}


def _each_left_out(name: str, tiny: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for key in tiny:
        if key in _ELSEWHERE or key in _OTHERWISE.get(name, ()):
            continue
        less = {other: value for other, value in tiny.items() if other != key}
        try:
            yield key, less, _theirs(less)[1]
        except (*_BEYOND, TypeError, ZeroDivisionError, AttributeError, IndexError):
            continue  # their class cannot be without it


@pytest.mark.parametrize("name", architectures())
def test_what_is_left_out_is_what_the_class_has(name: str) -> None:
    tiny = dict(load_architecture(name).tiny)
    try:
        written = _theirs(tiny)[0]
    except _BEYOND:
        pytest.skip("transformers has no class of it")
    compared = 0
    for key, less, theirs in _each_left_out(name, tiny):
        value, ours = theirs.get(key), _read(name, less)
        if value is None or isinstance(ours, str):
            continue
        compared += 1
        assert ours == _read(name, {**less, key: value}), f"{key} left out is {value} in transformers"
    assert compared > 0
    wanted = _read(name, tiny)
    for key, value in written.items():
        if key not in (*tiny, *_ELSEWHERE, *_AGAIN):
            assert _read(name, {**tiny, key: value}) == wanted, f"{key}={value} is what transformers has"
