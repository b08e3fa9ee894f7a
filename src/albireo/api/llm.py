"""LLM: the blocking front door. Prompts in, all their outputs back, in order.

Called by users, the bench and commands. Does not know HTTP or event loops; async_llm.py streams.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from albireo.api.driver import Driver
from albireo.api.front_door import FrontDoor
from albireo.api.interrupt import DelayedInterrupt
from albireo.api.load import Loaded
from albireo.api.load import load as load_parts
from albireo.api.request_bar import RequestBar
from albireo.api.requests.beam_search import beam_output
from albireo.api.requests.output_kinds import check_whole
from albireo.api.requests.prompts import Prompt, PromptInput, parse_prompts
from albireo.api.requests.request_record import RequestRecord
from albireo.api.requests.scoring import as_numbers, classified
from albireo.api.requests.submission import Submission
from albireo.api.sleeping import check_level, check_tags, give_back
from albireo.api.transcribe.transcription import SAMPLING
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
from albireo.params import PoolingParams, PoolingTaskName, SamplingParams
from albireo.transcription_params import TranscriptionParams
from albireo.vllm_names import OF_CALLS, OF_CHATS, OF_POOLING, takes_vllms

_IDS = 'prompts are {"prompt_token_ids": […]}, too'
_FORMS = "structured_outputs of SamplingParams says it"
P = TypeVar("P")


class LLM(FrontDoor):
    """One model in this process, run in the caller's thread.

    Invariants: 1. each call returns one output a prompt, in the order of prompts; 2. a call that raises leaves nothing
    behind; 3. calls from several threads take turns.
    """

    def _begin(self, config: EngineConfig, loaded: Loaded) -> None:
        self._lock = threading.Lock()
        super()._begin(config, loaded)

    def _start(self, loaded: Loaded) -> None:
        if loaded.config.target_itl_ms is None:
            # outputs are given back once all are there: no stream waits for a prompt
            loaded = replace(loaded, settings=replace(loaded.settings, target_step_s=0.0))
        super()._start(loaded)
        self._driver: Driver | None = Driver.of(loaded)

    # -- the calls -----------------------------------------------------------------------------------------------------

    @takes_vllms(**OF_CALLS, prompt_token_ids=_IDS, guided_options_request=_FORMS)
    def generate(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
        priority: Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Complete prompts.

        Args:
            prompts: a string, a list of token ids, {"prompt": …} or {"prompt_token_ids": …}; or a list of those.
            sampling_params: for all, or one each; None: get_default_sampling_params().
            use_tqdm: a progress bar, on a terminal only.
            lora_request: the adapter for all, or one each; None: the model as it is. It is read when first named, and
                needs enable_lora.
            priority: one each, lower runs earlier; needs scheduling_policy="priority".
        Returns: one a prompt, in order. A request that failed while it ran has finish_reason "error" and the reason
            as stop_reason; the others are not disturbed.
        Raises: InvalidParams, PromptTooLong, UnsupportedFeature: one of the requests is refused; none has run.
            ModelError: an adapter that cannot be read, or does not fit.
        """
        parsed = parse_prompts(prompts)
        params = self._params(len(parsed), sampling_params)
        submissions = [self._admission.submission(*pair) for pair in zip(parsed, params, strict=True)]
        return [record.output() for record in self._run(submissions, priority, use_tqdm, lora=lora_request)]

    def beam_search(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        params: BeamSearchParams,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
        use_tqdm: bool = False,
        concurrency_limit: int | None = None,
        *,
        priority: Sequence[int] | None = None,
    ) -> list[BeamSearchOutput]:
        """Find likely outputs of prompts: at each token the best few so far are gone on with.

        Args:
            concurrency_limit: prompts that are searched for at once; None: as many as there are seats for.
            The others: see generate().
        Returns: one a prompt, in order; the same whatever else runs. Beams of a request that failed while it ran have
            finish_reason "error" and the reason as stop_reason.
        Raises: as generate().
        """
        submissions = [self._admission.beam_search(prompt, params) for prompt in parse_prompts(prompts)]
        limit = concurrency_limit
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InvalidParams(f"concurrency_limit={short(limit)} is not allowed; it must be at least 1")
        records = self._run(submissions, priority, use_tqdm, "Searching", lora_request, limit)
        return [beam_output(record.output(), self._tokenizer) for record in records]

    @property
    def tells_times(self) -> bool:
        """Whether transcribe() can say when something was said. Raises: UnsupportedFeature where it writes nothing."""
        return self._admission.transcriber.has_times

    @property
    def tells_words(self) -> bool:
        """Whether it can say when each word was said. Raises: as tells_times."""
        return self._admission.transcriber.has_word_times

    def transcribe(
        self,
        sounds: Any,
        params: TranscriptionParams | None = None,
        sampling_params: SamplingParams | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[Transcript]:
        """Write down what is said, with a model of speech.

        Args:
            sounds: the bytes of a file, or (samples, rate) with samples [n] from -1 to 1, of any length; or a list.
            params: what is spoken, and what is wanted; None: transcribe what the model finds.
            sampling_params: None: the likeliest tokens.
        Returns: one a sound, in order.
        Raises: InvalidParams for what is no sound; UnsupportedFeature for another model, or what this one cannot do;
            EngineError when a window failed while it ran.
        """

        def run(submissions: list[Submission]) -> list[RequestOutput]:
            return [record.output() for record in self._run(submissions, None, use_tqdm, "Transcribing")]

        given = sounds if isinstance(sounds, list) else [sounds]
        from albireo.api.transcribe.sound_batch import SoundBatch  # what reads sounds is imported when one comes

        batch = SoundBatch(self._admission, run)
        return batch.transcripts(given, params or TranscriptionParams(), sampling_params or SAMPLING)

    @takes_vllms(**OF_POOLING)
    def embed(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        *,
        prompt_name: str | None = None,
        use_tqdm: bool = True,
        priority: Sequence[int] | None = None,
    ) -> list[EmbeddingRequestOutput]:
        """Embed prompts: of each one vector, which the model's last hidden states are pooled to.

        Args:
            pooling_params: for all, or one each; None: the last token's hidden state, scaled to length 1.
            prompt_name: of what the model's files say that such texts begin with (loaded.pooling_rule.prompts), which
                is put in front of them; None: nothing is.
            The others: see generate().
        Returns: one a prompt, in order; the same values whatever else runs.
        Raises: as generate(), and EngineError when one of the requests failed while it ran.
        """
        prepare = partial(self._admission.pooling.embedding, prompt_name=prompt_name)
        records = self._pool(prepare, prompts, pooling_params, use_tqdm, priority, "Embedding")
        return [record.embedding() for record in records]

    @takes_vllms(**OF_POOLING)
    def encode(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        *,
        pooling_task: PoolingTaskName | None = None,
        prompt_name: str | None = None,
        use_tqdm: bool = True,
        priority: Sequence[int] | None = None,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """Pool prompts to whatever the model gives, as arrays: of a text, or of each of its tokens.

        Args:
            pooling_task: embed, classify: as embed() and classify(); token_embed: an embedding of each token;
                token_classify: of each token the probabilities of the model's labels. None: what the model does.
            The others: see embed().
        Returns: one a prompt, in order; the same values whatever else runs.
        Raises: as embed(), and UnsupportedFeature for what the model does not do.
        """
        prepare = partial(self._admission.pooling.pooled, task=pooling_task, prompt_name=prompt_name)
        records = self._pool(prepare, prompts, pooling_params, use_tqdm, priority, "Pooling")
        return [as_numbers(record.embedding(), of_tokens=record.submission.is_of_tokens) for record in records]

    def reward(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """encode() with pooling_task="token_classify", by vLLM's older name."""
        return self.encode(prompts, pooling_params, pooling_task="token_classify", use_tqdm=use_tqdm)

    @takes_vllms(**OF_POOLING)
    def classify(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        use_tqdm: bool = True,
        priority: Sequence[int] | None = None,
    ) -> list[ClassificationRequestOutput]:
        """Classify prompts, with a model that ends in a classifier; loaded.pooling_rule has its labels.

        Args:
            pooling_params: for all, or one each; use_activation=False: what the model gives, not yet probabilities.
            The others: see generate().
        Returns: one a prompt, in order; the same values whatever else runs.
        Raises: as embed(), and UnsupportedFeature for another model.
        """
        records = self._pool(
            self._admission.pooling.classification, prompts, pooling_params, use_tqdm, priority, "Classifying"
        )
        return [classified(record.embedding()) for record in records]

    @takes_vllms(**OF_POOLING)
    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        /,
        *,
        use_tqdm: bool = True,
        pooling_params: PoolingParams | None = None,
    ) -> list[ScoringRequestOutput]:
        """Score pairs of texts: how well each two go together, by the cosine of their embeddings, or as a classifier of
        one label says that reads both at once (a cross-encoder).

        Args:
            data_1: one text for all of data_2, or a list of as many.
            data_2: a text, or a list of them.
            pooling_params: how texts are embedded; see embed(). use_activation=False: a classifier's score as it is.
        Returns: one a pair, in order; the same values whatever else runs.
        Raises: as embed(), and UnsupportedFeature for a classifier of several labels.
        """
        plan, submissions = self._admission.pooling.scoring(data_1, data_2, pooling_params)
        return plan.outputs([record.embedding() for record in self._run(submissions, None, use_tqdm, "Scoring")])

    @takes_vllms(**OF_CALLS, **OF_CHATS)
    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: LoRARequest | Sequence[LoRARequest | None] | None = None,
        *,
        priority: Sequence[int] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of a list of conversations, by the model's own template.

        Args:
            messages: dicts with role and content; or a list of such lists.
            chat_template: the source of another template, or the name of one of the model's.
            continue_final_message: go on with the last message; needs add_generation_prompt=False.
            chat_template_kwargs: further variables for the template, such as {"enable_thinking": False}.
            The others: see generate().
        Raises: TemplateError, and what generate() raises.
        """
        options = {
            "chat_template": chat_template,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "tools": tools,
            "chat_template_kwargs": chat_template_kwargs,
        }
        conversations = list(messages) if _is_list_of_chats(messages) else [messages]
        params = self._params(len(conversations), sampling_params)
        submissions = [
            self._admission.chat(chat, each, options) for chat, each in zip(conversations, params, strict=True)
        ]
        return [record.output() for record in self._run(submissions, priority, use_tqdm, lora=lora_request)]

    # -- adapters ------------------------------------------------------------------------------------------------------

    def add_lora(self, lora_request: LoRARequest) -> bool:
        """Read an adapter now, not when the first request names it. Raises: ModelError, InvalidParams."""
        with self._lock:
            self._awake()
            return self._loras.number(lora_request) is not None

    def remove_lora(self, lora_int_id: int) -> bool:
        """Forget an adapter, so that its number may be given to another. Returns: whether it was known."""
        with self._lock:
            return self._loras.remove(lora_int_id)

    def list_loras(self) -> set[int]:
        """Numbers of the adapters that are known."""
        return self._loras.ids()

    # -- what it is ----------------------------------------------------------------------------------------------------

    def stats(self) -> EngineStats:
        """Counters and what is held now. Raises: EngineError when it is closed, or sleeps."""
        self._check_open()
        driver = self._driver
        if driver is None:
            raise EngineError("this LLM sleeps, and counts nothing; wake_up() loads it again")
        return driver.stats()

    # -- its memory ----------------------------------------------------------------------------------------------------

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """Have no prompt find anything of what was computed until now.

        Args:
            reset_running_requests: changes nothing: between calls nothing runs.
            reset_connector: what prefix_cache_dir keeps of this model goes, too.
        Returns: True: it is done.
        """
        with self._lock:
            self._check_open()
            if self._driver is not None or reset_connector:  # while it sleeps there is nothing but files
                self._awake().reset_prefix_cache(reset_connector)
        return True

    def sleep(self, level: int = 1) -> None:
        """Give the memory back, weights and KV cache, after a call that is running. The next call loads the model
        again, or wake_up() does, with the same bits. Adapters are read again when they are named.

        Args: level: 1 or 2; vLLM keeps weights in host memory or not, here they lie in files either way.
        """
        check_level(level)
        with self._lock:
            self._check_open()
            if self.loaded is not None:
                device = self.loaded.device
                self._let_go()
                give_back(device)

    def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Load the model again, if it sleeps. Args: tags: vLLM's weights and kv_cache; with either all is loaded.

        Raises: ModelError, OutOfMemory: it sleeps on.
        """
        check_tags(tags)
        with self._lock:
            self._awake()

    def close(self) -> None:
        """Let the model and its memory go, after a call that is running. Closing twice is fine."""
        with self._lock:
            self._let_go()
            self._config = None

    def _let_go(self) -> None:
        if self.loaded is not None:
            self.loaded.close()
        self.loaded = None
        self._driver = None

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _awake(self) -> Driver:
        """What runs requests, loaded again if it slept; with the lock."""
        self._check_open()
        if self._driver is None:
            assert self._config is not None, "open"
            self._start(load_parts(self._config))
        assert self._driver is not None, "started"
        return self._driver

    # -- the run -------------------------------------------------------------------------------------------------------

    def _params(self, num: int, given: SamplingParams | Sequence[SamplingParams] | None) -> list[SamplingParams]:
        if given is None:
            given = self._admission.default_params()
        if isinstance(given, SamplingParams) or not isinstance(given, Sequence):
            return [check_whole(self._admission.prepare(given))] * num
        each: list[SamplingParams] = _one_each(num, given, "sampling_params")
        return [check_whole(self._admission.prepare(params)) for params in each]

    def _pool(
        self,
        prepare: Callable[[Prompt, PoolingParams], Submission],
        prompts: PromptInput | Sequence[PromptInput],
        pooling_params: PoolingParams | Sequence[PoolingParams] | None,
        use_tqdm: bool,
        priority: Sequence[int] | None,
        title: str,
    ) -> list[RequestRecord]:
        parsed = parse_prompts(prompts)
        given = PoolingParams() if pooling_params is None else pooling_params
        params = _one_each(len(parsed), given, "pooling_params")
        submissions = [prepare(*pair) for pair in zip(parsed, params, strict=True)]
        return self._run(submissions, priority, use_tqdm, title)

    def _run(
        self,
        submissions: list[Submission],
        priority: Sequence[int] | None,
        use_tqdm: bool,
        title: str = "Generating",
        lora: LoRARequest | Sequence[LoRARequest | None] | None = None,
        most: int | None = None,
    ) -> list[RequestRecord]:
        """Args: most: that are in the engine at once; None: all."""
        if priority is not None and not isinstance(priority, Sequence):
            raise InvalidParams(f"priority={short(priority)} is not allowed; it must be a list, one number a prompt")
        levels = [0] * len(submissions) if priority is None else list(priority)
        if len(levels) != len(submissions):
            raise InvalidParams(f"there are {len(submissions)} prompts and {len(levels)} priorities; give one each")
        with self._lock, DelayedInterrupt() as interrupt:
            driver = self._awake()
            submissions = self._loras.with_adapters(submissions, lora)
            records: list[RequestRecord] = []
            try:
                arrival_s = time.monotonic()
                pairs = list(zip(submissions, levels, strict=True))
                size = most or max(1, len(pairs))
                with RequestBar(len(pairs), use_tqdm, title) as bar:
                    for start in range(0, len(pairs), size):
                        for submission, level in pairs[start : start + size]:
                            request_id = str(next(self._request_ids))
                            records.append(driver.add(request_id, submission, priority=level, arrival_s=arrival_s))
                        _step_until_done(driver, bar.note, interrupt)
            except BaseException:
                for record in records:
                    driver.abort(record.request_id)
                raise
            return records


def load(model: str | None = None, **kwargs: Any) -> LLM:
    """A model ready to run: the counterpart of build(), for an engine directory or a checkpoint.

    Args: as those of LLM. Raises: ConfigError, ModelError, OutOfMemory.
    """
    return LLM(model, **kwargs)


def _step_until_done(driver: Driver, note: Callable[[RequestRecord], None], interrupt: DelayedInterrupt) -> None:
    while driver.has_work():
        for record in driver.step():
            if record.is_finished:
                note(record)
        interrupt.check()


def _one_each(num: int, given: P | Sequence[P], name: str) -> list[P]:
    """Parameters of each of so many prompts, from those for all or one each. Raises: InvalidParams."""
    if not isinstance(given, Sequence):
        return [given] * num
    if len(given) != num:
        raise InvalidParams(f"there are {num} prompts and {len(given)} {name}; give one for all or one each")
    return list(given)


def _is_list_of_chats(messages: Sequence[Any]) -> bool:
    return isinstance(messages, Sequence) and len(messages) > 0 and isinstance(messages[0], (list, tuple))
