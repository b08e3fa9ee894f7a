"""Published files with smaller numbers and the same keys: weights that transformers draws for them give its logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.reference.test_interpret import Model, assert_same_logits, prompt
from models.test_published_configs import PUBLISHED

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

_HEADS = {"num_attention_heads": 4, "num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 72}
_KV = {**_HEADS, "num_key_value_heads": 2}
_GPT = {"n_embd": 48, "n_head": 4, "n_layer": 2, "n_positions": 64}
#: What is smaller; ... takes a key away.
SHRUNKEN: dict[str, dict[str, Any]] = {
    "openai-community/gpt2-medium": {**_GPT, "n_ctx": 64},
    "bigcode/starcoder": {**_GPT, "n_inner": 96},
    "bigcode/starcoder2-15b": {**_KV, "sliding_window": 8},
    "facebook/galactica-125m": {**_HEADS, "ffn_dim": 72, "word_embed_proj_dim": 48, "intermediate_size": ...},
    "EleutherAI/pythia-70m": {**_HEADS, "hidden_size": 64},
    "EleutherAI/gpt-j-6b": {**_GPT, "rotary_dim": 8},
    "tiiuae/falcon-7b": {key: _HEADS[key] for key in ("num_attention_heads", "num_hidden_layers", "hidden_size")},
    "tiiuae/falcon-mamba-7b": {
        **{"hidden_size": 40, "intermediate_size": 80, "num_hidden_layers": 2, "state_size": 6, "time_step_rank": 5},
        "conv_kernel": 3,
    },
    "state-spaces/mamba-130m-hf": {
        **{"hidden_size": 40, "intermediate_size": 80, "num_hidden_layers": 2, "state_size": 6, "time_step_rank": 5},
        **{"d_model": 40, "d_inner": 80, "n_layer": 2},
    },
    "bigscience/bloom-560m": {"n_embed": 48, "n_layer": 2, "num_attention_heads": 4},
    "microsoft/phi-1": _HEADS,
    "CohereLabs/c4ai-command-r-v01": {**_HEADS, "num_key_value_heads": 4, "logit_scale": 1.0},
    "google/gemma-2b": {**_HEADS, "num_key_value_heads": 1, "head_dim": 16},
    "google/gemma-2-27b": {**_KV, "head_dim": 16, "query_pre_attn_scalar": 12, "sliding_window": 8},
    "NousResearch/Yarn-Mistral-7b-128k": {**_KV, "sliding_window": 128},
    "lmsys/vicuna-7b-v1.5-16k": {**_HEADS, "num_key_value_heads": 4},
    "tiiuae/Falcon3-7B-Instruct": {**_KV, "head_dim": 16},
    "Qwen/QwQ-32B": _KV,
    "ibm-granite/granite-3.0-2b-base": _KV,
    "allenai/OLMo-1B-hf": {**_HEADS, "num_key_value_heads": 4},
    "stabilityai/stablelm-2-12b": {**_KV, "hidden_size": 64},
    "arcee-ai/AFM-4.5B": {**_KV, "head_dim": 16},
}


@pytest.mark.parametrize("name", SHRUNKEN)
def test_logits(name: str, tmp_path: Path) -> None:
    from transformers_models import transformers

    said = {**PUBLISHED[name]["config"], **SHRUNKEN[name], "vocab_size": 97, "torch_dtype": "float32"}
    said |= {key: 1 for key in ("bos_token_id", "eos_token_id") if said.get(key) is not None}
    config = {key: value for key, value in said.items() if value is not ... and key != "auto_map"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.manual_seed(4)
    made = transformers.AutoConfig.from_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()
    with torch.no_grad():
        for key, weight in theirs.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 1.2 * weight[0].numel() ** -0.5)
            elif "norm" in key or "ln_" in key:
                weight.add_(torch.randn(weight.shape) * 0.1)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    tokens = prompt({"vocab_size": 97}, 21, 5)
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor([tokens])).logits[0].numpy()
    assert_same_logits(Model(tmp_path).logits(tokens), wanted)
