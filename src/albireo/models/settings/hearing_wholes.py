"""Models with a text part that hear and do not see, by their model_type.

Part of wholes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from albireo.json_file import keys
from albireo.models.settings.whole import Whole

_GRANITE_SPEECH = Whole(
    "GraniteSpeechForConditionalGeneration",
    {"granite": "granite"},
    {"tie_word_embeddings": True},
    # the head of the whole divides nothing, where Granite's own does; and the whole says whether embeddings are tied
    ignored=keys("logits_scaling tie_word_embeddings"),
    beside=keys("encoder_config projector_config has_lora_adapter downsample_rate window_size"),
    multiplies_images=True,
)
#: By the model_type of the whole.
OF_SOUNDS_ALONE: Mapping[str, Whole] = {
    "audioflamingo3": Whole("AudioFlamingo3ForConditionalGeneration", {"qwen2": "qwen2"}),
    "fun_asr_nano": Whole(
        "FunAsrNanoForConditionalGeneration",
        {"qwen3": "qwen3"},
        {"tie_word_embeddings": True},
        beside=keys("adaptor_config"),
    ),
    "glmasr": Whole(
        "GlmAsrForConditionalGeneration",
        {"llama": "llama"},
        {"rms_norm_eps": 1e-5, "tie_word_embeddings": True},
        beside=keys("hidden_size"),
    ),
    "granite_speech": _GRANITE_SPEECH,
    "granite_speech_plus": replace(_GRANITE_SPEECH, class_name="GraniteSpeechPlusForConditionalGeneration"),
    "musicflamingo": Whole(
        "MusicFlamingoForConditionalGeneration",
        {"qwen2": "qwen2"},
        # of the last two transformers makes what others say
        beside=keys(
            "audio_bos_token_id audio_eos_token_id audio_frame_step rope_parameters head_dim max_position_embeddings"
        ),
    ),
    "qwen2_audio": Whole(
        "Qwen2AudioForConditionalGeneration",
        {"qwen2": "qwen2"},
        {"tie_word_embeddings": False},
        neutral={"use_mrope": False},
    ),
    "qwen3_asr": Whole(
        "Qwen3ASRForConditionalGeneration", {"qwen3": "qwen3", "qwen3_asr_text": "qwen3"}, {"tie_word_embeddings": True}
    ),
    "voxtral": Whole(
        "VoxtralForConditionalGeneration",
        {"llama": "llama"},
        {"head_dim": 128, "rms_norm_eps": 1e-5, "rope_theta": 100000000.0},
        beside=keys("hidden_size"),
    ),
    "voxtral_realtime": Whole(
        "VoxtralRealtimeForConditionalGeneration",
        {"voxtral_realtime_text": "mistral"},
        {
            "head_dim": 128,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "sliding_window": 8192,
            "tie_word_embeddings": True,
        },
        beside=keys("audio_length_per_tok default_num_delay_tokens hidden_size"),
    ),
}
