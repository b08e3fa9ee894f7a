"""Request: one call with its parameters. Sequence: one of its continuations. And what is reported about them.

Built by engine.py, moved by scheduler.py. Does not know who is next, what a block holds, or text.

    Request ── prompt_token_ids, params, progress
       └── Sequence 0 … n-1 ── output_token_ids, num_computed_tokens, block_tables

One sequence of a request, the first that is not finished, computes the prompt; the others are UNFORKED until then. Of a
beam search each is a beam, or UNFORKED while no beam is its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from albireo.engine.beam_limits import longest_beams, task_params
from albireo.engine.beams import Beams
from albireo.engine.block_tables import Tables, blocks_needed
from albireo.engine.pooling import Pooling, check_pooling
from albireo.engine.settings import EngineSettings
from albireo.errors import InvalidParams, InvariantError, PromptTooLong, UnsupportedFeature, short
from albireo.image_input import ImageInput, prompt_key
from albireo.outputs import FinishReason, RequestMetrics
from albireo.params import PoolingParams, SamplingParams
from albireo.step import Floats, SampleTask, SequenceWork, ThinkingBudget, TokenConstraint, TokenLogprobs

_SEED_MASK = 2**64 - 1

#: Output that continuations have from before, one entry each; None: this one has ended.
Earlier = Seq[Seq[int] | None]
#: Makes the budget of one continuation's thinking.
MakeBudget = Callable[[], ThinkingBudget]


class HostBlock(NamedTuple):
    """A block of host memory: what it keeps is that of a place in the table of a group."""

    group: int
    place: int
    block: int


class Status(IntEnum):
    """Where a sequence is. There is no prefill or decode: num_computed_tokens says how far it is."""

    UNFORKED = 0
    WAITING = 1
    RUNNING = 2
    FINISHED = 3


@dataclass(slots=True)
class RequestProgress:
    """What is known of a request beyond its tokens; one live object a request, changed by later steps.

    Fields:
        num_cached_tokens: prompt tokens found in the prefix cache when the request first ran.
        prompt_logprobs: one entry a prompt token after the first, once the first token is out; None: not asked for.
    """

    metrics: RequestMetrics
    num_cached_tokens: int = 0
    prompt_logprobs: list[TokenLogprobs] | None = None


@dataclass(slots=True)
class SequenceUpdate:
    """What one step brought to one continuation; owned by the receiver, but for progress.

    Fields:
        token_ids: the new tokens; empty when it was ended from outside, and while a beam search goes on.
        logprobs: one entry a new token, when asked for.
        stop_reason: the stop token id; None for EOS; a text when finish() was given one.
        is_request_finished: True on the last update of the request, exactly once.
        embedding: of a request that wants one, on its last update, unless it was ended from outside.
    """

    request_id: str
    index: int
    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None
    finish_reason: FinishReason | None
    stop_reason: int | str | None
    is_request_finished: bool
    progress: RequestProgress
    embedding: Floats | None = None

    def go_on(self, later: SequenceUpdate) -> None:
        """The same step brought this as well."""
        self.token_ids += later.token_ids
        if self.logprobs is not None and later.logprobs is not None:
            self.logprobs += later.logprobs
        self.finish_reason, self.stop_reason = later.finish_reason, later.stop_reason
        self.is_request_finished = later.is_request_finished


@dataclass(slots=True, eq=False)
class Request:
    """One call. Invariant: num_unfinished counts the sequences that are not FINISHED.

    Fields:
        pooling: an embedding of the prompt is wanted; nothing is sampled then.
        adapter: the number of its adapter; None: it has none.
        images: of the prompt, in order.
        prefix: so many first tokens of it see each other; where there are images, these say so themselves. prefix_key:
            32 bytes that stand for those tokens; empty where there are none.
        beams: of a beam search.
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    priority: int
    cache_root: bytes
    progress: RequestProgress
    constraint: TokenConstraint | None = None
    budget: MakeBudget | None = None
    pooling: Pooling | None = None
    adapter: int | None = None
    images: tuple[ImageInput, ...] = ()
    prefix: int = 0
    prefix_key: bytes = b""
    beams: Beams | None = None
    sequences: list[Sequence] = field(default_factory=list)
    num_unfinished: int = 0
    is_prompt_done: bool = False

    @property
    def can_read_cache(self) -> bool:
        """False while prompt log-probabilities or all hidden states are wanted: a hit would skip their rows."""
        if self.params.prompt_logprobs is not None and not self.is_prompt_done:
            return False
        if self.pooling is not None and self.pooling.needs_all:
            return False
        return not self.params.skip_reading_prefix_cache

    def unfinished(self) -> list[Sequence]:
        """In order of index; before the prompt is done the first of them is the one that computes it."""
        return [seq for seq in self.sequences if seq.status is not Status.FINISHED]


@dataclass(slots=True, eq=False)
class Sequence:
    """One continuation. Invariants, between steps and while not FINISHED:
    1. 0 <= num_computed_tokens < num_tokens == prompt + output < max_len; a beam that is held has computed all;
    2. blocks are held by RUNNING sequences only, host blocks by WAITING ones; the tables cover num_computed_tokens
       positions;
    3. work is the step that computes the last token alone; it is reused from step to step.

    Fields:
        order: smaller runs earlier; unique. quiet_until: while num_tokens does not pass it, the next step computes one
            token, needs no block, and fills none (0: not known).
        block_keys: prefix-cache keys of the leading full blocks, as many as were needed so far.
        branch_at: where others that began like it went another way, and no snapshot of states is; 0: nowhere.
        rolling_key: of its snapshot that its next one takes the place of; None: there is none.
        host_blocks: of host memory (host_pool.py), which keep what is still of use of the first num_swapped_tokens
            positions.
        preempted_at_s: when it was, while it waits for that; preempted_s: seconds it has waited so.
    """

    seq_id: int
    index: int
    request: Request
    order: tuple[int, int, int]
    task: SampleTask
    work: SequenceWork
    stop_ids: frozenset[int]
    max_len: int
    num_tokens: int
    block_tables: Tables
    output_token_ids: list[int]
    status: Status = Status.UNFORKED
    num_computed_tokens: int = 0
    quiet_until: int = 0
    block_keys: list[bytes] = field(default_factory=list)
    branch_at: int = 0
    rolling_key: bytes | None = None
    host_blocks: list[HostBlock] = field(default_factory=list)
    num_swapped_tokens: int = 0
    preempted_at_s: float | None = None
    preempted_s: float = 0.0

    @property
    def is_held(self) -> bool:
        """Whether it keeps its blocks with nothing to compute: a beam, until others of its search are as far."""
        return self.status is Status.RUNNING and self.num_computed_tokens == self.num_tokens

    def append(self, token_id: int) -> None:
        """One token more, which the next step computes."""
        self.output_token_ids.append(token_id)
        self.work.num_computed_tokens = self.num_tokens
        self.work.token_ids = [token_id]
        self.num_tokens += 1

    def slice(self, start: int, end: int) -> list[int]:
        """Token ids at positions start .. end-1. Cost: O(end - start)."""
        prompt = self.request.prompt_token_ids
        split = len(prompt)
        if end <= split:
            return prompt[start:end]
        if start >= split:
            return self.output_token_ids[start - split : end - split]
        return prompt[start:] + self.output_token_ids[: end - split]

    def work_for(self, num_new: int) -> SequenceWork:
        """The next num_new tokens as work; samples on the last known token, for all siblings if it ends the prompt."""
        start, end = self.num_computed_tokens, self.num_computed_tokens + num_new
        request = self.request
        if request.is_prompt_done and num_new == 1 and end == self.num_tokens:
            return self.work
        work = SequenceWork(self.seq_id, self.slice(start, end), start, self.block_tables)
        work.adapter_slot, work.state_slot = self.work.adapter_slot, self.work.state_slot
        work.images, work.prefix = request.images, request.prefix
        if request.pooling is not None:
            work.pooling = request.pooling.task(start, end, self.num_tokens)
            work.type_start = -1 if (first := request.pooling.params.type_start) is None else first
            return work
        if end == self.num_tokens:
            is_alone = request.is_prompt_done or request.beams is not None
            work.samples = (self.task,) if is_alone else tuple(seq.task for seq in request.unfinished())
        if request.params.prompt_logprobs is not None and not request.is_prompt_done:
            targets = request.prompt_token_ids[start + 1 : end + 1]
            if targets:
                work.prompt_logprobs = request.params.prompt_logprobs
                work.prompt_targets = targets
        return work


def check_request(
    prompt_token_ids: list[int],
    params: SamplingParams,
    priority: int,
    settings: EngineSettings,
    pooling: PoolingParams | None = None,
    images: Seq[ImageInput] = (),
) -> int:
    """Refuse what can never run.

    Args: pooling: an embedding is wanted; then params say nothing.
    Returns: the longest the sequence may become, in tokens.
    Raises: InvalidParams or PromptTooLong, with the numbers; UnsupportedFeature.
    """
    num_prompt = len(prompt_token_ids)
    if num_prompt == 0:
        raise InvalidParams("the prompt has no tokens; give at least one")
    low, high = min(prompt_token_ids), max(prompt_token_ids)
    if low < 0 or high >= settings.vocab_size:
        bad = low if low < 0 else high
        raise InvalidParams(f"prompt token id {bad} is outside the vocabulary; ids are 0 to {settings.vocab_size - 1}")
    if type(priority) is not int:
        raise InvalidParams(f"priority={short(priority)} is not allowed; it must be a whole number, lower runs earlier")
    if priority and settings.scheduling_policy != "priority":
        raise InvalidParams(
            f"priority={short(priority)} needs scheduling_policy='priority', "
            f"this engine runs {settings.scheduling_policy!r}; leave it 0 or change the policy"
        )
    if settings.are_prompts_whole:
        _check_whole(num_prompt, params, settings)
    if settings.sound_positions:
        _check_sound(images, num_prompt, params, settings)
    elif images:
        _check_images(images, num_prompt, params, settings)
    if pooling is not None:
        return check_pooling(prompt_token_ids, pooling, settings)
    if not settings.generates:
        raise UnsupportedFeature(f"this model {settings.pooling_rule.says}; it writes no text")
    if num_prompt >= settings.max_model_len:
        raise PromptTooLong(
            f"the prompt has {num_prompt} tokens; max_model_len={settings.max_model_len} leaves room for "
            f"{settings.max_model_len - 1} and one produced; shorten it or raise max_model_len"
        )
    max_len = _longest(num_prompt, params, settings)
    for image in images:
        if image.is_beside:
            max_len = min(max_len, image.num_rows)
            if num_prompt >= max_len:
                raise InvalidParams(
                    f"the prompt has {num_prompt} tokens, and what is heard is {image.num_rows} rows, one of each "
                    "token: nothing can be written"
                )
    return max_len if params.beam_search is None else longest_beams(num_prompt, max_len, params, settings)


def _check_whole(num_prompt: int, params: SamplingParams, settings: EngineSettings) -> None:
    """Of a model whose prompts see themselves."""
    if params.prompt_logprobs is not None:
        raise UnsupportedFeature(
            f"prompt_logprobs={params.prompt_logprobs}: tokens of a prompt see those behind them in this model, which "
            "says nothing of how likely they are; leave it out"
        )
    if num_prompt > settings.max_num_batched_tokens:
        raise InvalidParams(
            f"the prompt has {num_prompt} tokens, max_num_batched_tokens={settings.max_num_batched_tokens}: tokens of "
            "a prompt see all of it in this model, so it has to be in one step; raise it"
        )


def _check_images(images: Seq[ImageInput], num_prompt: int, params: SamplingParams, settings: EngineSettings) -> None:
    problems = {"image": settings.image_problem, "sound": settings.sound_problem, "video": settings.video_problem}
    for kind, problem in problems.items():
        count = sum(image.kind == kind for image in images)
        if count and problem:
            raise UnsupportedFeature(f"the prompt has {count} {kind}s, and {problem}")
    ends = [end for image in images for span in image.spans for end in span]
    room = max([num_prompt, *(image.spans[-1][1] for image in images if image.is_beside)])
    if ends != sorted(ends) or ends[0] < 0 or ends[-1] > room:
        raise InvariantError(f"images at {ends} of a prompt of {num_prompt} tokens")
    # tokens of sounds see what is before them, as text
    whole = [image for image in images if image.kind != "sound"] if settings.are_images_whole else []
    if whole and params.prompt_logprobs is not None:
        raise UnsupportedFeature(
            f"prompt_logprobs={params.prompt_logprobs}: in this model an image is computed in one step, whose rows of "
            "logits are fewer; leave it out where a prompt has images"
        )
    prefix, window = images[0].prefix, settings.narrowest_window
    if window is not None and prefix > window:
        raise InvalidParams(
            f"the prompt has {prefix} tokens, each of which sees all others in this model, and some of its layers see "
            f"{window}; shorten it"
        )
    longest = prefix or max((end - start for image in whole for start, end in image.spans), default=0)
    if whole and longest > settings.max_num_batched_tokens:
        raise InvalidParams(
            f"the prompt has {'' if prefix else 'an image of '}{longest} tokens, max_num_batched_tokens="
            f"{settings.max_num_batched_tokens}: tokens of {'a prompt' if prefix else 'an image'} see all of it in "
            "this model, so it has to be in one step; raise it"
        )


def _check_sound(images: Seq[ImageInput], num_prompt: int, params: SamplingParams, settings: EngineSettings) -> None:
    wanted = [(0, settings.sound_positions)]
    if [span for image in images for span in image.spans] != wanted or num_prompt <= settings.sound_positions:
        raise InvalidParams(
            "the prompt has no sound, and this model writes down what it hears in one: have it transcribed "
            '(albireo transcribe, LLM.transcribe), or give it as multi_modal_data={"audio": (samples, rate)}'
        )
    if params.prompt_logprobs is not None:
        raise UnsupportedFeature(
            f"prompt_logprobs={params.prompt_logprobs}: this prompt begins with a sound, which is no text; leave it out"
        )
    if settings.writes_frames:
        _check_frames(num_prompt - settings.sound_positions, params)


def _check_frames(num_told: int, params: SamplingParams) -> None:
    """Of a model that writes what frames say. Raises: UnsupportedFeature for what would change it."""
    asked = {
        "prompt": num_told > 1,
        "temperature": not params.is_greedy,
        "logprobs": params.logprobs not in (None, 0),
        "ignore_eos": params.ignore_eos,
        "penalties, forms of the output, tokens that may come or not": not params.ignores_output,
    }
    for what, is_asked in asked.items():
        if is_asked:
            raise UnsupportedFeature(
                f"{what}: this model writes what the frames of a sound say, and nothing else; leave it out, and set "
                "temperature=0"
            )


def _longest(num_prompt: int, params: SamplingParams, settings: EngineSettings) -> int:
    # The last token of a sequence is never computed, so it needs no place in the cache.
    capacity = settings.capacity_tokens + 1
    asked = capacity if params.max_tokens is None else num_prompt + params.max_tokens
    max_len = min(settings.max_model_len, asked)
    if max_len > capacity or num_prompt >= capacity:
        longest = max(max_len - 1, num_prompt)
        size, windows, max_new = settings.block_size, settings.windows, settings.max_num_batched_tokens
        num_needed = blocks_needed(longest, size, windows, max_new)
        raise PromptTooLong(
            f"the prompt's {num_prompt} tokens with max_tokens={params.max_tokens} need {num_needed} KV blocks of "
            f"{settings.block_size}, the cache has {settings.num_blocks - 1}; "
            "lower max_tokens, shorten the prompt or raise kv_cache_memory_bytes"
        )
    return max_len


def check_earlier(earlier: Earlier, num_prompt: int, max_len: int, params: SamplingParams) -> None:
    """Refuse output that the request cannot have so far. Raises: InvalidParams."""
    if params.beam_search is not None:
        raise InvalidParams("a beam search has no output before its end: it begins anew")
    if len(earlier) != params.n:
        raise InvalidParams(f"earlier outputs are given for {len(earlier)} continuations, the request has n={params.n}")
    known = [len(output) for output in earlier if output is not None]
    if not known:
        raise InvalidParams("all continuations have ended: there is nothing to go on with")
    if num_prompt + max(known) >= max_len:
        raise InvalidParams(
            f"a continuation has {max(known)} tokens after a prompt of {num_prompt} and is given as going on; it may "
            f"become {max_len} tokens long, prompt included"
        )


def build_request(
    request: Request,
    *,
    max_len: int,
    arrival_idx: int,
    first_seq_id: int,
    settings: EngineSettings,
    earlier: Earlier | None = None,
) -> None:
    """Give a request its n sequences; ids are consecutive, the seed of sequence i is the request's plus i.

    Sequences that have output already stand where a preempted one does: prompt and output are to be computed again,
    and the next token is drawn at the place in its random stream that it would have had.
    """
    params = request.params
    outputs = [[] for _ in range(params.n)] if earlier is None else [None if o is None else list(o) for o in earlier]
    request.is_prompt_done = any(outputs)
    constraint = request.constraint
    if (params.structured_outputs is None) != (constraint is None):
        raise InvariantError(f"request {request.request_id!r}: structured_outputs and a compiled grammar come together")
    if (params.thinking_token_budget is None) != (request.budget is None):
        raise InvariantError(f"request {request.request_id!r}: thinking_token_budget and what watches it come together")
    # A grammar ends by EOS, also when EOS is ignored where it is not the only way on.
    eos = frozenset() if params.ignore_eos and constraint is None else settings.eos_token_ids
    stop_ids = eos | frozenset(params.stop_token_ids or ())
    seed = derive_seed(settings.seed, arrival_idx) if params.seed is None else params.seed
    # As in vLLM, EOS does not come before min_tokens, also where it would end nothing.
    masked = tuple(sorted(stop_ids | settings.eos_token_ids))
    prompt = request.prompt_token_ids
    if settings.are_prompts_whole:
        request.prefix, request.prefix_key = len(prompt), prompt_key(prompt)
    if params.beam_search is not None:
        num_told = settings.vocab_size if params.logprobs == -1 else params.logprobs
        request.beams = Beams(params.beam_search, len(prompt), max_len, stop_ids, num_told)
        params = task_params(params, len(stop_ids), settings)
    for index, known in enumerate(outputs):
        seq_id = first_seq_id + index
        output: list[int] = known or []
        num_tokens = len(prompt) + len(output)
        tables: Tables = tuple([] for _ in settings.windows)
        matcher = None if constraint is None else constraint.matcher()
        budget = None if request.budget is None else request.budget()
        task = SampleTask(seq_id, params, (seed + index) & _SEED_MASK, prompt, output, masked, matcher, budget)
        sequence = Sequence(
            seq_id=seq_id,
            index=index,
            request=request,
            order=(request.priority, arrival_idx, index),
            task=task,
            work=SequenceWork(seq_id, (output or prompt)[-1:], num_tokens - 1, tables, (task,), images=request.images),
            stop_ids=stop_ids,
            max_len=max_len,
            num_tokens=num_tokens,
            block_tables=tables,
            output_token_ids=output,
            status=Status.UNFORKED if known is not None else Status.FINISHED,
        )
        request.sequences.append(sequence)
    request.num_unfinished = len(request.unfinished())


def derive_seed(engine_seed: int, arrival_idx: int) -> int:
    """A seed for a request that brought none: the same for the same engine seed and place in the line of arrivals."""
    digest = hashlib.sha256(f"{engine_seed}:{arrival_idx}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
