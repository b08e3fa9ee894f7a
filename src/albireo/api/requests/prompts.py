"""What a caller may give as a prompt -> one shape.

Called by llm.py and async_llm.py. Does not know tokenizers: text stays text here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any, Required, TypedDict

from albireo.errors import InvalidParams, UnsupportedFeature, short
from albireo.image_input import GivenImage, GivenSound, GivenVideo
from albireo.params import is_unicode


class _MorePrompt(TypedDict, total=False):
    """multi_modal_data: pictures, sounds and videos by kind. cache_salt: see Prompt."""

    multi_modal_data: Mapping[str, Any]
    cache_salt: str


class TextPrompt(_MorePrompt, total=False):
    """A prompt as a dictionary, by vLLM's name of it: a text."""

    prompt: Required[str]


class TokensPrompt(_MorePrompt, total=False):
    """A prompt as a dictionary, by vLLM's name of it: token ids, and the text that they are of, if that is known."""

    prompt_token_ids: Required[Sequence[int]]
    prompt: str


#: A string, token ids, or vLLM's dicts with "prompt" or "prompt_token_ids".
PromptInput = str | Sequence[int] | Mapping[str, Any]

_KEYS = ("prompt", "prompt_token_ids", "cache_salt", "multi_modal_data")
_UUIDS = "multi_modal_uuids"
#: Keys of vLLM's prompts -> what is there in their place.
_ELSEWHERE = {
    "mm_processor_kwargs": "mm_processor_kwargs of LLM holds for all requests",
    "prompt_embeds": "prompts are texts, token ids and media; embeddings are not taken",
    "encoder_prompt": "a prompt is one text; what a model hears goes into multi_modal_data",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Fields:
    text: what the caller wrote; token_ids: None when the text is still to be encoded; one of both is given.
    cache_salt: the prefix cache is shared only among prompts of the same salt.
    images: pictures, as the caller gave them, for the marks that the prompt has of them. sounds: likewise; of a model
        that hears, the one that the text is of. videos: likewise.
    """

    text: str | None
    token_ids: list[int] | None
    cache_salt: str | None = None
    images: list[GivenImage] = field(default_factory=list)
    sounds: list[GivenSound] = field(default_factory=list)
    videos: list[GivenVideo] = field(default_factory=list)


def parse_prompts(prompts: PromptInput | Sequence[PromptInput]) -> list[Prompt]:
    """One prompt or a list of prompts, in order.

    Raises: InvalidParams, UnsupportedFeature, naming the prompt's place in the list.
    """
    if _is_one(prompts):
        return [parse_prompt(prompts)]
    if not isinstance(prompts, Iterable) or isinstance(prompts, (bytes, bytearray)):
        raise InvalidParams(f"prompts must be a prompt or a list of prompts, got {type(prompts).__name__}")
    return [parse_prompt(prompt, f"prompts[{place}]") for place, prompt in enumerate(prompts)]


def parse_prompt(prompt: Any, where: str = "the prompt") -> Prompt:
    """One prompt.

    Raises: InvalidParams for a shape that is no prompt; UnsupportedFeature for a key asking for what there is not.
    """
    if isinstance(prompt, str):
        return Prompt(prompt, None)
    if isinstance(prompt, Mapping):
        return _parse_mapping(prompt, where)
    return Prompt(None, _ids(prompt, where))


def _is_one(prompts: Any) -> bool:
    if isinstance(prompts, (str, Mapping)):
        return True
    try:
        index(prompts[0])  # the first of a list of token ids
    except (TypeError, IndexError, KeyError):
        return False
    return not isinstance(prompts, (bytes, bytearray))


def _parse_mapping(prompt: Mapping[str, Any], where: str) -> Prompt:
    for key, value in prompt.items():
        if key not in (*_KEYS, _UUIDS) and value:  # what is empty asks for nothing
            hint = _ELSEWHERE.get(key, f"supported: {', '.join(_KEYS)}")
            raise UnsupportedFeature(f"{where} has the key {key!r}; {hint}")
    _check_uuids(prompt, where)
    text, ids, salt, media = (prompt.get(key) for key in _KEYS)
    if text is not None and not isinstance(text, str):
        raise InvalidParams(f"{where} has a prompt of type {type(text).__name__}; it must be a string")
    if salt is not None and (not isinstance(salt, str) or not salt):
        raise InvalidParams(f"{where} has cache_salt={short(salt)}; it must be a string that is not empty")
    if salt is not None and not is_unicode(salt):
        raise InvalidParams(f"{where} has cache_salt={short(salt)}, which is no Unicode text (a lone surrogate)")
    if text is None and ids is None:
        raise InvalidParams(f"{where} has neither prompt nor prompt_token_ids; give one of them")
    return Prompt(text, None if ids is None else _ids(ids, where), salt, *_media(media, where))


def _check_uuids(prompt: Mapping[str, Any], where: str) -> None:
    """vLLM's names of media, by which it finds what it kept.

    Raises: InvalidParams for one without what it names, or what is no dict.
    """
    names, media = prompt.get(_UUIDS) or {}, prompt.get("multi_modal_data") or {}
    if not isinstance(names, Mapping):
        raise InvalidParams(f"{where} has {_UUIDS}={short(names)}; it must be a dict such as {{'image': …}}")
    for kind in names:
        given = media.get(kind) if isinstance(media, Mapping) else media
        if given is None or (isinstance(given, (list, tuple)) and any(each is None for each in given)):
            raise InvalidParams(
                f"{where} names {short(kind)} in {_UUIDS} and does not have it in multi_modal_data: media are found by "
                "what they hold; give them"
            )


def _media(media: Any, where: str) -> tuple[list[GivenImage], list[GivenSound], list[GivenVideo]]:
    """Of vLLM's multi_modal_data: an image, or a list of them; a sound (samples, rate), or a list of them; a video,
    which is a file's bytes, an array of frames, or either with what is known of it, or a list of them."""
    if not media:
        return [], [], []
    if not isinstance(media, Mapping):
        raise InvalidParams(f"{where} has multi_modal_data={short(media)}; it must be a dict such as {{'image': …}}")
    for kind in media:
        if kind not in ("image", "audio", "video"):
            raise UnsupportedFeature(f"{where} has multi_modal_data of kind {kind!r}; supported: image, audio, video")
    images, sounds = media.get("image"), media.get("audio")
    several = images if isinstance(images, (list, tuple)) else [] if images is None else [images]
    # one is a pair of samples and a rate
    heard = sounds if isinstance(sounds, list) else [] if sounds is None else [sounds]
    films = media.get("video")
    # a list of pictures is one, too
    is_one = films is not None and (not isinstance(films, list) or all(map(_is_picture, films)))
    shown = [films] if is_one else films or []
    given = [GivenImage(each) for each in several], [GivenSound(each) for each in heard]
    return *given, [GivenVideo(each) for each in shown]


def _is_picture(value: Any) -> bool:
    """Whether it is an array of a frame, or a picture of Pillow's, which is not imported for that."""
    return getattr(value, "ndim", 0) == 3 or hasattr(value, "getbands")


def _ids(value: Any, where: str) -> list[int]:
    try:
        return list(map(index, value))
    except TypeError:
        shown = f"{value!r:.80}"
        raise InvalidParams(f"{where} must be a string, a list of token ids or a dict, got {shown}") from None
