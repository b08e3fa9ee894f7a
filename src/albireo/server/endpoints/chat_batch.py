"""POST /v1/chat/completions/batch: vLLM's. Several conversations in one request, each of which has a choice."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import asdict

from albireo.api.requests.submission import Submission
from albireo.server import intake
from albireo.server.endpoints.chat import Answer
from albireo.server.endpoints.generating import GeneratingEndpoint, Way, as_it_is
from albireo.server.errors import HttpError, unsupported
from albireo.server.generation import Generation
from albireo.server.protocol.chat import ChatBatchRequest, ChatCompletion, ChatRequest
from albireo.server.protocol.fields import usage
from albireo.server.serving import Serving
from albireo.server.streaming import Piece

_DECODER = msgspec.json.Decoder(ChatBatchRequest)
#: What goes with one conversation alone -> values beside null that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "n": (1,),
    "use_beam_search": (False,),
    "tools": ([],),
    "tool_choice": ("none",),
    "prompt_logprobs": (),
    "return_prompt_text": (False,),
    "timings_per_token": (False,),
}


def chat_batch(serving: Serving) -> GeneratingEndpoint[ChatBatchRequest, ChatBatchRequest]:
    """The endpoint."""
    return GeneratingEndpoint(serving, _DECODER, Way("chatcmpl", BatchAnswer), as_it_is, _admit)


async def _admit(serving: Serving, batch: ChatBatchRequest) -> list[Submission]:
    """One submission a conversation. Raises: HttpError naming the one that is refused."""
    for name, neutral in _NEUTRAL.items():
        value = getattr(batch, name)
        if value is not None and value not in neutral:
            raise unsupported(name, value, "it goes with one conversation, as in /v1/chat/completions")
    num, limit = len(batch.messages), serving.settings.max_n
    if num > limit:
        words = f"messages holds {num} conversations, at most {limit} are answered at once (--max-n)"
        raise HttpError(400, words, param="messages")
    found: list[Submission] = []
    for place, each in enumerate(_each(batch)):
        try:
            found += await intake.chat(serving, each)
        except HttpError as error:
            if error.param == "messages":
                error.message = f"messages[{place}]: {error.message}"
            raise
    serving.check_queue(len(found), sum(len(made.prompt_token_ids) for made in found))
    return found


def _each(batch: ChatBatchRequest) -> list[ChatRequest]:
    """The conversations, as requests of their own."""
    fields = asdict(batch)
    return [ChatRequest(**{**fields, "messages": messages}) for messages in batch.messages]


class BatchAnswer:
    """Makes the answer. See generating.Answer."""

    tells_tokens = False

    def __init__(self, serving: Serving, batch: ChatBatchRequest, generation: Generation) -> None:
        self._answers = [Answer(serving, each, generation, place) for place, each in enumerate(_each(batch))]
        self._generation = generation
        self._wants_timings = bool(batch.return_timings)

    def whole(self) -> ChatCompletion:
        """The answer when all is there: that of each conversation is the choice at its place."""
        wholes = [answer.whole() for answer in self._answers]
        found = wholes[0]
        found.choices = [whole.choices[0] for whole in wholes]
        for place, choice in enumerate(found.choices):
            choice.index = place
        requests = self._generation.requests
        found.usage = usage(
            sum(len(tracked.submission.prompt_token_ids) for tracked in requests),
            sum(tracked.num_output_tokens for tracked in requests),
            sum(tracked.num_cached_tokens for tracked in requests),
        )
        found.prompt_token_ids = msgspec.UNSET  # it would be that of the first
        if self._wants_timings:
            found.usage.timings = self._generation.account.timings()
        return found

    def chunks(self, piece: Piece) -> list[Any]:
        """Never asked: nothing is streamed."""
        raise NotImplementedError

    def last(self) -> list[Any]:
        """Never asked."""
        raise NotImplementedError
