"""What a config.json that leaves a key out means: what transformers' class of it says, whose defaults differ from class
to class.
"""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import architectures, load_architecture
from albireo.models.config import ModelConfig
from albireo.models.config_keys import parse_config
from transformers_models import transformers

#: Ids of tokens, which generation_config.json and tokenizers say where config.json does not.
_OF_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
#: What is otherwise where the key is written as the class has it.
_OTHERWISE = {
    # tied by the code it was published with
    ("minicpm", "tie_word_embeddings"),
    # what transformers writes once it has made something else of it
    ("bailing_hybrid", "head_dim"),
    # the same number, said of each layer or as it is computed
    ("granite_swa", "layer_rope_theta"),
    ("granitemoe_swa", "layer_rope_theta"),
    ("hyperclovax", "attention_multiplier"),
}


def _read(data: dict[str, Any]) -> ModelConfig | None:
    """None: it is refused."""
    try:
        return parse_config(data, load_architecture(data["model_type"]).rules)
    except ModelError:
        return None


@pytest.mark.parametrize("name", architectures())
def test_what_is_left_out_is_what_the_class_says(name: str) -> None:
    tiny = {**load_architecture(name).tiny}
    assert _read(tiny) is not None
    for key in tiny:
        without = {other: value for other, value in tiny.items() if other != key}
        try:
            said = transformers.AutoConfig.for_model(**without).to_dict()
        except Exception:  # its default contradicts other keys
            continue
        if key in said and key not in ("model_type", "rope_parameters", *_OF_TOKENS):
            ours, whole = _read(without), _read({**without, key: said[key]})
            # what is refused without it is asked for
            if ours is not None and whole is not None:
                assert (ours != whole) == ((name, key) in _OTHERWISE), (key, said[key])
