"""Keys of config.json that say nothing, and where else than under their names files have what the others say.

Called by config.py, and for other parts of a model by theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError, short
from albireo.json_file import Fields, keys

#: Keys that do not change what is computed from given weights and tokens.
IGNORABLE_KEYS = keys(
    # where it comes from and who may read it
    "_name_or_path _commit_hash transformers_version unsloth_version unsloth_fixed model_name tokenizer_class",
    "finetuning_task problem_type id2label label2id task_specific_params prefix transformers.js_config",
    "_num_labels is_llama_config custom_pipelines",
    # training only; pretraining_tp says how matrices were once cut
    "initializer_range attention_dropout hidden_dropout embd_pdrop resid_pdrop attn_pdrop gradient_checkpointing",
    "hidden_dropout_prob attention_probs_dropout_prob",
    "pretraining_tp router_aux_loss_coef router_jitter_noise neftune_noise_alpha seq_length",
    # experts' logits are given to who trains them
    "output_router_logits",
    # how some other program runs it
    "use_cache return_dict output_attentions output_hidden_states output_past torchscript use_bfloat16",
    "chunk_size_feed_forward",
    "_attn_implementation _attn_implementation_autoset _attn_implementation_internal attn_implementation",
    "cache_implementation _flash_attn_2_enabled max_sequence_length model_max_length tokenizer_model_max_length",
    "tokenizer_padding_side",
    # of embeddings, whose first so many values are good ones too: which, a caller says
    "matryoshka_dimensions is_matryoshka",
    # ids a decoder never needs
    "pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id decoder_start_token_id",
    # generation defaults that old transformers wrote here; generation_config.json is the place that is read
    "max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups diversity_penalty",
    "temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores return_dict_in_generate",
    "forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty",
    "suppress_tokens begin_suppress_tokens",
)

#: Keys accepted only at these values. For any key not named, null, false, zero and empty are neutral.
NEUTRAL_VALUES: Mapping[str, tuple[Any, ...]] = {
    "partial_rotary_factor": (1.0,),
    "rotary_pct": (1.0,),
    "embedding_multiplier": (1.0,),
    "residual_multiplier": (1.0,),
    "logits_scaling": (1.0,),
    "logit_scale": (1.0,),
    "rotary_emb_base": (),
    "is_causal": (True,),
    "scale_attn_weights": (True,),
    "use_rope": (True,),
    "use_rms_norm": (True,),
    "attention_multiplier": (),
    "query_pre_attn_scalar": (),
    "use_bidirectional_attention": (False,),
    "use_sliding_window": (False,),
    "attention_bias": (False,),
    "attention_out_bias": (False,),
    "use_bias": (False,),
    "mlp_bias": (False,),
    "sliding_window": (),
    "is_encoder_decoder": (False,),
}


def of_older_names(
    data: Mapping[str, Any], names: Mapping[str, str], deciding: frozenset[str], where: str
) -> dict[str, Any]:
    """What older names say, by the newer ones. Args: names, deciding: see ConfigRules.

    Raises: ModelError where two names say different things, and it is not known which is meant.
    """
    found, by = dict[str, Any](), {key: key for key in names.values() if data.get(key) is not None}
    for name, key in names.items():
        value = data.get(name)
        if value is None:
            continue
        other = by.get(key)
        if other is not None and data[other] != value and name not in deciding:
            raise ModelError(
                f"{where}: {name}={short(value)} and {other}={short(data[other])} are two names of the same number or "
                "switch; which one the weights were made with the file does not say: take the wrong one out"
            )
        found[key], by[key] = value, name
    return found


def without_tables(data: Mapping[str, Any], tables: tuple[str, ...], where: str) -> Mapping[str, Any]:
    """The keys of tables beside the others; one that is beside them goes before one in a table.

    Raises: ModelError for a table that is none.
    """
    fields, found = Fields(data, where), dict[str, Any]()
    for name in tables:
        found |= fields.table(name) or {}
    return {**found, **{key: value for key, value in data.items() if key not in tables}}
