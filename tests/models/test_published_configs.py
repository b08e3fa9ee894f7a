"""config.json of well-known checkpoints, as they were published: keys that are not there yet, old names, and what says
nothing. published_configs.jsonl has keys and values of a checkpoint a line, written down by hand and without those that
no class looks at, and what is read from them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from albireo.models import load_config
from albireo.models.config import ModelConfig
from albireo.models.settings.context import default_context
from albireo.models.settings.text_part import inner
from albireo.models.vision.tower import has_tower, hears, open_ear, open_tower, sees

_LINES = Path(__file__).with_name("published_configs.jsonl").read_text().splitlines()
PUBLISHED: dict[str, dict[str, Any]] = {row["name"]: row for row in map(json.loads, _LINES)}

#: Bases that lie in a table of their own, or are made of one when the model is.
_BASES = ("databricks/dbrx-instruct", "tencent/Hunyuan-0.5B-Instruct")
#: Files that leave the key out, as the code they were published with has it true.
_TIED_BY_THEIR_CODE = ("openbmb/MiniCPM-2B-sft-bf16",)


def _read(directory: Path, name: str) -> ModelConfig:
    (directory / "config.json").write_text(json.dumps(PUBLISHED[name]["config"]))
    return load_config(directory, "float32")


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_read(name: str, tmp_path: Path) -> None:
    config, row = _read(tmp_path, name), PUBLISHED[name]
    found = {
        "layers": config.num_layers,
        "hidden": config.hidden_size,
        "heads": [config.num_heads, config.num_kv_heads, config.head_dim],
        "vocab": config.vocab_size,
        "context": default_context(config),
        "rope": [config.rope.rope_type, config.rope.theta, config.rope.factor],
        "window": min((window for window in config.windows if window), default=None),
        "tied": config.tie_word_embeddings,
        "dtype": config.dtype,
        "eos": list(config.eos_token_ids),
    }
    wanted = row["read"]
    assert {key: value for key, value in found.items() if wanted[key] is not None or key == "window"} == {
        key: value for key, value in wanted.items() if value is not None or key == "window"
    }
    whole = inner(row["config"])
    if has_tower(whole):
        assert open_tower(whole, config.dtype, "config.json").dtype == config.dtype
        if sees(whole) and hears(whole):
            assert open_ear(whole, config.dtype, "config.json").dtype == config.dtype


@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_reads_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from huggingface_hub.errors import StrictDataclassError

    from transformers_models import transformers

    ours = _read(tmp_path, name)
    try:
        whole = transformers.AutoConfig.from_pretrained(tmp_path)
    except (ValueError, StrictDataclassError) as error:
        pytest.skip(f"transformers does not read it: {error}")
    theirs = whole.get_text_config(decoder=True) if ours.pooling is None else whole
    of_latents = ours.blocks.latent is not None
    names = ("num_hidden_layers", "num_layers"), ("hidden_size",), ("vocab_size",), ("num_attention_heads", "num_heads")
    mine = (ours.num_layers, ours.hidden_size, ours.vocab_size, ours.num_heads)
    for keys, value in zip(names, mine, strict=True):
        wanted = next((getattr(theirs, key) for key in keys if getattr(theirs, key, None) is not None), None)
        assert wanted in (value, None) or (keys[0] == "num_attention_heads" and not ours.cached_layers), keys
    kv_heads = getattr(theirs, "num_key_value_heads", None)
    if kv_heads is not None and not of_latents:
        assert ours.num_kv_heads == kv_heads
    rope = getattr(theirs, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    if rope.get("rope_theta") is not None and ours.local_rope is None and name not in _BASES:
        assert ours.rope.theta == rope["rope_theta"]
        assert ours.rope.rope_type == {"mrope": "default"}.get(rope["rope_type"], rope["rope_type"])
    eos = getattr(whole, "eos_token_id", None) or theirs.eos_token_id
    if PUBLISHED[name]["config"].get("eos_token_id") is not None:
        assert list(ours.eos_token_ids) == (eos if isinstance(eos, list) else [eos])
    if ours.pooling is None and name not in _TIED_BY_THEIR_CODE:
        assert ours.tie_word_embeddings == getattr(whole, "tie_word_embeddings", False)
