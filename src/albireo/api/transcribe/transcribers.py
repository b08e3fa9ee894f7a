"""open_transcriber: what writes down sounds, by the model.

Called by admission.py. What writes down sounds is imported where a model hears some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from albireo.api.media.places import Places
from albireo.engine.settings import EngineSettings
from albireo.errors import UnsupportedFeature
from albireo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from albireo.api.media.reader import MediaReader
    from albireo.api.media.sounds import SoundReader
    from albireo.api.transcribe.transcription import Transcriber
    from albireo.text.chat_prompt import ChatEncoder

#: Tokens of punctuation that Parakeet TDT says too late; NeMo's own list.
_CLOSED = frozenset("?'¡¿-:,%/.!")
_WHY = "sounds are not written down: this model"


def open_transcriber(
    media: MediaReader | None, tokenizer: Tokenizer | None, chats: ChatEncoder | None, settings: EngineSettings
) -> Transcriber:
    """Raises: UnsupportedFeature where a model writes down none; ModelError where its files lack a token."""
    if not settings.sound_problem and (tokenizer is None or chats is None):
        raise UnsupportedFeature(f"{_WHY} needs a tokenizer, and skip_tokenizer_init is set")
    if media is None or tokenizer is None:
        raise UnsupportedFeature(f"{_WHY} hears none")
    if not isinstance(media, Places):
        from albireo.api.transcribe.listening_transcriber import (
            CanaryTranscriber,
            CohereTranscriber,
            MoonshineTranscriber,
        )
        from albireo.api.transcribe.whisper_transcriber import WhisperTranscriber
        from albireo.sounds.nemo import NemoMel
        from albireo.sounds.waves import Waves

        if media.marks is not None:
            return _of_frames(media, tokenizer, settings.max_model_len)
        if isinstance(media.sounds, NemoMel):
            is_canary = media.model_type == "canary"
            return (CanaryTranscriber if is_canary else CohereTranscriber)(media, tokenizer)
        if isinstance(media.sounds, Waves):
            return MoonshineTranscriber(media, tokenizer)
        return WhisperTranscriber(media, tokenizer, settings.vocab_size)
    place = media.kinds.get("sound")
    if place is None or chats is None:
        raise UnsupportedFeature(f"{_WHY} hears none")
    from albireo.api.media.sound_places import SoundPlace
    from albireo.api.transcribe.prompted_transcriber import (
        AudioFlamingoTranscriber,
        FunAsrTranscriber,
        GemmaTranscriber,
        GlmAsrTranscriber,
        GraniteTranscriber,
        OmniTranscriber,
        PhiTranscriber,
        Qwen3AsrTranscriber,
        VoxtralRealtimeTranscriber,
        VoxtralTranscriber,
    )
    from albireo.sounds.audioflamingo3 import AudioFlamingo3
    from albireo.sounds.fun_asr_nano import FunAsrNano
    from albireo.sounds.gemma3n import Gemma3n
    from albireo.sounds.gemma4 import Gemma4, Gemma4Unified
    from albireo.sounds.glmasr import GlmAsr
    from albireo.sounds.granite_speech import GraniteSpeech
    from albireo.sounds.phi4_multimodal import Phi4Multimodal
    from albireo.sounds.qwen2_5_omni import Qwen25Omni
    from albireo.sounds.qwen3_asr import Qwen3Asr, Qwen3Omni
    from albireo.sounds.voxtral import Voxtral
    from albireo.sounds.voxtral_realtime import VoxtralRealtime

    assert isinstance(place, SoundPlace), "what reads sounds is one"
    if isinstance(place.processor, Qwen25Omni | Qwen3Omni):
        return OmniTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, Gemma3n | Gemma4 | Gemma4Unified):
        return GemmaTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, Qwen3Asr):
        return Qwen3AsrTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, AudioFlamingo3):
        return AudioFlamingoTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, GraniteSpeech):
        return GraniteTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, Phi4Multimodal):
        return PhiTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, FunAsrNano):
        return FunAsrTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, GlmAsr):
        return GlmAsrTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, VoxtralRealtime):
        return VoxtralRealtimeTranscriber(place.processor, tokenizer, settings.max_model_len)
    if isinstance(place.processor, Voxtral):
        return VoxtralTranscriber(place.processor, tokenizer, settings.max_model_len)
    raise UnsupportedFeature(f"{_WHY} talks about them; ask it in a chat")


def _of_frames(reader: SoundReader, tokenizer: Tokenizer, max_model_len: int) -> Transcriber:
    from albireo.api.media.sounds import told_languages
    from albireo.api.transcribe.frame_transcriber import FrameTranscriber
    from albireo.models.speech import STREAMING_TYPES

    marks = reader.marks
    assert marks is not None, "asked before"
    closed = _CLOSED if reader.model_type == "parakeet_tdt" else frozenset[str]()
    # of an RNN-T marks say how many blanks there were
    has_ends = reader.model_type not in ("parakeet_rnnt", *STREAMING_TYPES)
    times = marks, reader.frame_s, max_model_len
    languages = {} if reader.untold is None else told_languages(reader.directory)
    return FrameTranscriber(reader, tokenizer, *times, ends_with_marks=has_ends, closed=closed, languages=languages)
