"""Tensors that checkpoints may hold and graphs do not read, whatever the architecture.

Called by opening.py. Does not know graphs.
"""

from __future__ import annotations

#: Tensors some checkpoints carry that are computed from config.json instead, or that guess tokens behind the next; and
#: masks of causal attention.
IGNORABLE_WEIGHTS = (
    "*.rotary_emb.inv_freq",
    "model.mtp_*",
    "mtp.*",
    *(
        f"{attention}.{mask}"
        for attention in ("transformer.h.*.attn", "*.attention")
        for mask in ("bias", "masked_bias", "causal_mask")
    ),
)
#: A tied checkpoint may hold the head a second time: table -> head.
TIED_WEIGHTS = {
    "model.embed_tokens.weight": "lm_head.weight",
    "model.decoder.embed_tokens.weight": "lm_head.weight",
    "transformer.wte.weight": "lm_head.weight",
    "transformer.word_embeddings.weight": "lm_head.weight",
    "gpt_neox.embed_in.weight": "embed_out.weight",
    "backbone.embeddings.weight": "lm_head.weight",
    "biogpt.embed_tokens.weight": "output_projection.weight",
}
