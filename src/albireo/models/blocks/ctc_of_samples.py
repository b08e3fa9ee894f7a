"""What models have in common that hear samples and say of each 20 ms what is said there: wav2vec 2.0, HuBERT,
UniSpeech, data2vec, Omnilingual ASR.

Called by the architecture files beside it, and by the tower (models/hearing/wav2vec2.py).
"""

from __future__ import annotations

from typing import Any

from albireo.json_file import Fields, keys
from albireo.models.blocks.frame_heads import head_of_frames
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings

#: Samples a second; and seconds of the longest sound, of what the models were trained with.
RATE, SECONDS = 16000, 30
SAMPLES = RATE * SECONDS
#: Of the convolutions, one behind the other: samples or rows that each sees, and goes on by.
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
#: Samples from one frame to the next; and of which the convolutions make one.
FRAME, FEWEST = 320, 400
#: What is read with the tower, or is of training, or of other heads.
_BESIDE = keys(
    "activation_dropout adapter_attn_dim adapter_kernel_size adapter_stride add_adapter apply_spec_augment",
    "classifier_proj_size codevector_dim contrastive_logits_temperature conv_bias conv_dim conv_kernel conv_stride",
    "ctc_loss_reduction ctc_zero_infinity diversity_loss_weight do_stable_layer_norm feat_extract_activation",
    "feat_extract_dropout feat_extract_norm feat_proj_dropout feat_quantizer_dropout final_dropout layerdrop",
    "mask_channel_length mask_channel_min_space mask_channel_other mask_channel_prob mask_channel_selection",
    "mask_feature_length mask_feature_min_masks mask_feature_min_space mask_feature_prob mask_time_length",
    "mask_time_min_masks mask_time_min_space mask_time_other mask_time_prob mask_time_selection num_adapter_layers",
    "num_codevector_groups num_codevectors_per_group num_conv_pos_embedding_groups num_conv_pos_embeddings",
    "num_feat_extract_layers num_negatives output_hidden_size proj_codevector_dim tdnn_dilation tdnn_dim tdnn_kernel",
    "use_weighted_layer_sum xvector_output_dim conv_pos_batch_norm feat_proj_layer_norm blank_token_id",
    "conv_pos_kernel_size num_ctc_classes replace_prob num_clusters",
    "add_bos_token dropout num_key_value_heads freeze_feat_extract_train no_mask_channel_overlap no_mask_time_overlap",
)


def num_frames(samples: int, times: int = len(KERNELS)) -> int:
    """What so many samples are behind the first convolutions; fewer than one: nothing."""
    for kernel, stride in zip(KERNELS[:times], STRIDES[:times], strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(sound_positions=1, marked_frames=num_frames(SAMPLES))


def rules(
    class_name: str,
    tables: tuple[str, ...] = (),
    beside: frozenset[str] = frozenset(),
    activation: str = "plain",
    **defaults: Any,
) -> ConfigRules:
    """Args: tables: whose keys are the encoder's. beside: further keys of it. activation: see ConfigRules. defaults:
    what absent keys mean."""
    return ConfigRules(
        tables=tables,
        names={"rms_norm_eps": "layer_norm_eps"},
        blocks=_blocks,
        has_rope=False,
        head_dim=2,
        activation=activation,
        defaults={
            "vocab_size": 32,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            # tokens and marks of a sound
            "max_position_embeddings": 2 * num_frames(SAMPLES) + 4,
            "tie_word_embeddings": False,
            **defaults,
        },
        ignorable=_BESIDE | beside,
        class_names=(class_name,),
    )


build = head_of_frames
