"""A checkpoint of the qwen2 or llama architecture as a GGUF file of bfloat16: python write_gguf.py MODEL FILE

`llama-quantize FILE OUT Q8_0` makes others of it. For measuring only: byte-level BPE, no chat template; llama.cpp's own
converter wants a tokenizer whose hash it knows. Runs in the environment of the tests.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize
from safetensors import safe_open

BF16 = gguf.GGMLQuantizationType.BF16
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def renamed(name: str) -> str:
    if name in TOP:
        return TOP[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    stem, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{LAYER[stem]}.{kind}"


def interleaved(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of q or k: what rotates together are halves of a head in checkpoints, neighbours in files of llama's."""
    return rows.reshape(num_heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def rope_factors(config: dict[str, Any]) -> np.ndarray:
    """What Llama 3's scaling divides each frequency by."""
    scaling, head_dim = config["rope_scaling"], config["head_dim"]
    low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
    high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
    lengths = 2 * math.pi * config["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    place = scaling["original_max_position_embeddings"] / lengths - scaling["low_freq_factor"]
    smooth = np.clip(place / (scaling["high_freq_factor"] - scaling["low_freq_factor"]), 0, 1)
    factors = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    return np.where(lengths < high, 1.0, np.where(lengths > low, scaling["factor"], factors)).astype(np.float32)


def write_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def write_tokenizer(writer: gguf.GGUFWriter, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    texts = {i: text for text, i in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    tokens = [special.get(i) or texts.get(i) or f"[PAD{i}]" for i in range(config["vocab_size"])]
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if config["model_type"] == "qwen2" else "llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


def write_tensors(writer: gguf.GGUFWriter, config: dict[str, Any], weights: Path) -> None:
    is_llama = config["model_type"] == "llama"
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]} if is_llama else {}
    if is_llama and config.get("rope_scaling"):
        writer.add_tensor("rope_freqs.weight", rope_factors(config))
    with safe_open(weights, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - no mapping
            values = tensors.get_tensor(name).float().numpy()
            if (module := name.split(".")[-2]) in heads:
                values = interleaved(values, heads[module])
            if values.ndim == 1:
                writer.add_tensor(renamed(name), values)
            else:
                writer.add_tensor(renamed(name), quantize(values, BF16), raw_dtype=BF16)


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((source / "config.json").read_text())
    if config["model_type"] not in ("qwen2", "llama"):
        raise SystemExit(f"{config['model_type']!r} models are not written; qwen2 and llama are")
    writer = gguf.GGUFWriter(str(target), config["model_type"], use_temp_file=True)
    writer.add_name(source.name)
    write_settings(writer, config)
    write_tokenizer(writer, config, json.loads((source / "tokenizer.json").read_text()))
    write_tensors(writer, config, source / "model.safetensors")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
