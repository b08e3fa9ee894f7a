"""What routes of Ollama's protocol have in common: the model that is asked, how long it stays, words and clocks.

Used by ollama.py, ollama_embed.py and ollama_models.py beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from starlette.types import Scope

from albireo.errors import EngineError
from albireo.server.dialects import ollama as dialect
from albireo.server.dialects.ollama import Known
from albireo.server.errors import HttpError, busy
from albireo.server.keep_alive import KEEP_ALIVE, LEAST_S, seconds
from albireo.server.protocol.ollama import ModelFields
from albireo.server.serving import Serving


@contextmanager
def in_its_words() -> Iterator[None]:
    """What is said inside about fields of other protocols is said of those here."""
    try:
        yield
    except HttpError as error:
        told = dialect.FIELDS.get(error.param or "")
        if told is not None and error.message.startswith(str(error.param)):
            error.message = f"{told}{error.message[len(str(error.param)) :]}"
        raise


def known(serving: Serving) -> Known:
    """What is to be known of the model."""
    most = serving.admission.advice.get("max_tokens") or serving.ready.max_model_len
    return Known(serving.dialect, all_names(serving), serving.settings.chat_template_kwarg, most)


def all_names(serving: Serving) -> list[str]:
    """What the model and its adapters answer to."""
    return [*serving.names, *(served.name for served in serving.adapters.all())]


def begin(serving: Serving, ask: ModelFields, scope: Scope) -> None:
    """What is looked at first: the model, and how long it is to stay. Raises: HttpError."""
    serving.check_open()
    serving.check_model(dialect.plain_name(ask.model, all_names(serving)))
    if ask.keep_alive is not None:
        keep_s = seconds(ask.keep_alive)
        if keep_s < LEAST_S:
            serving.check_trusted(f"keep_alive below {LEAST_S:g} s is taken")
        scope[KEEP_ALIVE] = keep_s


async def only_kept(serving: Serving, ask: ModelFields, scope: Scope) -> None:
    """Nothing is asked but that the model be ready, or that its memory be given back. Raises: HttpError."""
    if not serving.is_loaded and dialect.is_unload(ask.keep_alive, None):
        scope[KEEP_ALIVE] = 0.0  # of several one that nobody has asked yet: there is nothing to give back
        return
    begin(serving, ask, scope)
    serving.keep_alive_s = scope.get(KEEP_ALIVE)
    if serving.keep_alive_s != 0 and serving.client.is_asleep:
        try:
            await serving.client.wake()
        except EngineError as error:
            raise busy(503, str(error), "asleep", 5) from None


def now() -> str:
    """As Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds_: float) -> int:
    """Whole ones."""
    return round(seconds_ * 1e9)
