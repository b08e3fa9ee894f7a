"""GPT-Neo: learned positions, a window in layers that are called local, scores that are divided by nothing."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, Positions, decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.multipliers import Multipliers

TINY = {
    "architectures": ["GPTNeoForCausalLM"],
    "model_type": "gpt_neo",
    "vocab_size": 109,
    "hidden_size": 48,
    "intermediate_size": None,
    "num_layers": 2,
    "num_heads": 4,
    "max_position_embeddings": 128,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 11,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


CONFIG = ConfigRules(
    names={
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "sliding_window": "window_size",
        "rms_norm_eps": "layer_norm_epsilon",
        "hidden_act": "activation_function",
    },
    blocks=BlockSettings(is_layer_norm=True, o_bias=True, ffn_bias=True),
    windows="local",
    default_window=256,
    multipliers=Multipliers(attention=1.0),
    ffn_factor=4,
    has_rope=False,
    activation="plain",
    defaults={
        "max_position_embeddings": 2048,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
    },
    ignorable=keys(
        "embed_dropout resid_dropout classifier_dropout",
        "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout",
    ),
    class_names=("GPTNeoForCausalLM",),
)
build = partial(
    decoder,
    names=Names("transformer.h", "attn.attention", "out_proj", "mlp", "c_fc", "c_proj", "ln_1", "ln_2"),
    ends=Ends("transformer.wte.weight", "transformer.ln_f", "lm_head"),
    positions=Positions("transformer.wpe.weight"),
)
