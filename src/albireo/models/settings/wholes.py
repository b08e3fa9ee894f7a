"""WHOLES: models with a text part, by their model_type; those that hear and do not see are in hearing_wholes.py.

Read by text_part.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from albireo.json_file import keys
from albireo.models.settings.deepseek_ocr import CLASS_NAME, CLASS_NAME2, DEEPSEEK_OCR, DEEPSEEK_OCR2
from albireo.models.settings.hearing_wholes import OF_SOUNDS_ALONE
from albireo.models.settings.internvl_chat import INTERNVL_CHAT, INTERNVL_CHAT_KEYS
from albireo.models.settings.minicpmv import MINICPMO, MINICPMV, OF_SIGHT, OF_SOUNDS, PARTS
from albireo.models.settings.whole import Whole

#: Of Idefics 3 and SmolVLM: what their own Llama could do beside others', and did not.
_IDEFICS = Whole(
    "Idefics3ForConditionalGeneration",
    {"llama": "llama"},
    neutral={"qk_layer_norms": False, "use_resampler": False, "rope_interleaved": False},
    ignored=keys("perceiver_config pixel_shuffle_factor"),
)
_LFM2 = Whole("Lfm2VlForConditionalGeneration", {"lfm2": "lfm2"})
_QWEN2_SECTIONS, _QWEN3_5_SECTIONS, _QWEN3_VL_SECTIONS = (16, 24, 24), (11, 11, 10), (24, 20, 20)
_QWEN2_VL = Whole(
    "Qwen2VLForConditionalGeneration",
    {"qwen2_vl_text": "qwen2"},
    {"rope_theta": 1000000.0, "rms_norm_eps": 1e-5},
    # once written into either part
    ignored=keys("vision_start_token_id vision_end_token_id vision_token_id image_token_id video_token_id"),
    sections=_QWEN2_SECTIONS,
    takes_turns=False,
    may_be_flat=True,
)
#: Of Qwen's omni models: what makes speech of what they write, and how what is heard in a video goes with what is seen.
SPEAKING = ("talker_config", "token2wav_config", "code2wav_config")
_OF_OMNI = keys(
    *SPEAKING,
    "enable_audio_output enable_talker init_std",
    "im_start_token_id im_end_token_id tts_pad_token_id tts_bos_token_id tts_eos_token_id",
    "system_token_id assistant_token_id position_id_per_seconds seconds_per_chunk video_token_index",
)
_QWEN2_5_OMNI = Whole(
    "Qwen2_5OmniForConditionalGeneration",
    {"qwen2_5_omni_text": "qwen2"},
    {"rope_theta": 1000000.0, "tie_word_embeddings": False},
    # the whole says whether embeddings are tied
    ignored=keys("init_std tie_word_embeddings"),
    beside=_OF_OMNI,
    sections=_QWEN2_SECTIONS,
    takes_turns=False,
    # as it was first published; and the part that is computed here by itself
    other_classes=("Qwen2_5OmniModel", "Qwen2_5OmniThinkerForConditionalGeneration"),
)
#: Ids of tokens around pictures, which files have in either part.
_AROUND_PICTURES = keys("image_start_token_id image_end_token_id video_start_token_id video_end_token_id")
_GLM4V = Whole(
    "Glm4vForConditionalGeneration",
    {"glm4v_text": "glm4"},
    {"rms_norm_eps": 1e-5, "partial_rotary_factor": 1.0},
    {"attention_bias": True},
    ignored=_AROUND_PICTURES | keys("image_token_id video_token_id"),
    beside=_AROUND_PICTURES,
    sections=(8, 12, 12),
    takes_turns=False,
    may_be_flat=True,
    cuts_width=True,
)
#: As files of HunyuanOCR have them in either part.
_HUNYUAN_TOKENS = keys(
    "im_start_id im_end_id im_newline_id image_start_token_id image_end_token_id image_newline_token_id image_token_id"
)
_LLAVA = Whole(
    "LlavaForConditionalGeneration",
    {"llama": "llama", "mistral": "mistral"},
    # of Pixtral
    ignored=keys("is_composition"),
)
_INTERNVL = Whole(
    "InternVLForConditionalGeneration",
    {kind: kind for kind in ("qwen2", "llama", "qwen3", "qwen3_moe", "gpt_oss", "internlm2", "phi3", "mistral")},
)
_MINICPM = Whole(
    "MiniCPMV4_6ForConditionalGeneration",
    {"qwen3_5_text": "qwen3_5_text"},
    beside=keys(
        "insert_layer_id image_size patch_size drop_vision_last_layer downsample_mode merge_kernel_size merger_times"
    ),
)
_GOT_OCR2 = Whole(
    "GotOcr2ForConditionalGeneration",
    {"qwen2": "qwen2"},
    {"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": True},
)
_DEEPSEEK_OCR = Whole(
    CLASS_NAME,
    {"deepseek": "deepseek"},
    {"tie_word_embeddings": False},
    # of latent attention and of groups of experts, which there are none of
    neutral={
        "topk_method": "greedy",
        **{"n_group": 1, "topk_group": 1, "use_mla": False, "kv_lora_rank": None, "q_lora_rank": None, "v_head_dim": 0},
        **{"qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "lm_head": True, "rm_head": False},
    },
    # all keys of the text part are there twice
    may_be_flat=True,
)
#: By the model_type of the whole.
WHOLES: Mapping[str, Whole] = {
    **OF_SOUNDS_ALONE,
    "apertus1p5": Whole(
        "Apertus1p5ForConditionalGeneration",
        {"apertus1p5_text": "apertus1p5_text"},
        beside=keys("image_token_offset audio_token_offset"),
    ),
    "aya_vision": Whole(
        "AyaVisionForConditionalGeneration",
        {"cohere2": "cohere2", "cohere": "cohere"},
        beside=keys("adapter_layer_norm_eps alignment_intermediate_size alignment_activation_fn max_splits_per_img"),
    ),
    "clip": Whole(
        "CLIPModel",
        {"clip_text_model": "clip_text_model"},
        beside=keys("projection_dim logit_scale_init_value initializer_factor logit_scale"),
    ),
    "cohere2_vision": Whole(
        "Cohere2VisionForConditionalGeneration",
        {"cohere2": "cohere2"},
        beside=keys(
            "alignment_intermediate_size alignment_activation_fn max_splits_per_img adapter_layer_norm_eps image_token",
        ),
    ),
    "cohere_compass": Whole("CohereCompassForConditionalGeneration", {"cohere_compass_text": "cohere_compass_text"}),
    DEEPSEEK_OCR: _DEEPSEEK_OCR,
    DEEPSEEK_OCR2: replace(_DEEPSEEK_OCR, class_name=CLASS_NAME2),
    "dots3_note": Whole(
        "Dots3NoteForConditionalGeneration",
        {"dots3_note_text": "dots3_note_text"},
        # text alone, as published files may name it
        other_classes=("Dots3NoteForCausalLM",),
        may_be_flat=True,
    ),
    "dots_ocr": Whole(
        "DotsOCRForCausalLM",
        {"qwen2": "qwen2"},
        {"tie_word_embeddings": False},
        # of queries, keys and values, which have one
        neutral={"attention_bias": True},
        may_be_flat=True,
    ),
    "ernie4_5_vl_moe": Whole(
        "Ernie4_5_VLMoeForConditionalGeneration",
        {"ernie4_5_vl_moe_text": "ernie4_5_moe"},
        {
            "moe_intermediate_size": [1536, 512],
            "moe_num_experts": 64,
            "moe_k": 6,
            "moe_num_shared_experts": 2,
            "max_position_embeddings": 131072,
        },
        beside=_AROUND_PICTURES,
        sections=(22, 22, 20),
        ends_with_time=True,
        other_classes=("Ernie4_5_VL_MoeForConditionalGeneration",),
    ),
    "exaone4_5": Whole(
        "Exaone4_5_ForConditionalGeneration",
        # as transformers has it, and as it was first published
        {"exaone4": "exaone4", "exaone4_5_text": "exaone4"},
        # of layers behind the last
        ignored=keys("_num_mtp_layers num_nextn_predict_layers mtp_loss_scaling_factor mtp_share_layers"),
    ),
    "gemma3": Whole("Gemma3ForConditionalGeneration", {"gemma3_text": "gemma3_text"}, sees_images_both_ways=True),
    "gemma4": Whole(
        "Gemma4ForConditionalGeneration",
        {"gemma4_text": "gemma4_text"},
        sees_images_both_ways="vision",
        are_windows_kept=True,
    ),
    "gemma4_unified": Whole(
        "Gemma4UnifiedForConditionalGeneration",
        {"gemma4_unified_text": "gemma4_unified_text"},
        {"use_bidirectional_attention": "vision"},
        sees_images_both_ways="vision",
        are_windows_kept=True,
    ),
    "gemma3n": Whole(
        "Gemma3nForConditionalGeneration",
        {"gemma3n_text": "gemma3n_text"},
        beside=keys("audio_soft_tokens_per_image"),
    ),
    "glm46v": replace(_GLM4V, class_name="Glm46VForConditionalGeneration"),
    "glm4v": _GLM4V,
    "glm4v_moe": replace(
        _GLM4V,
        class_name="Glm4vMoeForConditionalGeneration",
        parts={"glm4v_moe_text": "glm4_moe"},
        defaults={"attention_bias": True},
        always={},
    ),
    "glm5_next": Whole(
        "Glm5NextForConditionalGeneration",
        {"glm5_next_text": "glm5_next_text"},
        beside=_AROUND_PICTURES,
        may_be_flat=True,
    ),
    "glm_ocr": replace(
        _GLM4V,
        class_name="GlmOcrForConditionalGeneration",
        parts={"glm_ocr_text": "glm4"},
        always={"attention_bias": False},
    ),
    "granite4_vision": Whole(
        "Granite4VisionForConditionalGeneration",
        {"granite4_vision_text": "granite", "granite": "granite"},
        # of models of text alone that are as old
        beside=keys(
            "downsample_rate deepstack_layer_map spatial_vision_layer spatial_target_layers projector_dropout",
            "qformer_config image_grid_pinpoints use_image_newline_parameter use_spatial_sampling spatial_stride",
        ),
    ),
    "got_ocr2": _GOT_OCR2,
    "pp_chart2table": replace(
        _GOT_OCR2,
        # of a Qwen 2, whatever code its files name
        ignored=keys("auto_map"),
        beside=keys("freeze_vision_tower use_im_start_end im_start_token im_end_token max_window_layers"),
    ),
    "hunyuan_vl": Whole(
        "HunYuanVLForConditionalGeneration",
        {"hunyuan_vl_text": "hunyuan_v1_dense"},
        {"tie_word_embeddings": True, "head_dim": 128},
        neutral={"num_experts": 1, "use_cla": False, "routed_scaling_factor": 1.0},
        ignored=_HUNYUAN_TOKENS,
        beside=_HUNYUAN_TOKENS,
        sections=(16, 16, 16, 16),
        takes_turns=False,
        are_beside=True,
        may_be_flat=True,
    ),
    "hyperclovax_vision_v2": Whole(
        "HyperCLOVAXVisionV2ForConditionalGeneration",
        {"hyperclovax": "hyperclovax"},
        # of pictures, and of training
        beside=keys(
            "anyres decoder_max_length end_token_id freeze_before_sampler freeze_decoder freeze_encoder",
            "freeze_mm_projector img_start_id is_safetensor_save max_image_cnt max_num_grids mm_projector_type",
            "num_queries_vis_abstractor possible_resolutions proj_pos_emb proj_prenorm unpad use_1x1_grid",
            "use_nth_layer video_num_queries_fast video_num_queries_slow video_start_id",
        ),
        # as it was published
        other_classes=("HCXVisionV2ForCausalLM",),
    ),
    "idefics2": replace(
        _IDEFICS,
        class_name="Idefics2ForConditionalGeneration",
        parts={"mistral": "mistral"},
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False},
        beside=keys("perceiver_config"),
    ),
    "idefics3": _IDEFICS,
    "siglip": Whole("SiglipModel", {"siglip_text_model": "siglip_text_model"}, beside=keys("initializer_factor")),
    "smolvlm": replace(_IDEFICS, class_name="SmolVLMForConditionalGeneration"),
    "internvl": _INTERNVL,
    INTERNVL_CHAT: replace(
        _INTERNVL,
        class_name="InternVLChatModel",
        beside=INTERNVL_CHAT_KEYS,
        other_classes=("SkyworkR1VChatModel",),
    ),
    # its files have keys of internvl_chat, which say what transformers does anyway
    "qianfan_ocr": replace(
        _INTERNVL,
        class_name="QianfanOCRForConditionalGeneration",
        parts={"qwen3": "qwen3"},
        beside=INTERNVL_CHAT_KEYS | keys("select_layer"),
    ),
    # heads of their own, which files do not say
    "deepseek_vl": Whole("DeepseekVLForConditionalGeneration", {"llama": "llama"}, {"tie_word_embeddings": False}),
    "janus": Whole(
        "JanusForConditionalGeneration", {"llama": "llama"}, {"tie_word_embeddings": False}, beside=keys("vq_config")
    ),
    "lfm3_vl": Whole("Lfm3VlForConditionalGeneration", {"lfm3": "lfm3"}),
    "lfm2_vl": _LFM2,
    # as it was first published
    "lfm2-vl": _LFM2,
    "lighton_ocr": Whole("LightOnOcrForConditionalGeneration", {"qwen3": "qwen3"}, {"tie_word_embeddings": True}),
    "llama4": Whole("Llama4ForConditionalGeneration", {"llama4_text": "llama4_text"}),
    "llava": _LLAVA,
    "step3p7": Whole(
        "Step3p7ForConditionalGeneration",
        {"step3p5": "step3p5"},
        # of pictures
        beside=keys(
            "understand_projector_stride image_token_len patch_token_len vision_select_layer use_im_start_end",
            "im_start_token im_end_token im_patch_token",
        ),
    ),
    "video_llama_3": Whole("VideoLlama3ForConditionalGeneration", {"qwen2": "qwen2"}, neutral={"use_mrope": False}),
    "vipllava": replace(
        _LLAVA,
        class_name="VipLlavaForConditionalGeneration",
        parts={"llama": "llama"},
        beside=keys("projector_layernorm_eps projector_layernorm vision_feature_layers"),
    ),
    "llava_next": replace(
        _LLAVA,
        class_name="LlavaNextForConditionalGeneration",
        parts={kind: kind for kind in ("llama", "mistral", "qwen2", "granite")},
        # the head of the whole divides nothing, where Granite's own does
        ignored=_LLAVA.ignored | keys("logits_scaling"),
        beside=keys("image_grid_pinpoints use_image_newline_parameter"),
        multiplies_images=True,
    ),
    "llava_onevision": Whole(
        "LlavaOnevisionForConditionalGeneration",
        {"qwen2": "qwen2"},
        beside=keys("image_grid_pinpoints vision_aspect_ratio video_token_index use_image_newline_parameter"),
    ),
    **{
        name: Whole(
            f"{name}ForConditionalGeneration",
            {"qwen3": "qwen3"},
            sections=_QWEN2_SECTIONS,
            takes_turns=False,
            may_be_flat=True,
        )
        for name in ("Keye", "KeyeVL1_5")
    },
    "kimi_k25": Whole(
        "KimiK25ForConditionalGeneration",
        {"deepseek_v3": "deepseek_v3", "kimi_k2": "kimi_k2"},
        beside=keys("projection_hidden_size projection_layer_norm_eps"),
        # as transformers has it
        other_classes=("Kimi_K25ForConditionalGeneration",),
    ),
    "kimi_vl": Whole("KimiVLForConditionalGeneration", {"deepseek_v3": "deepseek_v3"}, {"tie_word_embeddings": False}),
    "minimax_m3_vl": Whole(
        "MiniMaxM3SparseForConditionalGeneration",
        # as transformers has it, and as it was published
        {"minimax_m3_vl_text": "minimax_m3_vl_text", "minimax_m2": "minimax_m3_vl_text"},
        beside=keys("video_token_index merged_hidden_size img_token_compression_config"),
    ),
    "minicpm_ocr": replace(
        _MINICPM, class_name="MiniCPMOcrForConditionalGeneration", defaults={"tie_word_embeddings": True}
    ),
    MINICPMO: Whole("MiniCPMO", {part: part for part in PARTS.values()}, beside=OF_SIGHT | OF_SOUNDS),
    MINICPMV: Whole("MiniCPMV", {part: part for part in PARTS.values()}, beside=OF_SIGHT),
    "minicpmv4_6": _MINICPM,
    "mistral3": Whole(
        "Mistral3ForConditionalGeneration",
        # the last as GGUF files of Mistral Small 3.1 have it
        {kind: kind for kind in ("mistral", "ministral3", "mistral4", "llama")},
        {"tie_word_embeddings": True},
    ),
    "mistral_large4": Whole(
        "MistralLarge4ForConditionalGeneration",
        {"mistral_large4_text": "mistral_large4_text"},
        {"tie_word_embeddings": False},
    ),
    "nemotron_h_omni": Whole(
        "NemotronH_Omni_Reasoning_V3",
        {"nemotron_h": "nemotron_h"},
        {"tie_word_embeddings": False},
        beside=keys(
            "force_image_size vision_hidden_size video_pruning_rate video_temporal_patch_size min_num_patches",
            "img_context_token img_start_token img_end_token sound_context_token video_context_token patch_size",
            "norm_mean norm_std ps_version template image_tag_type use_pixel_shuffle dynamic_resolution",
        ),
        other_classes=("NemotronH_Nano_Omni_Reasoning_V3",),
    ),
    "opencua": Whole("OpenCUAForConditionalGeneration", {"qwen2": "qwen2"}, {"tie_word_embeddings": False}),
    "ovis2": Whole(
        "Ovis2ForConditionalGeneration",
        {"qwen2": "qwen2"},
        {"tie_word_embeddings": True},
        beside=keys("visual_indicator_token_ids hidden_size"),
    ),
    "paddleocr_vl": Whole(
        "PaddleOCRVLForConditionalGeneration",
        # ERNIE 4.5, but for pairs half a head apart
        {"paddleocr_vl_text": "llama"},
        {"head_dim": 128, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True},
        neutral={"use_bias": False, "compression_ratio": 1.0, "use_3d_rope": True, "rope_is_neox_style": True},
        # training, and a bias of the head where there are any
        ignored=keys("ignored_index weight_share_add_bias"),
        sections=_QWEN2_SECTIONS,
        takes_turns=False,
        may_be_flat=True,
    ),
    "paligemma": Whole(
        "PaliGemmaForConditionalGeneration",
        {"gemma": "gemma", "gemma2": "gemma2"},
        {"tie_word_embeddings": True},
        neutral={"use_bidirectional_attention": True},
        ignored=keys("num_image_tokens"),
        beside=keys("_vocab_size hidden_size projection_dim num_hidden_layers"),
        sees_images_both_ways=True,
        sees_prompts_both_ways=True,
    ),
    "phi3_v": Whole("Phi3VForCausalLM", {"phi3": "phi3"}),
    "phi4_multimodal": Whole(
        "Phi4MultimodalForCausalLM",
        {"phi3": "phi3"},
        {"original_max_position_embeddings": 4096, "tie_word_embeddings": False},
        may_be_flat=True,
    ),
    "qwen2_5_omni": _QWEN2_5_OMNI,
    "qwen2_5_vl": replace(
        _QWEN2_VL, class_name="Qwen2_5_VLForConditionalGeneration", parts={"qwen2_5_vl_text": "qwen2"}
    ),
    "qwen2_vl": _QWEN2_VL,
    "qwen4_exp": Whole("Qwen4ExpForConditionalGeneration", {"qwen4_exp_text": "qwen4_exp_text"}),
    "qwen3_5": Whole("Qwen3_5ForConditionalGeneration", {"qwen3_5_text": "qwen3_5_text"}, sections=_QWEN3_5_SECTIONS),
    "qwen3_5_moe": Whole(
        "Qwen3_5MoeForConditionalGeneration", {"qwen3_5_moe_text": "qwen3_5_moe_text"}, sections=_QWEN3_5_SECTIONS
    ),
    "qwen3_omni_moe": replace(
        _QWEN2_5_OMNI,
        class_name="Qwen3OmniMoeForConditionalGeneration",
        parts={"qwen3_omni_moe_text": "qwen3_moe"},
        defaults={"rope_theta": 1000000.0, "norm_topk_prob": True, "tie_word_embeddings": False},
        neutral={"use_qk_norm": True},
        sections=_QWEN3_VL_SECTIONS,
        takes_turns=True,
        other_classes=("Qwen3OmniMoeThinkerForConditionalGeneration",),
    ),
    "qwen3_vl": Whole(
        "Qwen3VLForConditionalGeneration",
        {"qwen3_vl_text": "qwen3"},
        {"rope_theta": 500000.0},
        sections=_QWEN3_VL_SECTIONS,
    ),
    "qwen3_vl_moe": Whole(
        "Qwen3VLMoeForConditionalGeneration",
        {"qwen3_vl_moe_text": "qwen3_moe"},
        {"rope_theta": 500000.0, "num_key_value_heads": 16},
        # its router does not ask
        {"norm_topk_prob": True},
        sections=_QWEN3_VL_SECTIONS,
    ),
}
