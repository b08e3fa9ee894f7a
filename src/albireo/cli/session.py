"""Session: a loaded model that runs requests and hands out what they produce while they run.

Used by generate.py and chat.py. In the caller's thread: a step, then what is new, then the next step. Does not print.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from albireo.api.adapters import rank_of
from albireo.api.driver import Driver
from albireo.api.interrupt import DelayedInterrupt
from albireo.api.load import Loaded, load
from albireo.api.requests.admission import Admission
from albireo.api.requests.beam_search import checked_params
from albireo.api.requests.prompts import parse_prompt
from albireo.api.requests.submission import Submission
from albireo.config import EngineConfig
from albireo.errors import RequestError
from albireo.image_input import MEDIA_KINDS
from albireo.outputs import RequestOutput
from albireo.params import SamplingParams

#: One request still to be prepared; raises RequestError when it is refused.
Preparing = Callable[[], Submission]


@dataclass(frozen=True, slots=True)
class Reply:
    """News of one request.

    Fields:
        place: which of the requests, from 0.
        output: everything so far; None when the request was refused.
        refusal: why it was.
    """

    place: int
    output: RequestOutput | None
    refusal: RequestError | None = None

    @property
    def is_last(self) -> bool:
        """Nothing more comes of this request."""
        return self.output is None or self.output.finished


def with_adapter(engine: dict[str, Any], lora: str | None) -> dict[str, Any]:
    """Settings of an engine that runs an adapter, with a slot as large as it needs. Raises: ModelError."""
    return engine if lora is None else {"enable_lora": True, "max_lora_rank": rank_of(Path(lora)), **engine}


class Session:
    """One model and its engine."""

    def __init__(self, config: EngineConfig, lora: str | None = None) -> None:
        """Args: lora: directory of an adapter that all requests have; needs config.enable_lora."""
        self.loaded: Loaded = load(config, show_progress=True)
        loaded = self.loaded
        self._admission = Admission.of(loaded)
        self._driver = Driver.of(loaded)
        self._adapter = None if lora is None or loaded.adapters is None else loaded.adapters.load(lora)
        self._num_requests = 0

    def params(self, given: Mapping[str, Any], max_tokens: int | None) -> SamplingParams:
        """The model's recommended sampling, with what was given over it; with beam_width a beam search.

        Args: max_tokens: when neither says; None: up to the context.
        Raises: InvalidParams.
        """
        defaults: dict[str, Any] = {}
        if self.loaded.defaults.max_tokens is None or self.loaded.config.generation_config == "vllm":
            defaults["max_tokens"] = max_tokens
        advised = self._admission.default_params()
        if "beam_width" in given:  # nothing is drawn, so that only its length is the model's to recommend
            return checked_params(
                {"max_tokens": defaults.get("max_tokens", advised.max_tokens), "logprobs": 0, **given}
            )
        return advised.clone(**(defaults | {name: value for name, value in given.items() if name != "length_penalty"}))

    @property
    def marks(self) -> tuple[str, ...]:
        """What a text to go on with says where a picture, or a sound, is; none where the model reads text only."""
        found = (self._admission.mark(kind) for kind in MEDIA_KINDS)
        return tuple(mark for mark in found if mark is not None)

    def text(
        self, prompt: str | list[int], params: SamplingParams, media: Mapping[str, Any] | None = None
    ) -> Submission:
        """Prepare a prompt to go on with. Args: media: what there is for its marks, by kind. Raises: RequestError."""
        key = "prompt" if isinstance(prompt, str) else "prompt_token_ids"
        given = parse_prompt({key: prompt, "multi_modal_data": media})
        made = self._admission.submission(given, self._admission.prepare(params))
        return replace(made, adapter=self._adapter)

    def chat(self, messages: Sequence[Mapping[str, Any]], params: SamplingParams) -> Submission:
        """Prepare an answer, by the model's own template. Raises: RequestError."""
        return replace(self._admission.chat(messages, self._admission.prepare(params), {}), adapter=self._adapter)

    def run(self, requests: Sequence[Preparing], *, is_streaming: bool) -> Generator[Reply, None, None]:
        """Run requests together.

        Yields: for each request one last Reply, as soon as it is there; before it, when streaming, one for each step.
        A refused request disturbs no other. Closing the iterator ends what still runs, as does an exception.
        """
        arrival_s = time.monotonic()
        places: dict[str, int] = {}
        try:
            with DelayedInterrupt() as interrupt:
                for place, prepare in enumerate(requests):
                    try:
                        places[self._add(prepare(), arrival_s)] = place
                    except RequestError as refusal:
                        yield Reply(place, None, refusal)
                    interrupt.check()
                while self._driver.has_work():
                    for record in self._driver.step():
                        if is_streaming or record.is_finished:
                            yield Reply(places[record.request_id], record.output())
                    interrupt.check()
        finally:
            for request_id in places:
                self._driver.abort(request_id)

    def _add(self, submission: Submission, arrival_s: float) -> str:
        request_id = str(self._num_requests)
        self._num_requests += 1
        self._driver.add(request_id, submission, arrival_s=arrival_s)
        return request_id
