"""open_transcriber: what writes down sounds, by the model.

Called by admission.py.
"""

from __future__ import annotations

from albireo.api.media import MediaReader
from albireo.api.places import Places
from albireo.api.prompted_transcriber import GlmAsrTranscriber, Qwen3AsrTranscriber, VoxtralTranscriber
from albireo.api.sound_places import SoundPlace
from albireo.api.sounds import SoundReader
from albireo.api.transcription import Transcriber
from albireo.api.whisper_transcriber import WhisperTranscriber
from albireo.engine.settings import EngineSettings
from albireo.errors import UnsupportedFeature
from albireo.sounds.glmasr import GlmAsr
from albireo.sounds.qwen3_asr import Qwen3Asr
from albireo.sounds.voxtral import Voxtral
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.tokenizer import Tokenizer

_WHY = "sounds are not written down: this model"


def open_transcriber(
    media: MediaReader | None, tokenizer: Tokenizer | None, chats: ChatEncoder | None, settings: EngineSettings
) -> Transcriber:
    """Raises: UnsupportedFeature where a model writes down none; ModelError where its files lack a token."""
    if not settings.sound_problem and (tokenizer is None or chats is None):
        raise UnsupportedFeature(f"{_WHY} needs a tokenizer, and skip_tokenizer_init is set")
    if isinstance(media, SoundReader) and tokenizer is not None:
        return WhisperTranscriber(media, tokenizer, settings.vocab_size)
    place = media.kinds.get("sound") if isinstance(media, Places) else None
    if not isinstance(place, SoundPlace) or tokenizer is None or chats is None:
        raise UnsupportedFeature(f"{_WHY} hears none")
    if isinstance(place.processor, Qwen3Asr):
        return Qwen3AsrTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, GlmAsr):
        return GlmAsrTranscriber(place.processor, tokenizer, settings.max_model_len, chats)
    if isinstance(place.processor, Voxtral):
        return VoxtralTranscriber(place.processor, tokenizer, settings.max_model_len)
    raise UnsupportedFeature(f"{_WHY} talks about them; ask it in a chat")
