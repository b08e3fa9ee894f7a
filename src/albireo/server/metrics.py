"""Engine news -> Prometheus, with vLLM's names, labels and buckets, so that its dashboards work unchanged.

Called by serving.py for each step and each request's end. Counts are of what clients are given: a token that another
engine process computes again counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from albireo.engine_process.client import EngineClient, Health
from albireo.engine_process.messages import Ready, Stepped
from albireo.engine_process.tracked import Tracked

_LABELS = ("model_name", "engine")
_TTFT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_STEP = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_N = (1, 2, 5, 10, 20)
_PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
#: Of prompt tokens; what an engine reads from files was computed on this machine, and is found as all else.
_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_REASONS = ("stop", "length", "abort", "error", "repetition")


class _Families:
    """Metrics by name, each made once, whose label `engine` tells the engines apart."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self.model_name = model_name
        self._made: dict[str, Any] = {}

    def of(self, kind: Any, name: str, text: str, engine: str, *more: tuple[str, str], **how: Any) -> Any:
        """One engine's of a family. Args: more: further labels with their values."""
        if name not in self._made:
            labels = (*_LABELS, *(label for label, _ in more))
            self._made[name] = kind(name, text, labels, registry=self.registry, **how)
        return self._made[name].labels(self.model_name, engine, *(value for _, value in more))


class Metrics:
    """Invariant: when nothing runs, the gauges are 0.

    Attributes: registry: what is scraped.
    """

    def __init__(self, model_name: str, ready: Ready, num_engines: int = 1) -> None:
        """Args: ready: what the first of the engines said."""
        families = _Families(model_name)
        self.registry, self._model_name = families.registry, model_name
        self._engines = [_EngineMetrics(families, ready, str(index)) for index in range(num_engines)]
        self._rejections = Counter(
            "vllm:admission_rejections", "Requests refused.", ("model_name", "reason"), registry=self.registry
        )
        self._info = Gauge(
            "vllm:cache_config_info", "The KV cache.", tuple(_cache_info(ready, "0")), registry=self.registry
        )
        self._adapters: Gauge | None = None
        if ready.engine["enable_lora"]:
            labels = ("max_lora", "waiting_lora_adapters", "running_lora_adapters")
            self._adapters = Gauge("vllm:lora_requests_info", "Adapters in use.", labels, registry=self.registry)
            self._most_adapters, self._seen_adapters = str(ready.engine["max_loras"]), ("", "")

    def begin_anew(self) -> None:
        """Other engines in place of those that were counted so far: counters go on, as counters never go back."""
        self._info.clear()
        for each in self._engines:
            each.begin_anew()

    def stepped(self, index: int, step: Stepped, requests: Mapping[int, Tracked]) -> None:
        """Note a step of an engine, before its tokens are given to its requests. Args: requests: by ticket."""
        self._engines[index].stepped(step, requests)

    def adapters(self, running: str, waiting: str) -> None:
        """Names of the adapters of requests that run, and of others that wait, with commas. As vLLM has it: labels of
        one gauge, whose value is the time."""
        if self._adapters is not None and self._seen_adapters != (running, waiting):
            self._adapters.clear()
            self._adapters.labels(self._most_adapters, waiting, running).set_to_current_time()
            self._seen_adapters = running, waiting

    def over(self, tracked: Tracked) -> None:
        """A request has ended."""
        if tracked.error is not None:
            self.rejected("invalid")
        else:
            self._engines[tracked.replica].over(tracked)

    def rejected(self, reason: str) -> None:
        """A request was refused."""
        self._rejections.labels(self._model_name, reason).inc()

    def text(self, engines: Sequence[EngineClient]) -> bytes:
        """What Prometheus scrapes."""
        self._note_state(engines)
        return generate_latest(self.registry)

    def families(self, engines: Sequence[EngineClient]) -> Iterator[Metric]:
        """The same in parts, each sample with the name of the model."""
        self._note_state(engines)
        for family in self.registry.collect():
            named = ((each, {"model_name": self._model_name, **each.labels}) for each in family.samples)
            family.samples = [each._replace(labels=labels) for each, labels in named]
            yield family

    def _note_state(self, engines: Sequence[EngineClient]) -> None:
        for index, (noted, engine) in enumerate(zip(self._engines, engines, strict=True)):
            noted.note_state(not engine.requests, engine.health)
            if engine.ready is not None:
                self._info.labels(*_cache_info(engine.ready, str(index)).values()).set(1)


class Joined(Collector):
    """Metrics of several models as one exposition: a family of all comes once."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families: dict[str, Metric] = {}
        for family in families:
            known = self._families.setdefault(family.name, family)
            if known is not family:
                known.samples += family.samples

    def collect(self) -> Iterable[Metric]:
        """One of each name."""
        return self._families.values()

    def text(self) -> bytes:
        """What Prometheus scrapes."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)


class _EngineMetrics:
    """Those of one engine."""

    def __init__(self, families: _Families, ready: Ready, engine: str) -> None:
        self._families, self._engine = families, engine
        counts = _one_two_five(ready.max_model_len)
        self._running = self._gauge("num_requests_running", "Requests in the running batch.")
        self._waiting = self._gauge("num_requests_waiting", "Requests that wait for their turn.")
        self._for_capacity = self._of(
            Gauge, "vllm:num_requests_waiting_by_reason", "Why they wait.", ("reason", "capacity")
        )
        self._kv_usage = self._gauge("kv_cache_usage_perc", "KV blocks in use; 1 is all of them.")
        self._swapped = self._gauge("num_requests_swapped", "Preempted requests whose KV is in host memory.")
        self._host_usage = self._gauge("cpu_cache_usage_perc", "Host blocks in use; 1 is all of swap_space.")
        self._preemptions = self._counter("num_preemptions", "Sequences that gave their blocks back.")
        self._queries = self._counter("prefix_cache_queries", "Tokens looked up in the prefix cache.")
        self._hits = self._counter("prefix_cache_hits", "Tokens found in the prefix cache.")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of requests that got a token, or an embedding.")
        self._cached = self._counter("prompt_tokens_cached", "Of those, found in the prefix cache.")
        self._by_source = {
            source: self._of(Counter, "vllm:prompt_tokens_by_source", "Where they came from.", ("source", source))
            for source in _SOURCES
        }
        self._generation = self._counter("generation_tokens", "Tokens produced.")
        self._restarts = self._gauge("engine_restarts", "Engine processes started after one died.", "albireo")
        self._sleep = {
            state: self._of(Gauge, "vllm:engine_sleep_state", "Whether it has a process.", ("sleep_state", state))
            for state in ("awake", "weights_offloaded", "discard_all")
        }
        self._step_tokens = self._histogram("iteration_tokens_total", "Tokens computed in a step.", _STEP)
        self._ttft = self._histogram("time_to_first_token_seconds", "From arrival to the first token.", _TTFT)
        self._itl = self._histogram("inter_token_latency_seconds", "From a token to the next.", _ITL)
        self._tpot = self._histogram("request_time_per_output_token_seconds", "Mean of a request's gaps.", _ITL)
        self._e2e = self._histogram("e2e_request_latency_seconds", "From arrival to the last token.", _LATENCY)
        self._queue = self._histogram("request_queue_time_seconds", "From arrival until it runs.", _LATENCY)
        self._inference = self._histogram("request_inference_time_seconds", "Spent running.", _LATENCY)
        self._prefill = self._histogram("request_prefill_time_seconds", "Running, to the first token.", _LATENCY)
        self._decode = self._histogram("request_decode_time_seconds", "From the first token to the last.", _LATENCY)
        self._prompts = self._histogram("request_prompt_tokens", "Prompt tokens of a request.", counts)
        self._computed = self._histogram("request_prefill_kv_computed_tokens", "Not from the prefix cache.", counts)
        self._outputs = self._histogram("request_generation_tokens", "Tokens produced by a request.", counts)
        self._longest = self._histogram("request_max_num_generation_tokens", "Longest continuation.", counts)
        self._max_tokens = self._histogram("request_params_max_tokens", "max_tokens asked for.", counts)
        self._n = self._histogram("request_params_n", "Continuations asked for.", _N)
        self._preempted = self._histogram("request_num_preemptions", "Preemptions of a request.", _PREEMPTIONS)
        self._success = {
            reason: self._of(Counter, "vllm:request_success", "Continuations that ended.", ("finished_reason", reason))
            for reason in _REASONS
        }
        self._drafts = self._spec_decode(ready)
        self._gauges = (
            self._running, self._waiting, self._for_capacity, self._kv_usage, self._swapped, self._host_usage
        )  # fmt: skip
        self._seen = dict.fromkeys(("num_preemptions", "cache_queries", "cache_hits", *self._drafts), 0)

    def stepped(self, step: Stepped, requests: Mapping[int, Tracked]) -> None:
        """Note a step, before its tokens are given to their requests."""
        self._running.set(step.num_running)
        self._waiting.set(step.num_waiting)
        self._for_capacity.set(step.num_waiting)
        self._kv_usage.set(step.kv_usage)
        self._swapped.set(step.num_swapped)
        self._host_usage.set(step.host_kv_usage)
        self._step_tokens.observe(step.num_prompt + step.num_output)
        self._advance("num_preemptions", step.num_preemptions, self._preemptions)
        self._advance("cache_queries", step.cache_queries, self._queries)
        self._advance("cache_hits", step.cache_hits, self._hits)
        if self._drafts:
            for name in ("num_drafts", "num_draft_tokens", "num_accepted_tokens"):
                self._advance(name, getattr(step, name), self._drafts[name])
            for place, total in enumerate(step.accepted_per_pos):
                self._advance(f"position {place}", total, self._drafts[f"position {place}"])
        num_tokens = 0
        observe, now = self._itl.observe, step.ended_s
        for update in step.updates:
            tracked = requests.get(update.key)
            if tracked is None or tracked.continuations[update.index].finish_reason is not None:
                continue
            if update.embedding is not None:
                self._prompt.inc(len(tracked.submission.prompt_token_ids))
            if not update.token_ids and update.finish_reason is not None:
                continue
            # Behind a stop string nothing counts, and where it is in what one step brought is seen only later: over().
            num = 1 if tracked.submission.params.stop else len(update.token_ids)
            tracked.num_counted += num
            num_tokens += num
            times = tracked.times
            if times.last_token_s is None:
                self._first_token(tracked, now)
            elif times.last_token_s < now:
                observe(now - times.last_token_s)
        self._generation.inc(num_tokens)

    def _first_token(self, tracked: Tracked, now: float) -> None:
        if not tracked.is_counted:
            tracked.is_counted = True
            self._ttft.observe(now - tracked.times.arrival_s)
            self._prompt.inc(len(tracked.submission.prompt_token_ids))

    def over(self, tracked: Tracked) -> None:
        """A request has ended here."""
        for continuation in tracked.continuations:
            self._success[continuation.finish_reason or "abort"].inc()
        params, times = tracked.submission.params, tracked.times
        lengths = [len(continuation.token_ids) for continuation in tracked.continuations]
        self._generation.inc(sum(lengths) - tracked.num_counted)
        self._cached.inc(tracked.num_cached_tokens)
        num_prompt = len(tracked.submission.prompt_token_ids)
        if tracked.is_counted or tracked.embedding is not None:  # as vllm:prompt_tokens counts
            self._by_source["local_cache_hit"].inc(tracked.num_cached_tokens)
            self._by_source["local_compute"].inc(num_prompt - tracked.num_cached_tokens)
        self._prompts.observe(num_prompt)
        self._computed.observe(num_prompt - tracked.num_cached_tokens)
        self._outputs.observe(sum(lengths))
        self._longest.observe(max(lengths))
        self._n.observe(params.n)
        if params.max_tokens is not None:
            self._max_tokens.observe(params.max_tokens)
        self._preempted.observe(tracked.num_preemptions)
        if times.first_scheduled_s is None or times.first_token_s is None or times.last_token_s is None:
            return
        self._e2e.observe(times.last_token_s - times.arrival_s)
        self._queue.observe(times.first_scheduled_s - times.arrival_s)
        self._inference.observe(times.last_token_s - times.first_scheduled_s)
        self._prefill.observe(times.first_token_s - times.first_scheduled_s)
        self._decode.observe(times.last_token_s - times.first_token_s)
        if max(lengths) > 1:
            self._tpot.observe((times.last_token_s - times.first_token_s) / (max(lengths) - 1))

    def begin_anew(self) -> None:
        """Another engine, which counts from 0."""
        self._seen = dict.fromkeys(self._seen, 0)

    def note_state(self, is_idle: bool, health: Health) -> None:
        """How the engine is now."""
        if is_idle:
            for gauge in self._gauges:
                gauge.set(0)
        self._restarts.set(health.num_restarts)
        self._sleep["awake"].set(health.state != "asleep")
        self._sleep["discard_all"].set(health.state == "asleep")

    # -- making them ---------------------------------------------------------------------------------------------------

    def _advance(self, name: str, total: int, counter: Any) -> None:
        """Count on from what an engine process says since it started; a new one starts at 0."""
        seen = self._seen[name]
        counter.inc(total - seen if total >= seen else total)
        self._seen[name] = total

    def _of(self, kind: Any, name: str, text: str, *more: tuple[str, str], **how: Any) -> Any:
        return self._families.of(kind, name, text, self._engine, *more, **how)

    def _gauge(self, name: str, text: str, prefix: str = "vllm") -> Any:
        return self._of(Gauge, f"{prefix}:{name}", text)

    def _counter(self, name: str, text: str) -> Any:
        return self._of(Counter, f"vllm:{name}", text)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Any:
        return self._of(Histogram, f"vllm:{name}", text, buckets=buckets)

    def _spec_decode(self, ready: Ready) -> dict[str, Any]:
        """Counters of drafts, where there are some."""
        config = ready.engine["speculative_config"]
        if config is None:
            return {}
        texts = {
            "num_drafts": "Times that a request had drafts in a step.",
            "num_draft_tokens": "Drafts computed.",
            "num_accepted_tokens": "Drafts that came true.",
        }
        found = {name: self._counter(f"spec_decode_{name}", text) for name, text in texts.items()}
        name, text = "vllm:spec_decode_num_accepted_tokens_per_pos", "Drafts that came true, by their place."
        for place in range(config["num_speculative_tokens"]):
            found[f"position {place}"] = self._of(Counter, name, text, ("position", str(place)))
        return found


def _cache_info(ready: Ready, engine: str) -> dict[str, str]:
    """Labels that say what an engine's KV cache is."""
    config = ready.engine
    found = {
        "block_size": ready.block_size,
        "num_gpu_blocks": ready.num_blocks - 1,
        "cache_dtype": config["dtype"],
        "enable_prefix_caching": config["enable_prefix_caching"],
        "gpu_memory_utilization": config["memory_utilization"],
        "kv_cache_memory_bytes": config["kv_cache_memory_bytes"],
        "num_gpu_blocks_override": config["num_gpu_blocks_override"],
        "swap_space": config["swap_space"],
        "prefix_caching_hash_algo": "sha256",
        "engine": engine,
    }
    return {name: str(value) for name, value in found.items()}


def _one_two_five(largest: int) -> tuple[float, ...]:
    """1, 2, 5, 10, … up to largest."""
    found = []
    scale = 1
    while scale <= largest:
        found += [scale * digit for digit in (1, 2, 5) if scale * digit <= largest]
        scale *= 10
    return tuple(found)
