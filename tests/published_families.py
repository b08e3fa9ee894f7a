"""Families of models that were published with code of their own, as transformers' classes have their layers.

Imported by transformers_models.py. Sources: the code that the models were published with, and vLLM's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from transformers_published import Joined, Layout, publish, torch, transformers

bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
llama = pytest.importorskip("transformers.models.llama.modeling_llama")
gpt2 = pytest.importorskip("transformers.models.gpt2.modeling_gpt2")
qwen3 = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
deepseek_v2 = pytest.importorskip("transformers.models.deepseek_v2.modeling_deepseek_v2")

_QKV = ("q_proj", "k_proj", "v_proj")
_GATE_UP = ("gate_proj", "up_proj")


def _chatglm(said: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": said["padded_vocab_size"],
        "hidden_size": said["hidden_size"],
        "intermediate_size": said["ffn_hidden_size"],
        "num_hidden_layers": said["num_layers"],
        "num_attention_heads": said["num_attention_heads"],
        "num_key_value_heads": said["multi_query_group_num"],
        "head_dim": said["kv_channels"],
        "rms_norm_eps": said["layernorm_epsilon"],
        "attention_bias": said["add_qkv_bias"],
        "max_position_embeddings": said["seq_length"],
        "rope_theta": 1e4 * said["rope_ratio"],
    }


publish(
    "chatglm",
    "ChatGLMForConditionalGeneration",
    "Glm",
    {
        **{"padded_vocab_size": 65024, "hidden_size": 4096, "ffn_hidden_size": 13696, "num_layers": 28},
        **{"num_attention_heads": 32, "multi_query_group_num": 1, "kv_channels": 128, "layernorm_epsilon": 1e-5},
        **{"add_qkv_bias": False, "seq_length": 2048, "rope_ratio": 1, "multi_query_attention": False},
    },
    _chatglm,
    Layout(
        {
            "model.embed_tokens": "transformer.embedding.word_embeddings",
            "model.layers": "transformer.encoder.layers",
            "model.norm": "transformer.encoder.final_layernorm",
            "lm_head": "transformer.output_layer",
            "self_attn.o_proj": "self_attention.dense",
            "self_attn.": "self_attention.",
            "mlp.gate_up_proj": "mlp.dense_h_to_4h",
            "mlp.down_proj": "mlp.dense_4h_to_h",
        },
        (Joined("query_key_value", _QKV),),
    ),
)


def _qwen(said: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: said[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
        "num_key_value_heads": said["num_attention_heads"],
        "intermediate_size": said["intermediate_size"] // 2,
        "rms_norm_eps": said["layer_norm_epsilon"],
        "max_position_embeddings": said["seq_length"],
        "rope_theta": said["rotary_emb_base"],
    }


publish(
    "qwen",
    "QWenLMHeadModel",
    "Qwen2",
    {
        **{"vocab_size": 151936, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
        **{"intermediate_size": 22016, "layer_norm_epsilon": 1e-6, "seq_length": 8192, "rotary_emb_base": 10000},
        **{"kv_channels": 128, "no_bias": True},
    },
    _qwen,
    Layout(
        {
            "model.embed_tokens": "transformer.wte",
            "model.layers": "transformer.h",
            "model.norm": "transformer.ln_f",
            "self_attn.o_proj": "attn.c_proj",
            "self_attn.": "attn.",
            "mlp.up_proj": "mlp.w1",
            "mlp.gate_proj": "mlp.w2",
            "mlp.down_proj": "mlp.c_proj",
            "input_layernorm": "ln_1",
            "post_attention_layernorm": "ln_2",
        },
        (Joined("c_attn", _QKV),),
    ),
)


def _telechat(said: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: said[key] for key in ("vocab_size", "hidden_size")},
        "intermediate_size": said["ffn_hidden_size"],
        "num_hidden_layers": said["n_layer"],
        "num_attention_heads": said["n_head"],
        "rms_norm_eps": said["layer_norm_epsilon"],
        "max_position_embeddings": said["training_seqlen"],
    }


class _WithOutBiases(transformers.LlamaForCausalLM):
    """Whose linears have biases that give what is added."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            for block, name in ((layer.self_attn, "o_proj"), (layer.mlp, "down_proj")):
                old = getattr(block, name)
                setattr(block, name, torch.nn.Linear(old.in_features, old.out_features))


publish(
    "telechat",
    "TeleChat2ForCausalLM",
    "Llama",
    {
        **{"vocab_size": 160256, "hidden_size": 4096, "ffn_hidden_size": 12288, "n_layer": 30, "n_head": 32},
        **{"layer_norm_epsilon": 1e-5, "training_seqlen": 8192},
    },
    _telechat,
    Layout(
        {
            "model.embed_tokens": "transformer.word_embeddings",
            "model.layers": "transformer.h",
            "model.norm": "transformer.ln_f",
            "self_attn.o_proj": "self_attention.dense",
            "self_attn.q_proj": "self_attention.query",
            "self_attn.": "self_attention.",
        },
        (Joined("key_value", ("k_proj", "v_proj"), by_head=True),),
    ),
    _WithOutBiases,
)


class _Still(torch.nn.Module):
    """A rotation by nothing."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim

    def forward(self, x: Any, position_ids: Any) -> tuple[Any, Any]:
        ones = torch.ones(*position_ids.shape, self.head_dim, dtype=x.dtype)
        return ones, torch.zeros_like(ones)


class _NormedHead(torch.nn.Linear):
    def forward(self, x: Any) -> Any:
        return torch.nn.functional.linear(x, torch.nn.functional.normalize(self.weight))


class _Baichuan(transformers.LlamaForCausalLM):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.falls = "max_position_embeddings" not in config._given
        if self.falls:
            self.model.rotary_emb = _Still(config.head_dim)
        if "z_loss_weight" in config._given:
            self.lm_head.__class__ = _NormedHead

    def forward(self, input_ids: Any, **given: Any) -> Any:
        if self.falls:
            ones = torch.ones(1, input_ids.shape[1])
            slopes = bloom.build_alibi_tensor(ones, self.config.num_attention_heads, self.dtype)
            behind = torch.full((1, 1, len(ones[0]), len(ones[0])), torch.finfo(self.dtype).min).triu(1)
            given["attention_mask"] = slopes[None] + behind.to(self.dtype)
        return super().forward(input_ids, **given)


def _plain(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What these names say, for a class that has the same."""
    return lambda said: {key: said[key] for key in names if key in said}


_LLAMA = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps"),
    *("num_key_value_heads", "max_position_embeddings", "rope_theta", "rope_scaling", "head_dim", "attention_bias"),
)
_SIZES = {
    **{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
    **{"num_attention_heads": 32, "rms_norm_eps": 1e-6},
}
_PACKED = Layout({}, (Joined("W_pack", _QKV),))
publish("baichuan", "BaichuanForCausalLM", "Llama", _SIZES | {"vocab_size": 64000}, _plain(*_LLAMA), _PACKED, _Baichuan)
publish(
    "aquila",
    "AquilaForCausalLM",
    "Llama",
    _SIZES | {"max_position_embeddings": 2048},
    _plain(*_LLAMA),
    Layout({}),
)
publish(
    "PanguEmbedded",
    "PanguEmbeddedForCausalLM",
    "Llama",
    _SIZES | {"max_position_embeddings": 32768, "bias": True, "rms_norm_eps": 1e-5, "rope_theta": 16e6},
    lambda said: _plain(*_LLAMA)({**said, "attention_bias": said["bias"]}),
    Layout({}),
)


def _telechat3(said: dict[str, Any]) -> dict[str, Any]:
    rope = said.get("rope_scaling")
    if rope is not None and rope.get("rope_type") == "telechat3-yarn":
        rest = {key: value for key, value in rope.items() if key != "type"}
        rope = {**rest, "rope_type": "yarn", "attention_factor": 0.07 * math.log(rope["factor"]) + 1}
    return _plain(*_LLAMA)({**said, "rope_scaling": rope})


publish(
    "telechat3",
    "TeleChat3ForCausalLM",
    "Llama",
    _SIZES | {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
    _telechat3,
    Layout({}),
)


class _Router(deepseek_v2.DeepseekV2TopkRouter):
    def forward(self, hidden_states: Any) -> Any:
        logits, weights, ids = super().forward(hidden_states)
        return logits, weights / weights.sum(-1, keepdim=True) if self.renormalizes else weights, ids


class _WithExperts(transformers.LlamaForCausalLM):
    """Experts of DeepSeek V2 behind dense layers."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer in self.model.layers[config.first_k_dense_replace :]:
            layer.mlp = deepseek_v2.DeepseekV2Moe(config)
            layer.mlp.gate.__class__ = _Router
            layer.mlp.gate.renormalizes = config.norm_topk_prob


_DEEPSEEK = {"topk_method": "greedy", "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1}
publish(
    "deepseek",
    "DeepseekForCausalLM",
    "Llama",
    _SIZES | {"vocab_size": 102400, "max_position_embeddings": 2048, "norm_topk_prob": False},
    lambda said: {
        **_plain(*_LLAMA, "moe_intermediate_size", "n_shared_experts", "num_experts_per_tok", "norm_topk_prob")(said),
        **_DEEPSEEK,
        **{"num_experts": said["n_routed_experts"], "num_local_experts": said["n_routed_experts"]},
        "first_k_dense_replace": said["first_k_dense_replace"],
    },
    Layout({}, has_experts=True),
    _WithExperts,
)


def _of_layer(config: Any, layer: int) -> Any:
    found = copy.copy(config)
    found.num_attention_heads, found.num_key_value_heads = config.heads[layer], config.kv_heads[layer]
    found.intermediate_size = config.widths[layer]
    return found


class _OpenELM(transformers.Qwen3ForCausalLM):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for i in range(config.num_hidden_layers):
            self.model.layers[i] = qwen3.Qwen3DecoderLayer(_of_layer(config, i), i)


def _openelm(said: dict[str, Any]) -> dict[str, Any]:
    step, widths = said["ffn_dim_divisor"], []
    for factor in said["ffn_multipliers"]:
        wanted = factor * said["model_dim"]
        width = max(step, int(wanted + step / 2) // step * step)
        widths.append(width + step if width < 0.9 * wanted else width)
    return {
        **{"vocab_size": said["vocab_size"], "hidden_size": said["model_dim"], "head_dim": said["head_dim"]},
        **{"num_hidden_layers": said["num_transformer_layers"], "rms_norm_eps": 1e-6, "intermediate_size": widths[0]},
        **{"num_attention_heads": said["num_query_heads"][0], "num_key_value_heads": said["num_kv_heads"][0]},
        **{"max_position_embeddings": said["max_context_length"], "rope_theta": said["rope_freq_constant"]},
        "tie_word_embeddings": said["share_input_output_layers"],
        **{"heads": said["num_query_heads"], "kv_heads": said["num_kv_heads"], "widths": widths},
    }


publish(
    "openelm",
    "OpenELMForCausalLM",
    "Qwen3",
    {
        **{"vocab_size": 32000, "max_context_length": 2048, "head_dim": 128, "rope_freq_constant": 10000},
        **{"share_input_output_layers": True, "ffn_dim_divisor": 256},
    },
    _openelm,
    Layout(
        {
            "model.embed_tokens": "transformer.token_embeddings",
            "model.layers": "transformer.layers",
            "model.norm": "transformer.norm",
            "self_attn.o_proj": "attn.out_proj",
            "self_attn.": "attn.",
            "mlp.gate_up_proj": "ffn.proj_1",
            "mlp.down_proj": "ffn.proj_2",
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "ffn_norm",
        },
        (Joined("qkv_proj", _QKV), Joined("gate_up_proj", _GATE_UP)),
    ),
    _OpenELM,
)


class _Solar(transformers.MistralForCausalLM):
    """Some layers keep what they read, and some read a mean of theirs and what an earlier one kept."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        kept: dict[str, Any] = {}
        for number, layer in enumerate(self.model.layers):
            layer.register_forward_pre_hook(partial(_skip, number, config._given, kept))


def _skip(number: int, said: dict[str, Any], kept: dict[str, Any], _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    x, part = args[0], said["bskcn_tv"][1]
    kept |= {keep: x for keep in ("bskcn_1", "bskcn_2") if number in said[keep]}
    for keep, read in (("bskcn_1", "bskcn_3"), ("bskcn_2", "bskcn_4")):
        if number in said[read]:
            x = kept[keep] * part + x * (1 - part)
    return (x, *args[1:])


publish(
    "solar",
    "SolarForCausalLM",
    "Mistral",
    _SIZES
    | {
        **{"bskcn_1": [12, 20, 32, 44], "bskcn_2": [20, 32], "bskcn_3": [16, 24, 36, 48], "bskcn_4": [28, 40]},
        **{"bskcn_tv": [0.9, 0.8], "max_position_embeddings": 2048, "sliding_window": 2047},
    },
    lambda said: (
        {"num_key_value_heads": said["num_attention_heads"], **_plain(*_LLAMA)(said)}
        | {"sliding_window": said["sliding_window"]}
    ),
    Layout({}),
    _Solar,
)


class _Deci(transformers.LlamaForCausalLM):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for i, heads in enumerate(config._given["num_key_value_heads_per_layer"]):
            own = copy.copy(config)
            own.num_key_value_heads = heads
            self.model.layers[i] = llama.LlamaDecoderLayer(own, i)


publish(
    "deci",
    "DeciLMForCausalLM",
    "Llama",
    _SIZES | {"max_position_embeddings": 2048},
    _plain(*_LLAMA),
    Layout({}),
    _Deci,
)


class _Ouro(transformers.LlamaForCausalLM):
    """Its layers are gone through several times, with a norm behind each."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            for name in ("input_layernorm_2", "post_attention_layernorm_2"):
                setattr(layer, name, llama.LlamaRMSNorm(config.hidden_size, config.rms_norm_eps))

    def forward(self, input_ids: Any, **_: Any) -> Any:
        x, places = self.model.embed_tokens(input_ids), torch.arange(input_ids.shape[1])[None]
        turned, mask = self.model.rotary_emb(x, places), _causal(places.shape[1], x.dtype)
        for _step in range(self.config._given["total_ut_steps"]):
            for layer in self.model.layers:
                h = layer.input_layernorm(x)
                h = layer.self_attn(hidden_states=h, position_embeddings=turned, attention_mask=mask)[0]
                x = x + layer.input_layernorm_2(h)
                h = layer.mlp(layer.post_attention_layernorm(x))
                x = x + layer.post_attention_layernorm_2(h)
            x = self.model.norm(x)
        return transformers.modeling_outputs.CausalLMOutput(logits=self.lm_head(x))


def _causal(count: int, dtype: Any) -> Any:
    return torch.full((1, 1, count, count), torch.finfo(torch.float32).min).triu(1).to(dtype)


publish(
    "ouro",
    "OuroForCausalLM",
    "Llama",
    _SIZES | {"max_position_embeddings": 2048, "total_ut_steps": 4},
    _plain(*_LLAMA),
    Layout({}),
    _Ouro,
)


class _Jais(transformers.GPT2LMHeadModel):
    """Scores fall with distance, FFNs have a gate, and numbers multiply embeddings, scores and logits."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        del self.transformer.wpe
        for block in self.transformer.h:
            block.mlp.c_fc2 = gpt2.Conv1D(config.n_inner, config.n_embd)

    def forward(self, input_ids: Any, **_: Any) -> Any:
        said, heads = self.config._given, self.config.n_head
        x, count = self.transformer.wte(input_ids) * said["embeddings_scale"], input_ids.shape[1]
        falls = bloom.build_alibi_tensor(torch.ones(1, count), heads, x.dtype) + _causal(count, x.dtype)
        dim = x.shape[-1] // heads
        scale = 1 / dim if said["scale_qk_dot_by_d"] else dim**-0.5
        for block in self.transformer.h:
            parts = block.attn.c_attn(block.ln_1(x)).split(x.shape[-1], -1)
            q, k, v = (part.unflatten(-1, (heads, dim)).transpose(1, 2) for part in parts)
            a = torch.softmax(q @ k.mT * scale + falls, -1) @ v
            x = x + block.attn.c_proj(a.transpose(1, 2).flatten(2))
            h = block.ln_2(x)
            x = x + block.mlp.c_proj(block.mlp.c_fc(h) * torch.nn.functional.silu(block.mlp.c_fc2(h)))
        logits = self.lm_head(self.transformer.ln_f(x)) * said["width_scale"]
        return transformers.modeling_outputs.CausalLMOutput(logits=logits)


_OF_GPT = {
    **{"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "n_inner": None},
    **{"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
}
publish(
    "jais",
    "JAISLMHeadModel",
    "GPT2",
    _OF_GPT | {"embeddings_scale": 1.0, "width_scale": 1.0, "scale_qk_dot_by_d": False},
    _plain(*_OF_GPT),
    Layout({}),
    _Jais,
)


def _phi(said: dict[str, Any]) -> dict[str, Any]:
    return {
        **{"vocab_size": said["vocab_size"], "hidden_size": said["n_embd"], "num_hidden_layers": said["n_layer"]},
        **{"num_attention_heads": said["n_head"], "intermediate_size": said["n_inner"] or 4 * said["n_embd"]},
        **{"layer_norm_eps": said["layer_norm_epsilon"], "max_position_embeddings": said["n_positions"]},
        **{"partial_rotary_factor": said["rotary_dim"] / (said["n_embd"] // said["n_head"]), "rope_theta": 10000.0},
        "hidden_act": said["activation_function"],
    }


publish(
    "phi-msft",
    "PhiForCausalLM",
    "Phi",
    {
        **{"vocab_size": 50304, "n_embd": 1024, "n_layer": 20, "n_head": 16, "n_positions": 2048, "n_inner": None},
        **{"rotary_dim": 32, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5},
    },
    _phi,
    Layout(
        {
            "model.embed_tokens": "transformer.embd.wte",
            "model.layers": "transformer.h",
            "model.final_layernorm": "lm_head.ln",
            "lm_head": "lm_head.linear",
            "self_attn.dense": "mixer.out_proj",
            "self_attn.": "mixer.",
            "input_layernorm": "ln",
        },
        (Joined("Wqkv", _QKV),),
    ),
)
publish(
    "stablelm_epoch",
    "StableLMEpochForCausalLM",
    "StableLm",
    {"norm_eps": 1e-5, "rope_pct": 0.25, "max_position_embeddings": 4096},
    lambda said: {
        **_plain(*_LLAMA, "use_qkv_bias")(said),
        **{"layer_norm_eps": said["norm_eps"], "partial_rotary_factor": said["rope_pct"]},
    },
    Layout({}),
)
