"""Two texts to be scored together by a model that writes text, as its chat template writes them.

Called by pooling_admission.py. Does not know requests.
"""

from __future__ import annotations

from typing import Any

from albireo.api.requests.scoring import Part
from albireo.errors import InvalidParams
from albireo.image_input import GivenImage
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.encoded import Cut
from albireo.text.tokenizer import Tokenizer

#: What the two are in such a template; sentence-transformers' names, and vLLM's.
_ROLES = ("query", "document")


def written_pair(
    chats: ChatEncoder, tokenizer: Tokenizer, first: Part, second: Part, most: int | None
) -> tuple[list[int], list[GivenImage]]:
    """Token ids, and the pictures whose places they have. Args: most: tokens of all of it; None: any number.

    Raises: InvalidParams for more of them, and where one is to be cut that has pictures; TemplateError.
    """
    contents = [_content(tokenizer, part) for part in (first, second)]
    messages = [{"role": role, "content": content} for role, content in zip(_ROLES, contents, strict=True)]
    made = chats.encode(messages, add_generation_prompt=False, image_problem="")
    ids = made.token_ids
    if made.images and most is not None:
        raise InvalidParams(f"truncate_prompt_tokens={most} is for text: a pair with images is not cut; leave it out")
    if most is not None and len(ids) > most:
        raise InvalidParams(
            f"truncate_prompt_tokens={most}: the pair has {len(ids)} tokens as the model's chat template writes it, "
            "which is not cut; shorten the texts, or have each cut by itself (max_tokens_per_query, max_tokens_per_doc)"
        )
    return ids, made.images


def _content(tokenizer: Tokenizer, part: Part) -> str | list[dict[str, Any]]:
    """Of a message. Raises: InvalidParams where it has pictures and is to be cut."""
    if not part.content:
        return _cut(tokenizer, part)
    if part.max_tokens is not None:
        raise InvalidParams(f"a text of {part.max_tokens} tokens is wanted of what has pictures, which is not cut")
    return [
        {"type": "text", "text": each}
        if isinstance(each, str)
        else {"type": "image", "image": each.value, "detail": "low" if each.is_small else None}
        for each in part.content
    ]


def _cut(tokenizer: Tokenizer, part: Part) -> str:
    if part.max_tokens is None or len(tokenizer.encode(part.text, add_special_tokens=False)) <= part.max_tokens:
        return part.text
    kept = tokenizer.encode_prompt(part.text, add_special_tokens=False, cut=Cut(part.max_tokens)).ids
    return tokenizer.decode(kept)
