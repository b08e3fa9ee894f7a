"""Checkpoints of models that transformers makes and saves: by the names that models of that kind are published with.

What it saves of a model it has read has the names that were read (tests/backends/reference/test_interpret.py), so that
names which its classes only turn into others as they read them would not be seen there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.models import architectures, build_graph, load_architecture, load_config, open_checkpoint
from backends.reference.test_interpret import Model, assert_same_logits, load_torch_model, prompt, torch_logits
from transformers_models import transformers

torch = pytest.importorskip("torch")

#: Of which names of tensors, or what lies in one, are others in memory.
_RENAMED = ("exaone_moe", "hrm_text")


def _saved(directory: Path, name: str, seed: int | None = None) -> dict[str, Any]:
    """A new model of an architecture, as transformers saves it. Args: seed: of its numbers; None: no matter which."""
    tiny = {**load_architecture(name).tiny}
    (directory / "config.json").write_text(json.dumps(tiny))
    config = transformers.AutoConfig.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if seed is not None:
        torch.manual_seed(seed)
        with torch.no_grad():
            for part in (*model.parameters(), *(b for n, b in model.named_buffers() if "bias" in n)):
                noise = torch.randn(part.shape)
                part.copy_(part + 0.3 * noise if part.ndim == 1 else 1.3 * part.shape[-1] ** -0.5 * noise)
    model.save_pretrained(directory)
    return tiny


@pytest.mark.parametrize("name", architectures())
def test_every_tensor_of_a_new_model_is_known(name: str, tmp_path: Path) -> None:
    _saved(tmp_path, name)
    graph = build_graph(load_config(tmp_path), 64)
    with open_checkpoint(tmp_path, graph) as checkpoint:
        assert len(checkpoint.names) > 5


@pytest.mark.parametrize("name", _RENAMED)
def test_a_new_model_has_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    tokens = prompt(_saved(tmp_path, name, seed=3), 33, 3)
    assert_same_logits(Model(tmp_path).logits(tokens, [20, 1]), torch_logits(load_torch_model(tmp_path), tokens))
    assert np.ptp(Model(tmp_path).logits(tokens)) > 1
