"""Keys of a quantization_config that say how codes were chosen: they change nothing once the codes are there.

GPTQModel, AutoAWQ, AutoRound and transformers write those of one another, since each saves what the others made. Used
by gptq.py, awq.py and auto_round.py. What is here the tensors tell as well, or it is nothing that is computed.
Not here: rotation (GPTQModel) and rotation_config (AutoRound), which ask for a transform of activations as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import keys

ROUNDING_KEYS = keys(
    # GPTQModel, AutoGPTQ, transformers
    "sym true_sequential model_name_or_path model_file_base_name damp_percent damp_auto_increment static_groups",
    "lm_head dynamic meta dataset tokenizer batch_size exllama_config use_exllama max_input_length",
    "cache_block_outputs use_cuda_fp16 model_seqlen block_name_to_quantize module_name_preceding_first_block",
    "pad_token_id disable_exllama modules_in_block_to_quantize quant_format act_group_aware offload_to_disk mse",
    "hyb_act method group_aware adapter parallel_packing offload_to_disk_path pack_impl format_version",
    # AutoAWQ
    "do_fuse fuse_max_seq_len modules_to_fuse duo_scaling",
    # AutoRound
    "amp autoround_version enable_minmax_tuning enable_norm_bias_tuning enable_quanted_input extra_config",
    "gradient_accumulate_steps iters low_gpu_mem_usage lr minmax_lr model_free not_use_best_mse nsamples provider",
    "quant_block_list scale_dtype seqlen supported_types to_quant_block_names train_bs",
)
#: And what says nothing as long as it has these values.
ROUNDED: Mapping[str, tuple[Any, ...]] = {"data_type": ("int",)}
