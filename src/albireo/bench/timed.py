"""TimedEngine: a loaded model that runs batches of requests and keeps the time of every step.

Used by latency.py and throughput.py. What is timed is what a caller of LLM.generate() waits for: scheduling, computing,
sampling, and text when there is a tokenizer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from albireo.api.llm import LLM
from albireo.api.load import load
from albireo.api.requests.prompts import PromptInput
from albireo.bench.roofline import StepShape, shape_of
from albireo.bench.workload import BenchRequest
from albireo.config import EngineConfig
from albireo.errors import ConfigError, EngineError
from albireo.outputs import RequestOutput
from albireo.params import SamplingParams
from albireo.step import StepPlan, StepResult


@dataclass(frozen=True, slots=True)
class TimedStep:
    """One step: what it had to do, and how long executing it took (its arrays and sampling included)."""

    shape: StepShape
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """One batch of requests, from the first added to the last finished.

    Fields:
        first_token_s: for each request, seconds from its arrival.
        outputs_sha256: of all token ids produced, in order.
        num_draft_tokens, num_accepted_tokens: drafts computed, and those that came true.
    """

    elapsed_s: float
    steps: list[TimedStep]
    first_token_s: list[float]
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    outputs_sha256: str
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn in a benchmark. Each request has a seed of its own, so that runs can be compared."""

    n: int = 1
    temperature: float = 1.0
    seed: int = 0
    detokenize: bool = True

    def params(self, request_idx: int, output_len: int) -> SamplingParams:
        """vLLM's parameters for its benchmarks: exactly output_len tokens."""
        return SamplingParams(
            n=self.n,
            temperature=self.temperature,
            seed=self.seed + request_idx,
            max_tokens=output_len,
            ignore_eos=True,
            detokenize=self.detokenize,
        )


class TimedEngine:
    """One LLM, loaded once. Runs do not share cached prefixes: each has a salt of its own."""

    def __init__(
        self, config: EngineConfig, *, show_progress: bool = False, levels: Sequence[str] | None = None
    ) -> None:
        """Load a model, and prepare what a step would wait for that meets it first.

        Args: levels: ISA levels to choose kernels from; None: all of this machine's.
        """
        self.loaded = load(config, show_progress=show_progress, levels=levels)
        while self.loaded.prepare():
            pass
        self._llm = LLM.from_loaded(replace(self.loaded, execute=self._timed))
        self._steps: list[TimedStep] = []
        self._num_runs = 0

    def vocabulary(self) -> tuple[int, frozenset[int]]:
        """Number of token ids to draw prompts from, and those to leave out because they are special."""
        tokenizer, eos = self.loaded.tokenizer, frozenset(self.loaded.eos_token_ids)
        size = self.loaded.model_config.vocab_size
        if tokenizer is None:
            return size, eos
        return min(size, tokenizer.vocab_size), eos | tokenizer.special_ids

    def check_fits(self, max_len: int) -> None:
        """Raises: ConfigError when a request of this length would be cut short."""
        limit = self.loaded.settings.max_model_len
        if max_len > limit:
            raise ConfigError(
                f"the longest request takes {max_len} tokens, the context is {limit}; lower --input-len or --output-len"
            )

    def run(self, requests: Sequence[BenchRequest], sampling: Sampling) -> Run:
        """Run requests that arrive together.

        Raises: EngineError when a request is refused, or ends otherwise than by its length.
        """
        salt = f"bench run {self._num_runs}"
        self._num_runs += 1
        prompts: list[PromptInput] = [
            {"prompt_token_ids": request.prompt_token_ids, "cache_salt": salt} for request in requests
        ]
        params = [sampling.params(idx, request.output_len) for idx, request in enumerate(requests)]
        self._steps = []
        before = self._llm.stats()
        started = time.perf_counter()
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        elapsed_s = time.perf_counter() - started
        after = self._llm.stats()
        return replace(
            self._summary(elapsed_s, outputs),
            num_draft_tokens=after.num_draft_tokens - before.num_draft_tokens,
            num_accepted_tokens=after.num_accepted_tokens - before.num_accepted_tokens,
        )

    def _timed(self, plan: StepPlan) -> StepResult:
        # The engine goes on to change what the plan borrows, so the shape is taken now, outside the time.
        shape = shape_of(plan)
        started = time.perf_counter()
        result = self.loaded.execute(plan)
        self._steps.append(TimedStep(shape, time.perf_counter() - started))
        return result

    def _summary(self, elapsed: float, outputs: list[RequestOutput]) -> Run:
        digest = hashlib.sha256()
        num_output_tokens = 0
        first_token_s = []
        for request in outputs:
            for output in request.outputs:
                if output.finish_reason != "length":
                    raise EngineError(
                        f"request {request.request_id} ended with {output.finish_reason!r} ({output.stop_reason}); "
                        "its speed would mean nothing"
                    )
                digest.update(repr(output.token_ids).encode())
                num_output_tokens += len(output.token_ids)
            if request.metrics is not None and request.metrics.first_token_latency is not None:
                first_token_s.append(request.metrics.first_token_latency)
        return Run(
            elapsed_s=elapsed,
            steps=self._steps,
            first_token_s=first_token_s,
            num_prompt_tokens=sum(len(request.prompt_token_ids) for request in outputs),
            num_output_tokens=num_output_tokens,
            num_cached_tokens=sum(request.num_cached_tokens for request in outputs),
            outputs_sha256=digest.hexdigest(),
        )
