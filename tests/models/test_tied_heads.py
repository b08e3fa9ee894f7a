"""Whether the rows of embeddings are those of the head where a config.json does not say it, or says two things: as
transformers decides it, which looks at what lies there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import WeightMismatch
from albireo.json_file import read_json
from albireo.models import load_config
from backends.reference.test_interpret import Model, assert_same_logits, prompt
from tiny_wholes import WHOLES, save

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_KEY = "tie_word_embeddings"


def _say(directory: Path, whole: bool | None, text: bool | None) -> None:
    """What a whole and its text part say; None: nothing."""
    path = directory / "config.json"
    config = read_json(path)
    for of, value in ((config, whole), (config["text_config"], text)):
        of.pop(_KEY, None)
        of |= {} if value is None else {_KEY: value}
    path.write_text(json.dumps(config))


def _logits_of_transformers(directory: Path, tokens: list[int]) -> Any:
    import torch

    model = transformers.AutoModelForImageTextToText.from_pretrained(directory, attn_implementation="eager")
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([tokens])).logits[0].numpy()


def test_a_head_of_its_own_is_read_where_nothing_is_said(tmp_path: Path) -> None:
    """As of Mistral Small 3.1, whose class ties where nothing is said."""
    name = "mistral3 of ministral3"
    save(name, tmp_path)
    tokens = prompt(WHOLES[name]["text_config"], 20, 6)
    wanted = Model(tmp_path).logits(tokens)
    _say(tmp_path, None, None)
    assert not load_config(tmp_path).tie_word_embeddings
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    assert_same_logits(wanted, _logits_of_transformers(tmp_path, tokens))
    (tmp_path / "model.safetensors").unlink()  # of a config.json alone
    assert load_config(tmp_path, "float32").tie_word_embeddings


def test_embeddings_are_the_head_where_a_text_part_says_so_and_there_is_none(tmp_path: Path) -> None:
    """As of LLaVA-OneVision 0.5B, whose whole says the contrary."""
    from safetensors.torch import load_file, save_file

    save("llava_onevision", tmp_path)
    path, head = tmp_path / "model.safetensors", "lm_head.weight"
    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.endswith(head)}
    table = next(tensor for name, tensor in tensors.items() if name.endswith("embed_tokens.weight"))
    save_file({**tensors, head: table.clone()}, path)
    tokens = prompt(WHOLES["llava_onevision"]["text_config"], 20, 6)
    _say(tmp_path, False, False)
    wanted = Model(tmp_path).logits(tokens)
    assert_same_logits(wanted, _logits_of_transformers(tmp_path, tokens))
    save_file(tensors, path)
    _say(tmp_path, False, True)
    assert load_config(tmp_path).tie_word_embeddings
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    save_file({**tensors, head: table + 1.0}, path)
    assert not load_config(tmp_path).tie_word_embeddings
    _say(tmp_path, True, True)
    with pytest.raises(WeightMismatch, match=r"lm_head\.weight differs from .*; set tie_word_embeddings to false"):
        Model(tmp_path)


def test_mamba_without_the_key_is_tied(tmp_path: Path) -> None:
    """Files of before transformers 5 leave out what every class had."""
    import torch

    tiny = {"vocab_size": 67, "hidden_size": 40, "num_hidden_layers": 2, "state_size": 6, "time_step_rank": 4}
    torch.manual_seed(2)
    theirs = transformers.MambaForCausalLM(transformers.MambaConfig(**tiny)).eval()
    theirs.save_pretrained(tmp_path)
    path, tokens = tmp_path / "config.json", prompt(tiny, 12, 3)
    config = read_json(path)
    config.pop(_KEY, None)
    path.write_text(json.dumps(config))
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor([tokens])).logits[0].numpy()
    assert_same_logits(Model(tmp_path).logits(tokens), wanted)
