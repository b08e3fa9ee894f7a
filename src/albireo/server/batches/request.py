"""A line's body -> the body that its endpoint gets, and how much of the engine it takes.

Used by job.py. What is refused here would be an answer that does not fit into a line. Everything else is the endpoint's
business.
"""

from __future__ import annotations

import msgspec

from albireo.server.batches.lines import Line
from albireo.server.errors import unsupported

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
#: Fields that hold one prompt, or several; more than one of them where they go together.
_PROMPTS = {
    "/v1/completions": ("prompt",),
    "/v1/embeddings": ("input",),
    "/v1/rerank": ("query", "documents"),
    "/v1/score": ("text_1", "text_2", "queries", "documents", "items", "data_1", "data_2"),
}


def request_body(line: Line) -> bytes:
    """What its endpoint gets. Raises: HttpError 400 for what cannot be told in a line."""
    fields = _FIELDS.decode(line.body)
    for name in ("stream", "background"):
        if _asks(fields, name):
            raise unsupported(name, True, "an answer of a batch is one line; leave it out")
    if line.url != "/v1/responses":
        return line.body
    if _asks(fields, "store"):
        raise unsupported("store", True, "the answers of a batch are in its file; leave it out")
    # What is stored has few places, which are for those who ask again.
    return msgspec.json.encode({**fields, "store": False})


def num_seats(line: Line) -> int:
    """Sequences that a line has in the engine at once, as far as its body shows."""
    fields = _FIELDS.decode(line.body)
    given = [fields[name] for name in _PROMPTS.get(line.url, ()) if name in fields]
    return _number(fields.get("n")) * max(1, sum(map(_num_prompts, given)))


def _asks(fields: dict[str, msgspec.Raw], name: str) -> bool:
    return name in fields and bytes(fields[name]) not in (b"null", b"false")


def _number(raw: msgspec.Raw | None) -> int:
    try:
        return 1 if raw is None else max(1, msgspec.json.decode(raw, type=int))
    except msgspec.DecodeError:
        return 1


def _num_prompts(raw: msgspec.Raw) -> int:
    """A list of numbers is one prompt."""
    if not bytes(raw).startswith(b"["):
        return 1
    entries = _LIST.decode(raw)
    is_several = bool(entries) and bytes(entries[0])[:1] in (b'"', b"[", b"{")
    return len(entries) if is_several else 1
