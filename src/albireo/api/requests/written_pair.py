"""Two texts to be scored together by a model that writes text, as its chat template writes them.

Called by pooling_admission.py. Does not know requests.
"""

from __future__ import annotations

from albireo.api.requests.scoring import Part
from albireo.errors import InvalidParams
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.encoded import Cut
from albireo.text.tokenizer import Tokenizer

#: What the two are in such a template; sentence-transformers' names, and vLLM's.
_ROLES = ("query", "document")


def written_pair(chats: ChatEncoder, tokenizer: Tokenizer, first: Part, second: Part, most: int | None) -> list[int]:
    """Token ids. Args: most: tokens of all of it; None: any number.

    Raises: InvalidParams for more of them; TemplateError.
    """
    texts = [_cut(tokenizer, part) for part in (first, second)]
    messages = [{"role": role, "content": text} for role, text in zip(_ROLES, texts, strict=True)]
    ids = chats.encode(messages, add_generation_prompt=False).token_ids
    if most is not None and len(ids) > most:
        raise InvalidParams(
            f"truncate_prompt_tokens={most}: the pair has {len(ids)} tokens as the model's chat template writes it, "
            "which is not cut; shorten the texts, or have each cut by itself (max_tokens_per_query, max_tokens_per_doc)"
        )
    return ids


def _cut(tokenizer: Tokenizer, part: Part) -> str:
    if part.max_tokens is None or len(tokenizer.encode(part.text, add_special_tokens=False)) <= part.max_tokens:
        return part.text
    kept = tokenizer.encode_prompt(part.text, add_special_tokens=False, cut=Cut(part.max_tokens)).ids
    return tokenizer.decode(kept)
