"""MiniMax Text-01 and M1 as their authors publish them, of transformers' own classes: MiniMax with the rotations of
MiniMax M2, which turn a part of each head.

Imported by transformers_models.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from transformers_stand_ins import stand_in, transformers

conversion = pytest.importorskip("transformers.conversion_mapping")
minimax = pytest.importorskip("transformers.models.minimax.modeling_minimax")
m2 = pytest.importorskip("transformers.models.minimax_m2.modeling_minimax_m2")

#: Rates of states, which transformers makes itself and published files leave out.
RATES = (".slope_rate", ".query_decay", ".key_decay", ".diagonal_decay")
# the same of a whole head
minimax.apply_rotary_pos_emb = m2.apply_rotary_pos_emb
_BLOCKS = {"linear_attention": "linear_attn", "full_attention": "full_attn", "mlp": "mlp"}


class MiniMaxText01Config(transformers.MiniMaxConfig):
    """First names of its numbers."""

    model_type = "minimax_text_01"

    def __post_init__(self, **said: Any) -> None:
        if (kinds := said.pop("attn_type_list", None)) is not None:
            self.layer_types = [("linear_attention", "full_attention")[kind] for kind in kinds]
        for old, new in _BLOCKS.items():
            for part in ("alpha", "beta"):
                if (number := said.pop(f"layernorm_{old}_{part}", None)) is not None:
                    setattr(self, f"{new}_{part}_factor", number)
        if "rotary_dim" in said:
            said.setdefault("partial_rotary_factor", said["rotary_dim"] / self.head_dim)
        super().__post_init__(**said)


class MiniMaxM1Config(MiniMaxText01Config):
    model_type = "minimax_m1"


class MiniMaxText01Model(transformers.MiniMaxModel):
    config_class = MiniMaxText01Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.rotary_emb = m2.MiniMaxM2RotaryEmbedding(config)


class MiniMaxText01ForCausalLM(transformers.MiniMaxForCausalLM):
    config_class = MiniMaxText01Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = MiniMaxText01Model(config)


class MiniMaxM1Model(MiniMaxText01Model):
    config_class = MiniMaxM1Config


class MiniMaxM1ForCausalLM(MiniMaxText01ForCausalLM):
    config_class = MiniMaxM1Config


def with_exact_rates(model: Any) -> Any:
    """Rates that were rounded with the weights, anew, as they are where a file has none."""
    for module in model.modules():
        if isinstance(module, minimax.MiniMaxLightningAttention):
            module.slope_rate = module.get_slope_rate()
            module.query_decay, module.key_decay, module.diagonal_decay = module.decay_factors(module.slope_rate)
    return model


stand_in(
    "MiniMaxText01",
    "minimax_text_01",
    "MiniMax",
    config=MiniMaxText01Config,
    model=MiniMaxText01Model,
    writer=MiniMaxText01ForCausalLM,
)
stand_in(
    "MiniMaxM1", "minimax_m1", "MiniMax", config=MiniMaxM1Config, model=MiniMaxM1Model, writer=MiniMaxM1ForCausalLM
)
for _model_type in ("minimax_text_01", "minimax_m1"):
    conversion.register_checkpoint_conversion_mapping(
        _model_type, conversion.get_checkpoint_conversion_mapping("minimax"), overwrite=True
    )
