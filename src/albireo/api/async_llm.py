"""AsyncLLM: the streaming front door. One engine thread, any number of readers on event loops.

Called by users, servers and commands. Does not know HTTP; how outputs cross threads is engine_thread.py.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from albireo.api.awaited import OneResult, together
from albireo.api.driver import Driver
from albireo.api.engine_thread import EngineThread, Output, Stream
from albireo.api.front_door import FrontDoor
from albireo.api.load import Loaded, load
from albireo.api.requests.beam_search import beam_output
from albireo.api.requests.output_kinds import Teller
from albireo.api.requests.prompts import PromptInput, parse_prompt
from albireo.api.requests.scoring import as_numbers, classified
from albireo.api.requests.submission import Submission
from albireo.api.sleeping import check_level, check_tags, give_back
from albireo.api.transcribe.transcription import SAMPLING, Written, temperatures, written_of
from albireo.beam_search_params import BeamSearchParams
from albireo.config import EngineConfig
from albireo.engine.stats import EngineStats
from albireo.errors import EngineError, InvalidParams, short
from albireo.lora_request import LoRARequest
from albireo.outputs import (
    BeamSearchOutput,
    ClassificationRequestOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    RequestOutput,
    ScoringRequestOutput,
    Transcript,
)
from albireo.params import PoolingParams, PoolingTaskName, RequestOutputKind, SamplingParams
from albireo.sounds.decode import as_sound
from albireo.sounds.windows import Window
from albireo.text.conversation import has_media
from albireo.transcription_params import TranscriptionParams
from albireo.vllm_names import OF_CALLS, OF_CHATS, takes_vllms

_PROMPTS = "a prompt has its text"
_THOUGHTS = "a server tells thoughts from answers"


class AsyncLLM(FrontDoor):
    """One model in this process, run in a thread of its own.

    Invariants: 1. each iterator ends with a finished output, or raises, exactly once; 2. a request whose iterator was
    closed or cancelled is aborted; 3. what one request does wrong, no other one notices.
    """

    _ended = "was shut down"

    def _begin(self, config: EngineConfig, loaded: Loaded) -> None:
        # How many want the thread now, by their event loops; and, held for as long as that takes, by who ends it or
        # makes a new one.
        self._asking_on: Counter[asyncio.AbstractEventLoop] = Counter()
        self._counting, self._changing = threading.Lock(), threading.Lock()
        # Requests that the engine has not heard of yet, and whether they were aborted since.
        self._to_be_added: dict[str, bool] = {}
        # One thread, so that requests reach the engine in the order in which they came.
        self._encoding = ThreadPoolExecutor(1, "albireo-encode")
        # Those whose grammar has to be compiled, or whose images have to be fetched, hold up none of the others.
        self._compiling = ThreadPoolExecutor(2, "albireo-compile")
        super()._begin(config, loaded)

    def _start(self, loaded: Loaded) -> None:
        super()._start(loaded)
        thread = EngineThread(Driver.of(loaded), loaded.prepare)
        self._thread: EngineThread | None = thread
        self._finalizer = weakref.finalize(self, thread.stop)

    # -- the calls -----------------------------------------------------------------------------------------------------

    @takes_vllms(**OF_CALLS, prompt_text=_PROMPTS, reasoning_ended=_THOUGHTS, reasoning_parser_kwargs=_THOUGHTS)
    def generate(
        self,
        prompt: PromptInput,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        lora_request: LoRARequest | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Complete one prompt; iterate to see it grow.

        Args:
            prompt: a string, a list of token ids, {"prompt": …} or {"prompt_token_ids": …}.
            sampling_params: None: get_default_sampling_params().
            request_id: to abort() by; None: one is made up.
            lora_request: the adapter; None: the model as it is. It is read when first named, and needs enable_lora.
            priority: lower runs earlier; needs scheduling_policy="priority".
        Returns: outputs that hold everything so far, or as sampling_params.output_kind says, the last one finished. A
            reader slower than the engine gets fewer and longer ones.
        Raises: InvalidParams, PromptTooLong, UnsupportedFeature: this request is refused. EngineError after
            shutdown().
        """

        def prepare() -> Submission:
            made = self._admission.submission(parse_prompt(prompt), self._params(sampling_params))
            return self._loras.with_adapter(made, lora_request)

        has_media = isinstance(prompt, Mapping) and bool(prompt.get("multi_modal_data"))
        return self._stream(prepare, self._preparing(sampling_params, has_media), request_id, priority, sampling_params)

    @takes_vllms(**OF_CALLS, **OF_CHATS)
    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        lora_request: LoRARequest | None = None,
        priority: int = 0,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Answer one conversation; iterate to see the answer grow. Arguments as for generate() and LLM.chat().

        Raises: TemplateError, and what generate() raises.
        """
        options = {
            "chat_template": chat_template,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "tools": tools,
            "chat_template_kwargs": chat_template_kwargs,
        }

        def prepare() -> Submission:
            made = self._admission.chat(messages, self._params(sampling_params), options)
            return self._loras.with_adapter(made, lora_request)

        pool = self._preparing(sampling_params, has_media(messages))
        return self._stream(prepare, pool, request_id, priority, sampling_params)

    async def beam_search(
        self,
        prompt: PromptInput,
        params: BeamSearchParams,
        request_id: str | None = None,
        *,
        lora_request: LoRARequest | None = None,
        priority: int = 0,
    ) -> BeamSearchOutput:
        """Find likely outputs of one prompt. Arguments as for generate() and LLM.beam_search().

        Returns: the beams at their end; where the request failed while it ran, or was aborted, their finish_reason says
            so.
        Raises: what generate() raises.
        """

        def prepare() -> Submission:
            return self._loras.with_adapter(self._admission.beam_search(parse_prompt(prompt), params), lora_request)

        has_media = isinstance(prompt, Mapping) and bool(prompt.get("multi_modal_data"))
        stream = self._stream(prepare, self._preparing(None, has_media), request_id, priority)
        *_, last = [output async for output in stream]
        return beam_output(last, self._tokenizer)

    async def embed(
        self,
        prompt: PromptInput,
        pooling_params: PoolingParams | None = None,
        request_id: str | None = None,
        *,
        prompt_name: str | None = None,
        priority: int = 0,
    ) -> EmbeddingRequestOutput:
        """Embed one prompt. Arguments as for generate() and LLM.embed().

        Raises: what generate() raises; EngineError when the request failed while it ran, or was aborted.
        """

        def prepare() -> Submission:
            return self._admission.pooling.embedding(parse_prompt(prompt), pooling_params, prompt_name=prompt_name)

        return await self._pooled(prepare, request_id, priority)

    @takes_vllms(**OF_CALLS)
    def encode(
        self,
        prompt: PromptInput,
        pooling_params: PoolingParams | None = None,
        request_id: str | None = None,
        *,
        pooling_task: PoolingTaskName | None = None,
        prompt_name: str | None = None,
        priority: int = 0,
    ) -> OneResult[PoolingRequestOutput[PoolingOutput]]:
        """Pool one prompt; await it, or iterate over it as vLLM has it. Arguments as for generate() and LLM.encode().

        Raises: as embed().
        """
        made: list[Submission] = []

        def prepare() -> Submission:
            asked = parse_prompt(prompt), pooling_params, pooling_task
            made.append(self._admission.pooling.pooled(*asked, prompt_name=prompt_name))
            return made[0]

        async def work() -> PoolingRequestOutput[PoolingOutput]:
            found = await self._pooled(prepare, request_id, priority)
            return as_numbers(found, of_tokens=made[0].is_of_tokens)

        return OneResult(work())

    async def classify(
        self,
        prompt: PromptInput,
        pooling_params: PoolingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
    ) -> ClassificationRequestOutput:
        """Classify one prompt. Arguments as for generate() and LLM.classify(). Raises: as embed()."""

        def prepare() -> Submission:
            return self._admission.pooling.classification(parse_prompt(prompt), pooling_params)

        return classified(await self._pooled(prepare, request_id, priority))

    async def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        /,
        *,
        pooling_params: PoolingParams | None = None,
        priority: int = 0,
    ) -> list[ScoringRequestOutput]:
        """Score pairs of texts. Arguments as for generate() and LLM.score().

        Raises: what embed() raises; then none of the pairs goes on.
        """
        self._check_open()
        work = partial(self._admission.pooling.scoring, data_1, data_2, pooling_params)
        plan, submissions = await asyncio.get_running_loop().run_in_executor(self._encoding, work)
        made = (partial(replace, submission) for submission in submissions)
        found = await together(self._pooled(prepare, None, priority) for prepare in made)
        if plan.width:  # of each pair the tokens of both: streams go on meanwhile
            return await asyncio.get_running_loop().run_in_executor(self._encoding, plan.outputs, found)
        return plan.outputs(found)

    async def transcribe(
        self,
        sound: Any,
        params: TranscriptionParams | None = None,
        sampling_params: SamplingParams | None = None,
        *,
        priority: int = 0,
    ) -> Transcript:
        """Write down what is said in one sound. Arguments as for LLM.transcribe().

        Raises: what LLM.transcribe() raises; then none of the sound's windows goes on.
        """
        self._check_open()
        asked, sampling = params or TranscriptionParams(), sampling_params or SAMPLING
        transcriber = self._admission.transcriber
        transcriber.check(asked, sampling)
        in_thread = asyncio.get_running_loop().run_in_executor
        windows = await in_thread(self._compiling, lambda: transcriber.windows(as_sound(sound)))
        first: list[Written] = []
        if asked.language is None and transcriber.finds_language_first:
            # what is spoken in the first window is in the others
            first = await self._written(windows[:1], asked, sampling, priority)
            asked = replace(asked, language=transcriber.language(first[0].token_ids))
        written = first + await self._written(windows[len(first) :], asked, sampling, priority)
        return transcriber.transcript(windows, written, asked)

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End a request, or several; the iterator of each gives a last output with finish_reason "abort". Unknown ids
        are fine."""
        for each in (request_id,) if isinstance(request_id, str) else request_id:
            if self._thread is None or not isinstance(each, str):
                continue
            if each in self._to_be_added:  # its prompt is being encoded
                self._to_be_added[each] = True
            else:
                self._thread.abort(each)

    def shutdown(self) -> None:
        """Abort everything, stop the engine and let the model's memory go. Doing it twice is fine."""
        self._config = None
        with self._changing:
            self._end()
        self._encoding.shutdown(wait=False)
        self._compiling.shutdown(wait=False)

    def _end(self) -> None:
        self._finalizer()
        self._thread = None
        if self.loaded is not None:
            self.loaded.close()
        self.loaded = None

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    # -- what it is ----------------------------------------------------------------------------------------------------

    def stats(self) -> EngineStats:
        """Counters and what is held now. Raises: EngineError after shutdown(), and while it sleeps."""
        return self._running().stats()

    async def check_health(self) -> None:
        """Raises: EngineError when it runs no more requests."""
        self._check_open()
        if self._thread is not None:
            self._thread.check_process()

    # -- its memory ----------------------------------------------------------------------------------------------------

    async def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """Have no prompt that comes later find anything of what was computed until now.

        Args:
            reset_running_requests: changes nothing: those that run go on with what they have, and nobody else finds it.
            reset_connector: what prefix_cache_dir keeps of this model goes, too.
        Returns: True: it is done.
        """
        self._check_open()
        if self._thread is not None or reset_connector:  # while it sleeps there is nothing but files
            async with self._asking() as thread:
                await asyncio.wrap_future(thread.reset_prefix_cache(reset_connector))
        return True

    async def sleep(self, level: int = 1) -> None:
        """Give the memory back, weights and KV cache. The next request loads the model again, or wake_up() does, with
        the same bits. Adapters are read again when they are named.

        Args: level: 1 or 2; vLLM keeps weights in host memory or not, here they lie in files either way.
        Raises: EngineError while there are requests.
        """
        check_level(level)
        self._check_open()
        await asyncio.get_running_loop().run_in_executor(None, self._fall_asleep)

    async def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Load the model again, if it sleeps. Args: tags: vLLM's weights and kv_cache; with either all is loaded.

        Raises: ModelError, OutOfMemory: it sleeps on.
        """
        check_tags(tags)
        async with self._asking():
            pass

    async def is_sleeping(self) -> bool:
        """Whether its memory is given back."""
        self._check_open()
        return self._thread is None

    def _fall_asleep(self) -> None:
        with self._changing:
            with self._counting:
                # Whose loop was closed never says that he is done.
                num_asking = sum(num for loop, num in self._asking_on.items() if not loop.is_closed())
                if num_asking:
                    raise EngineError(f"there are {num_asking} requests; sleep when they are over")
                self._asking_on.clear()
                self._thread = None
            device = None if self.loaded is None else self.loaded.device
            self._end()
            if device is not None:
                give_back(device)

    def _wake(self) -> None:
        with self._changing:
            if self._thread is None and self._config is not None:
                self._start(load(self._config))

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[EngineThread]:
        """The engine's thread, which does not sleep meanwhile. Raises: EngineError after shutdown()."""
        loop = asyncio.get_running_loop()
        with self._counting:
            self._asking_on[loop] += 1
            sleeps = self._thread is None
        try:
            self._check_open()
            if sleeps:
                await loop.run_in_executor(None, self._wake)
            yield self._running()
        finally:
            with self._counting:
                self._asking_on[loop] -= 1
                if self._asking_on[loop] <= 0:
                    del self._asking_on[loop]

    # -- the stream ----------------------------------------------------------------------------------------------------

    def _running(self) -> EngineThread:
        self._check_open()
        if self._thread is None:
            raise EngineError("this AsyncLLM sleeps; wake_up() loads it again")
        self._thread.check_process()
        return self._thread

    def _params(self, given: SamplingParams | None) -> SamplingParams:
        return self._admission.prepare(self._admission.default_params() if given is None else given)

    def _preparing(self, given: SamplingParams | None, has_media: bool) -> ThreadPoolExecutor:
        has_grammar = getattr(given, "structured_outputs", None) is not None
        return self._compiling if has_grammar or has_media else self._encoding

    async def _written(
        self, windows: Sequence[Window], asked: TranscriptionParams, sampling: SamplingParams, priority: int
    ) -> list[Written]:
        admission, transcriber = self._admission, self._admission.transcriber

        def prepare(window: Window, sampling: SamplingParams) -> Submission:
            prompt, params = transcriber.prompt(window, asked, sampling)
            return admission.submission(prompt, admission.prepare(params))

        async def written(window: Window) -> Written:
            for params in temperatures(asked, sampling):
                stream = self._stream(partial(prepare, window, params), self._compiling, None, priority)
                *_, last = [output async for output in stream]
                found = written_of(transcriber, last.outputs[0], params.temperature)
                if not transcriber.is_doubtful(found):
                    break
            return found

        return await together(written(window) for window in windows)

    async def _pooled(
        self, prepare: Callable[[], Submission], request_id: str | None, priority: int
    ) -> EmbeddingRequestOutput:
        outputs = self._outputs(prepare, self._encoding, request_id, priority)
        try:
            output = await anext(outputs)
        finally:
            await outputs.aclose()
        assert isinstance(output, EmbeddingRequestOutput), "asked for"
        return output

    async def _stream(
        self,
        prepare: Callable[[], Submission],
        pool: ThreadPoolExecutor,
        request_id: str | None,
        priority: int,
        given: SamplingParams | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Args: given: says what outputs hold."""
        outputs = self._outputs(prepare, pool, request_id, priority)
        teller = Teller(getattr(given, "output_kind", RequestOutputKind.CUMULATIVE))
        try:
            async for output in outputs:
                assert isinstance(output, RequestOutput), "asked for"
                if (told := teller.of(output)) is not None:
                    yield told
        finally:
            await outputs.aclose()

    async def _outputs(
        self, prepare: Callable[[], Submission], pool: ThreadPoolExecutor, request_id: str | None, priority: int
    ) -> AsyncGenerator[Output, None]:
        arrival_s = time.monotonic()
        name = f"request-{next(self._request_ids)}" if request_id is None else request_id
        if not isinstance(name, str):
            raise InvalidParams(f"request_id={short(name)} is not allowed; it must be a string")
        async with self._asking() as thread:
            self._to_be_added.setdefault(name, False)
            try:
                # Encoding a long prompt or rendering a template takes milliseconds that other readers should not wait
                # for.
                submission = await asyncio.get_running_loop().run_in_executor(pool, prepare)
                stream = Stream(name, submission, priority, arrival_s)
                thread.add(stream)
            finally:
                is_aborted = self._to_be_added.pop(name, False)
            if is_aborted:
                thread.abort(name)
            try:
                while not stream.is_over:
                    yield await stream.next()
            finally:
                if not stream.is_over:
                    thread.cancel(stream)
