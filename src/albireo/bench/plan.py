"""What a model will take and give on this machine, before any weight is read: memory by part, what fits, and speed.

Called by cli/plan. Needs config.json alone. Memory is counted; speed is predicted by the cost model from limits
measured now, on a processor only: it knows no GPU. Of a GPU that is named bounds are told (gpu_bounds.py). Does not run
the model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from albireo.api.compiled import compile_all
from albireo.api.machine.cuda_device import check_cache
from albireo.api.machine.devices import planning_device
from albireo.api.machine.share import Share, threads_of
from albireo.api.machine.tuning import tuned
from albireo.api.media.hearing import open_hearing
from albireo.api.media.perception import Vision, open_perception
from albireo.api.programs import MAX_PROMPT_ROWS
from albireo.api.sources.config_only import open_to_plan
from albireo.api.sources.locate import locate_model
from albireo.api.sources.source import ModelSource
from albireo.backends.cpu.machine import num_threads_of
from albireo.backends.cuda.known_gpus import KnownGpu
from albireo.bench.cost_model import MODEL_ERROR, CostModel
from albireo.bench.draft_figures import check_tokens, draft_memory, draft_speeds
from albireo.bench.fit import MemoryParts, memory_parts
from albireo.bench.gpu_bounds import GpuBounds
from albireo.bench.image_cost import first_token, image_figures
from albireo.bench.limits import LimitProbe
from albireo.bench.predict import predict, schedule
from albireo.bench.report import Spread
from albireo.bench.roofline import Limits, Roofline, StepShape
from albireo.bench.sound_cost import sound_figures
from albireo.bench.tower_speed import layer_program, layer_seconds
from albireo.bench.video_cost import video_figures
from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError, OutOfMemory
from albireo.graph.op_numbers import MAX_RANKS
from albireo.models.settings.context import check_context
from albireo.params import SamplingParams

#: Requests at once when nobody says how many, as far as they fit.
DEFAULT_CONCURRENCY = 16
#: Keys of what is predicted.
SPEED_FIGURES = ("one_request", "all_requests", "decode_step_parts_s", "limits", "model_error")
#: Bursts of the probes; their spread is in the error bars.
_NUM_BURSTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWorkload:
    """What the model is to do. concurrency: requests at once; None: 16, or as many as fit."""

    concurrency: int | None = None
    input_len: int = 128
    output_len: int = 128
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "input_len", "output_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} is not allowed; it must be at least 1")

    @property
    def length(self) -> int:
        """Tokens of one request at its end."""
        return self.input_len + self.output_len

    @property
    def middle(self) -> int:
        """Tokens of one request half way through its output."""
        return self.input_len + (self.output_len + 1) // 2

    @property
    def has_logits(self) -> bool:
        """It is drawn from full logits."""
        return SamplingParams(temperature=self.temperature).needs_logits


def plan_model(
    config: EngineConfig, workload: PlanWorkload, memory_bytes: int | None = None, gpu: KnownGpu | None = None
) -> dict[str, Any]:
    """Count memory; of a processor measure the limits and predict speed.

    Args:
        memory_bytes: what the engine may use in all; None: memory_utilization of the machine's, or of the GPU's.
        gpu: plan for one, or as many as there are ranks, in place of what is here.
    Returns: the figures, sizes in bytes and times in seconds; those of speed are None on a GPU, and of a model that
        hears. Of a model that writes no text (writes_text) they are of prompts alone. On several GPUs sizes are of one,
        the fullest.
    Raises: ConfigError; ModelError; OutOfMemory with the numbers when the workload does not fit.
    Cost: about a second: compiling, the probes, and scheduling the workload without computing it; with pictures one or
        two more, for a layer of what reads them.
    """
    directory = locate_model(config.model)
    source = open_to_plan(directory, config)
    writes_text = source.model_config.pooling is None
    if not writes_text:  # a token is drawn of each, which costs nothing beside its prompt
        workload = replace(workload, output_len=1, temperature=0.0)
    config = source.adopt(config)
    if gpu is not None and config.device == "cpu":
        raise ConfigError(f"device=cpu and gpu={gpu.name} exclude each other; leave one of them out")
    device = planning_device(config, gpu)
    config = replace(config, device=device.name)
    num_ranks = len(source.parts)
    if num_ranks > 1 and device.name == "cpu":
        raise ConfigError(
            f"plan predicts a processor's speed for a model on one rank, tensor_parallel_size={num_ranks} is asked "
            "for; leave it out, or name a GPU. albireo inspect shows the memory of all ranks, bench measures them"
        )
    if config.data_parallel_size > 1 and device.name == "cpu":
        share = Share(0, config.data_parallel_size)
        config = replace(config, num_threads=threads_of(config.num_threads, num_threads_of(None), share))
    vocab_size = source.model_config.vocab_size
    model_len = _model_len(config, source, workload)
    step = config.step_limits
    if workload.concurrency is not None and step.max_num_seqs < workload.concurrency:
        raise ConfigError(
            f"concurrency={workload.concurrency} exceeds max_num_seqs={step.max_num_seqs}, the most sequences of "
            "one step; raise max_num_seqs"
        )
    # Not load.plan(): that refuses what this machine cannot hold, and another one may be meant.
    compiled = compile_all(config, source, model_len, device, may_lack_weights=True)
    program, drafter = max(compiled.programs, key=device.weight_bytes), compiled.drafter
    if gpu is not None:
        check_cache(program.kv.dtype, gpu.capability, gpu.name)
    if drafter is not None:
        check_tokens(drafter, config, source)
    vision = open_perception(config, source, device)
    vision_bytes = 0
    if not isinstance(vision, str):
        needs = vision.needs(program, source.model_config)
        vision_bytes = vision.weight_bytes(device) + vision.working_bytes(device, needs)
    hearing = open_hearing(config, source, device, program)
    if hearing is not None:
        vision_bytes = hearing.weight_bytes(device) + hearing.working_bytes(device)
    memory = memory_parts(
        config,
        device,
        program,
        model_len,
        memory_bytes,
        source.shares_weights,
        max(compiled.adapter_bytes),
        vision_bytes,
        drafter,
    )
    concurrency = workload.concurrency or max(
        1, min(DEFAULT_CONCURRENCY, step.max_num_seqs, memory.requests_at_once(workload.length))
    )
    try:
        if config.max_model_len is not None:
            memory.check(1, config.max_model_len)
        memory.check(concurrency, workload.length)
    except OutOfMemory as error:
        if device.name == "cpu" or 2 * num_ranks > MAX_RANKS:
            raise
        raise OutOfMemory(f"{error}; or share it among more GPUs: tensor_parallel_size={2 * num_ranks}") from None
    settings = EngineSettings.from_config(
        config,
        num_blocks=memory.blocks_for(concurrency, workload.length),
        max_model_len=model_len,
        vocab_size=vocab_size,
        eos_token_ids=frozenset(),
        max_prompt_rows=MAX_PROMPT_ROWS,
        num_state_slots=step.max_num_seqs if program.states else 0,
        windows=program.kv.windows,
    )
    dtype = source.model_config.dtype
    speed: dict[str, Any] = dict.fromkeys(SPEED_FIGURES)
    bounds = None
    if gpu is not None and hearing is None:
        bounds = _bounds(GpuBounds(gpu, compiled.programs, dtype), settings, workload, concurrency)
    images = image_figures(vision) | {"first_token_s": None}
    drafts = draft_memory(config, drafter, device)
    if device.name == "cpu" and hearing is None:
        probe = LimitProbe(config.num_threads, dtype, Roofline(program).decode_bytes)
        limits = [probe.measure() for _ in range(_NUM_BURSTS)]
        costs = CostModel(program, vocab_size)
        speed = _predicted(costs, probe, limits, settings, workload, concurrency)
        if drafts is not None:
            request = (workload.input_len, workload.middle, workload.has_logits)
            drafts |= draft_speeds(costs, drafter, settings, request, sorted({1, concurrency}), limits)
        if isinstance(vision, Vision) and writes_text:
            length = images["prompt_tokens"] + 1
            settings = replace(settings, num_blocks=max(settings.num_blocks, memory.blocks_for(1, length)))
            tower, _ = tuned(vision.programs[0], directory, config.num_threads)
            layer = layer_program(tower)
            layer_s = layer_seconds(layer, images["largest_tile_patches"], config.num_threads)
            predicted = first_token(vision, costs, settings, limits, layer, layer_s)
            images["first_token_s"] = None if predicted is None else asdict(predicted)
    return {
        "model": str(directory),
        "dtype": dtype,
        "writes_text": writes_text,
        "workload": {**asdict(workload), "concurrency": concurrency},
        "memory": _memory_figures(memory, concurrency, workload.length),
        "images": images,
        "sounds": sound_figures(vision),
        "videos": video_figures(vision),
        "hearing": None if hearing is None else hearing.facts,
        "speculative": drafts,
        **speed,
        "at_most": bounds,
        "settings": asdict(config) | asdict(step) | {"max_model_len": model_len, "tensor_parallel_size": num_ranks},
    }


def _model_len(config: EngineConfig, source: ModelSource, workload: PlanWorkload) -> int:
    model_len = config.max_model_len or source.default_model_len
    check_context(source.model_config, model_len)
    if workload.length > model_len:
        raise ConfigError(
            f"input_len={workload.input_len} and output_len={workload.output_len} make {workload.length} tokens, the "
            f"context is {model_len}; lower them"
        )
    return model_len


def _memory_figures(memory: MemoryParts, concurrency: int, length: int) -> dict[str, Any]:
    """The parts, which add up to needed_bytes; that and free_bytes are the budget."""
    kv_bytes = memory.blocks_for(concurrency, length) * memory.block_bytes
    needed = memory.fixed_bytes + kv_bytes
    return {
        "budget_bytes": memory.budget_bytes,
        "weight_bytes": memory.weight_bytes,
        "adapter_bytes": memory.adapter_bytes,
        "state_bytes": memory.state_bytes,
        "vision_bytes": memory.vision_bytes,
        "drafter_bytes": memory.drafter_bytes,
        "kv_bytes": kv_bytes,
        "activation_bytes": memory.activation_bytes,
        "overhead_bytes": memory.overhead_bytes,
        "needed_bytes": needed,
        "free_bytes": memory.budget_bytes - needed,
        "kv_bytes_per_token": memory.bytes_per_token(memory.windows),
        "kv_bytes_per_token_beyond_windows": memory.bytes_per_token(tuple(w for w in memory.windows if w is None)),
        "longest_context": memory.longest_context,
        "requests_at_once": memory.requests_at_once(length),
    }


def _predicted(
    costs: CostModel,
    probe: LimitProbe,
    limits: list[Limits],
    settings: EngineSettings,
    workload: PlanWorkload,
    concurrency: int,
) -> dict[str, Any]:
    """SPEED_FIGURES, from limits measured now."""
    one = _speed(costs, settings, workload, 1, limits)
    return {
        "one_request": one,
        "all_requests": one if concurrency == 1 else _speed(costs, settings, workload, concurrency, limits),
        "decode_step_parts_s": _parts(costs, workload, concurrency, limits),
        "limits": {
            "read_bytes_per_s": asdict(Spread.of([each.read_bytes_per_s for each in limits])),
            "dot_flops_per_s": asdict(Spread.of([each.dot_flops_per_s for each in limits])),
            "read_bytes": probe.read_bytes,
            "num_threads": probe.num_threads,
        },
        "model_error": MODEL_ERROR,
    }


def _speed(
    costs: CostModel, settings: EngineSettings, workload: PlanWorkload, num_requests: int, limits: list[Limits]
) -> dict[str, Any]:
    params = SamplingParams(temperature=workload.temperature)
    lengths = [(workload.input_len, workload.output_len)] * num_requests
    found = predict(costs, schedule(settings, lengths, params), limits)
    return {
        "num_requests": num_requests,
        "first_token_s": asdict(found.first_token_s),
        "prompt_tokens_per_s": asdict(found.prompt_s.rate(num_requests * workload.input_len)),
        "decode_step_s": None if found.decode_step_s is None else asdict(found.decode_step_s),
        "decode_tokens_per_s": None if found.decode_step_s is None else asdict(found.decode_step_s.rate(num_requests)),
        "elapsed_s": asdict(found.elapsed_s),
        "output_tokens_per_s": asdict(found.elapsed_s.rate(num_requests * workload.output_len)),
        "total_tokens_per_s": asdict(found.elapsed_s.rate(num_requests * workload.length)),
    }


def _bounds(bounds: GpuBounds, settings: EngineSettings, workload: PlanWorkload, concurrency: int) -> dict[str, Any]:
    """What no kernels could beat, of one request and of all."""
    params = SamplingParams(temperature=workload.temperature)
    lengths = (workload.input_len, workload.output_len)
    one, every = (bounds.of(schedule(settings, [lengths] * num, params), num, *lengths) for num in (1, concurrency))
    return {"limits": bounds.limits, "one_request": one, "all_requests": every}


def _parts(costs: CostModel, workload: PlanWorkload, concurrency: int, limits: list[Limits]) -> dict[str, float]:
    """Where the time of a step goes in which all requests decode, half way through."""
    rows = (concurrency, 0) if workload.has_logits else (0, concurrency)
    shape = StepShape(concurrency, *rows, ((1, workload.middle),) * concurrency)
    best = limits[len(limits) // 2]
    return costs.parts(shape, best)
