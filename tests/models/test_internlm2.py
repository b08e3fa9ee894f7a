"""InternLM 2 by the names of its authors, alone and as the text part of their InternVL: the bits of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from albireo import LLM, PoolingParams
from albireo.errors import UnsupportedFeature
from albireo.models import load_architecture
from albireo.models.config_keys import parse_config
from artifact.engines import run
from tiny_layer_norm import with_changes
from tiny_models import make_checkpoint
from variants import tiny_of

#: Names here -> those of the authors, in this order; independently of albireo.models.
_NAMES = (
    ("model.embed_tokens.", "model.tok_embeddings."),
    ("lm_head.", "output."),
    (".self_attn.qkv_proj.", ".attention.wqkv."),
    (".self_attn.o_proj.", ".attention.wo."),
    (".mlp.gate_proj.", ".feed_forward.w1."),
    (".mlp.down_proj.", ".feed_forward.w2."),
    (".mlp.up_proj.", ".feed_forward.w3."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
)
#: Of internlm2-chat-1_8b beside sizes.
_PUBLISHED = {
    "auto_map": {
        "AutoConfig": "configuration_internlm2.InternLM2Config",
        "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
    },
    "attn_implementation": "eager",
    "initializer_range": 0.02,
    "use_cache": True,
}


def authors(name: str) -> str:
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs)
    return name


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "plain", with_changes(tiny_of("internlm2"), {}), seed=5)


def published(plain: Path, folder: Path, prefix: str = "") -> Path:
    shutil.copytree(plain, folder)
    tensors = load_file(plain / "model.safetensors")
    save_file({f"{prefix}{authors(name)}": value for name, value in tensors.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | _PUBLISHED))
    return folder


def test_tensors_and_keys_as_published(plain: Path, tmp_path: Path) -> None:
    names = load_file(published(plain, tmp_path / "published") / "model.safetensors")
    assert {"model.tok_embeddings.weight", "output.weight", "model.layers.1.attention.wqkv.weight"} <= set(names)
    assert run(tmp_path / "published") == run(plain)


def test_as_the_text_part_of_internvl(plain: Path, tmp_path: Path) -> None:
    """Whose tower is left where it lies."""
    folder = published(plain, tmp_path / "published", "language_model.")
    text = json.loads((folder / "config.json").read_text())
    whole: dict[str, Any] = {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "llm_config": text,
        "vision_config": {"model_type": "intern_vit_6b"},
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(whole))
    assert run(folder) == run(plain)


def test_rewards_as_published(plain: Path, tmp_path: Path) -> None:
    """A linear of what the last token leaves; nothing writes text."""
    folder, path = published(plain, tmp_path / "rewards"), tmp_path / "rewards" / "model.safetensors"
    tensors = {name: value for name, value in load_file(path).items() if name != "output.weight"}
    head = np.random.default_rng(1).normal(0, 0.3, (1, tensors["model.norm.weight"].size)).astype(np.float32)
    save_file(tensors | {"v_head.weight": head}, path)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoModel": "modeling_internlm2.InternLM2ForRewardModel"}
    changes = {"architectures": ["InternLM2ForRewardModel"], "auto_map": code, "reward_token_id": 92527}
    (folder / "config.json").write_text(json.dumps(config | changes))
    settings: dict[str, Any] = {"dtype": "float32", "num_threads": 1, "skip_tokenizer_init": True}
    asked = [{"prompt_token_ids": ids} for ids in ([5, 9, 3], [7], [8, 4, 6, 100])]
    with LLM(str(plain), **settings) as llm:
        states = llm.embed(asked, PoolingParams(use_activation=False), use_tqdm=False)
    with LLM(str(folder), **settings) as llm:
        found = llm.classify(asked, use_tqdm=False)
        with pytest.raises(UnsupportedFeature, match="gives scores of 1 label"):
            llm.generate(asked[0], use_tqdm=False)
    wanted = [head.astype(np.float64) @ state.outputs.embedding for state in states]
    np.testing.assert_allclose([output.outputs.probs for output in found], wanted, rtol=1e-5, atol=1e-6)


def test_what_is_left_out_means_what_its_class_has() -> None:
    rules = load_architecture("internlm2").rules
    found = parse_config({"model_type": "internlm2", "torch_dtype": "bfloat16"}, rules)
    assert (found.vocab_size, found.hidden_size, found.num_kv_heads) == (103168, 4096, 32) and found.attention_bias
    assert not parse_config({"model_type": "internlm2", "bias": False}, rules).attention_bias
