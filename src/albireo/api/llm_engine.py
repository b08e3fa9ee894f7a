"""LLMEngine: the front door of scripts that step by themselves, as vLLM has it. Requests in, outputs of each step out.

Called by users. Does not know threads or event loops; llm.py runs whole lists, async_llm.py streams.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from albireo.api.driver import Driver
from albireo.api.front_door import FrontDoor
from albireo.api.load import Loaded
from albireo.api.requests.output_kinds import Teller
from albireo.api.requests.prompts import PromptInput, parse_prompt
from albireo.engine.stats import EngineStats
from albireo.errors import InvalidParams, UnsupportedFeature, short
from albireo.lora_request import LoRARequest
from albireo.outputs import RequestOutput
from albireo.params import PoolingParams, SamplingParams
from albireo.vllm_names import OF_CALLS, takes_vllms


class LLMEngine(FrontDoor):
    """One model in this process, run in the caller's thread, a step a call. One thread at a time may use it.

    Invariant: each request that add_request() took is given finished exactly once, by step(), unless it is aborted.
    """

    def _start(self, loaded: Loaded) -> None:
        super()._start(loaded)
        self._driver: Driver | None = Driver.of(loaded)
        self._tellers: dict[str, Teller] = {}

    @takes_vllms(**OF_CALLS, prompt_text="a prompt has its text")
    def add_request(
        self,
        request_id: str,
        prompt: PromptInput,
        params: SamplingParams,
        arrival_time: float | None = None,
        lora_request: LoRARequest | None = None,
        priority: int = 0,
    ) -> None:
        """Let a request wait for its turn.

        Args: arrival_time: when it came in, seconds since 1970; None: now. The others: see AsyncLLM.generate().
        Raises: InvalidParams, PromptTooLong, UnsupportedFeature: it is refused; others are not disturbed.
        """
        driver = self._open()
        if not isinstance(request_id, str):
            raise InvalidParams(f"request_id={short(request_id)} is not allowed; it must be a string")
        if isinstance(params, PoolingParams):
            raise UnsupportedFeature("LLMEngine writes texts; LLM.encode() and LLM.embed() pool prompts")
        submission = self._admission.submission(parse_prompt(prompt), self._admission.prepare(params))
        submission = self._loras.with_adapter(submission, lora_request)
        arrival_s = None if arrival_time is None else time.monotonic() - (time.time() - arrival_time)
        driver.add(request_id, submission, priority=priority, arrival_s=arrival_s)
        self._tellers[request_id] = Teller(params.output_kind)

    def step(self) -> list[RequestOutput]:
        """Advance what fits by one step.

        Returns: of each request that has something new all so far, or as its output_kind says. One that failed has
            finish_reason "error" and the reason as stop_reason.
        """
        told: list[RequestOutput] = []
        for record in self._open().step():
            output = self._tellers[record.request_id].of(record.output())
            if record.is_finished:
                del self._tellers[record.request_id]
            if output is not None:
                told.append(output)
        return told

    def abort_request(self, request_id: str | Iterable[str]) -> None:
        """End requests, of which no more is told. Unknown ids are fine."""
        for each in [request_id] if isinstance(request_id, str) else list(request_id):
            self._open().abort(each)
            self._tellers.pop(each, None)

    def has_unfinished_requests(self) -> bool:
        """Whether step() has something to do."""
        return self._open().has_work()

    def get_num_unfinished_requests(self) -> int:
        """Requests that are not over."""
        self._open()
        return len(self._tellers)

    def stats(self) -> EngineStats:
        """Counters and what is held now. Raises: EngineError when it is closed."""
        return self._open().stats()

    def close(self) -> None:
        """Let the model and its memory go. Closing twice is fine."""
        if self.loaded is not None:
            self.loaded.close()
        self.loaded = self._driver = self._config = None
        self._tellers = {}

    def _open(self) -> Driver:
        self._check_open()
        assert self._driver is not None, "open"
        return self._driver
