"""Verifies an engine directory against its checkpoint: from the graph to the quality of text, until something is wrong.

Called by cli/verify.py and by whoever wants the result as data. Each stage stands on those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, cast

import albireo
from albireo.api.llm import LLM
from albireo.api.load import Loaded, load
from albireo.artifact.reader import tokenizer_directory
from albireo.backends.cpu.machine import isa_levels
from albireo.config import EngineConfig
from albireo.encodings import is_encoding
from albireo.errors import ConfigError
from albireo.models import open_checkpoint
from albireo.verify import tokens
from albireo.verify.graphs import graph_difference
from albireo.verify.limits import coarsest, of_cache, quality_stage
from albireo.verify.native_logits import NativeLogits
from albireo.verify.numerics import layers_stage, ops_stage, run_numerics
from albireo.verify.quality import measure, windows
from albireo.verify.result import Stage, Verification
from albireo.verify.steps import walk_steps
from albireo.verify.subject import Subject, open_subject
from albireo.verify.text import TokenText, token_text
from albireo.verify.walk import CallModel
from albireo.verify.weights import find_damage

STAGES = ("graph", "weights", "ops", "layers", "tokens", "quality")
#: Tokens of a text that are looked at, unless asked otherwise.
NUM_TOKENS = 1024
#: Each prediction of the quality stage sees at most this much of the text.
WINDOW = 512
#: Rows of one step, with logits for each; more than any kernel treats alike.
_ROWS = 256
_BLOCKS = 1 + WINDOW // 8
_GRAPH_PROVES = "graph.json asks for what the checkpoint's config.json means: every node, number and constant is equal."
_WEIGHTS_PROVE = (
    "Files of weights hold the checkpoint's numbers: every constant is packed anew and equal to the byte. Hashes would "
    "show damage; this shows what the damage is, and finds it when hashes were mended too."
)

_RANKS_PROVE = "Each native call, run alone, and the layers together: of ranks that run together this is not looked at."
_RANKS_SUMMARY = "not looked at on several ranks; verify a build with --tp-invariant, whose bits several ranks have too"

_STATES_PROVE = (
    "Each native call, run alone, and the layers together: of layers that keep a state of each sequence no bound is "
    "known yet for what a state may be off by behind many tokens."
)
_STATES_SUMMARY = "not looked at where layers keep a state of each sequence; tokens and quality below are"

#: Shows progress: given what is done and how much there is; entered, it gives what to call with the part just done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def _silent(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda done: None)


def verify(
    directory: str | Path,
    against: str,
    *,
    text: str | Path | None = None,
    num_tokens: int = NUM_TOKENS,
    progress: Progress = _silent,
) -> Verification:
    """Look at everything, in order, until something is out of tolerance.

    Args:
        directory: an engine directory. against: the checkpoint it was built from.
        text: a file to measure quality on; None: the sample that comes with albireo.
        num_tokens: of the text, from its beginning.
    Raises: ConfigError, ModelError, OutOfMemory when it could not be looked at, or when another build took the
        directory's place meanwhile; nothing is written in any case.
    Cost: a 0.5 B model takes under a minute on two cores; memory is that of the model beside its float32 form.
    """
    subject = _open(Path(directory).expanduser(), against, progress)
    if subject.config.blocks.sound_positions:
        raise ConfigError(
            f"{subject.directory}: models that hear are not verified yet, as their prompts begin with sounds; albireo "
            "inspect compares two builds"
        )
    path = None if text is None else Path(text).expanduser()
    sample = token_text(tokenizer_directory(subject.directory), subject.config.vocab_size, path, num_tokens)
    stages: list[Stage] = []
    for stage in _stages(subject, sample, progress):
        stages.append(stage)
        if stage.verdict == "failed":
            break
    subject.files.check_unchanged()
    return Verification(_facts(subject), tuple(stages), STAGES[len(stages) :], _quantized(subject))


def _open(directory: Path, against: str, progress: Progress) -> Subject:
    with progress("hashing the checkpoint", 0) as advance:
        return open_subject(directory, against, lambda _: advance(1))


def _stages(subject: Subject, sample: TokenText, progress: Progress) -> Iterator[Stage]:
    """One after the other; what a stage needs is made when it is asked for."""
    yield _graph_stage(subject)
    engine = _load(subject, subject.directory, "auto", progress)
    yield _weights_stage(subject, engine, progress)
    if subject.num_ranks > 1:
        yield from (Stage(name, _RANKS_PROVE, "not judged", _RANKS_SUMMARY) for name in ("ops", "layers"))
    elif engine.program.states:
        yield from (Stage(name, _STATES_PROVE, "not judged", _STATES_SUMMARY) for name in ("ops", "layers"))
    else:
        yield from _numerics_stages(subject, engine, sample, progress)
    model_len = engine.memory.max_model_len
    prompts = tokens.prompts(sample.token_ids, model_len)
    seen = tokens.continuations(LLM.from_loaded(engine), prompts, model_len)
    kv_dtype = engine.program.kv.dtype
    memory = _load(subject, subject.checkpoint, subject.dtype, progress, kv_dtype, is_alike=True)
    wanted = tokens.continuations(LLM.from_loaded(memory), prompts, model_len)
    same = [call.kernel for call in memory.program.calls] == [call.kernel for call in engine.program.calls]
    yield tokens.tokens_stage(seen, wanted, [len(prompt) for prompt in prompts], same)
    if (subject.dtype, kv_dtype) != ("float32", "float32") or subject.precision.scheme or subject.precision.head:
        del memory
        memory = _load(subject, subject.checkpoint, "float32", progress)
    length = min(WINDOW, model_len)
    cut = windows(sample.token_ids, length)
    with progress("quality", sum(len(window) - 1 for window in cut)) as advance:
        quality = measure(
            NativeLogits(engine.model, engine.program), NativeLogits(memory.model, memory.program), cut, advance
        )
    kinds = [coarsest(subject.graph, subject.dtype), of_cache(kv_dtype)]
    yield quality_stage(quality, sample, length, kinds)


def _graph_stage(subject: Subject) -> Stage:
    finding = graph_difference(subject.files.graph, subject.graph)
    nodes = len(subject.graph.nodes)
    summary = f"{nodes} nodes and {len(subject.graph.constants)} constants are equal" if not finding else "they differ"
    return Stage("graph", _GRAPH_PROVES, "failed" if finding else "passed", summary, finding, {"num_nodes": nodes})


def _weights_stage(subject: Subject, engine: Loaded, progress: Progress) -> Stage:
    programs = (engine.program, *engine.other_ranks)
    num_bytes = sum(program.weight_bytes for program in programs)
    with progress("weights", num_bytes) as advance, open_checkpoint(subject.checkpoint, subject.graph) as checkpoint:
        sides = zip(programs, subject.files.ranks, strict=True)
        damage = next(
            (found for side in sides if (found := find_damage(*side, checkpoint, advance, subject.device))), None
        )
    count = sum(len(program.constants) for program in programs)
    figures = {"num_constants": count, "num_bytes": num_bytes}
    if damage is None:
        summary = f"{count} constants of {num_bytes:,} bytes are equal to the byte"
        return Stage("weights", _WEIGHTS_PROVE, "passed", summary, "", figures)
    return Stage("weights", _WEIGHTS_PROVE, "failed", f"{damage.constant} differs", str(damage), figures)


def _numerics_stages(subject: Subject, engine: Loaded, sample: TokenText, progress: Progress) -> Iterator[Stage]:
    steps = walk_steps(sample.token_ids, engine.memory.max_model_len, engine.program.kv.block_size)
    total = len(steps) * len(engine.program.calls)
    with progress("op by op", total) as advance, open_checkpoint(subject.checkpoint, subject.graph) as checkpoint:
        model = engine.one_rank if engine.device == "cpu" else cast(CallModel, engine.model)
        found = run_numerics(model, subject.graph, checkpoint, steps, advance, subject.passes)
    yield ops_stage(found, steps)
    yield layers_stage(found.layers)


def _load(
    subject: Subject,
    directory: Path,
    dtype: str,
    progress: Progress,
    kv_dtype: str = "auto",
    *,
    is_alike: bool = False,
) -> Loaded:
    """is_alike: the checkpoint is loaded as it was built."""
    like = subject if is_alike else None
    precision = like.precision if like else None
    config = EngineConfig(
        device=subject.device,
        model=str(directory),
        dtype=dtype,
        quantization=precision.scheme if precision else None,
        quantization_head=precision.head if precision else None,
        kv_cache_dtype=kv_dtype,
        tensor_parallel_size=like.num_ranks if like else None,
        tp_invariant=like is not None and like.files.manifest.options.tp_invariant,
        max_num_seqs=_ROWS,
        max_num_batched_tokens=_ROWS,
        num_gpu_blocks_override=_BLOCKS,
        skip_tokenizer_init=True,
    )
    with progress(f"loading {dtype if dtype != 'auto' else 'the engine directory'}", 0):
        return load(config)


def _facts(subject: Subject) -> dict[str, str]:
    manifest, config = subject.files.manifest, subject.config
    return {
        "architecture": f"{manifest.model_type}, {config.num_layers} layers, width {config.hidden_size}",
        "computed in": subject.dtype,
        "context": f"{subject.model_len:,} tokens",
        "built by": f"albireo {manifest.version}",
        "verified by": f"albireo {albireo.__version__}, {_kernels(subject)}",
        "checkpoint": _hashes(subject),
    }


def _kernels(subject: Subject) -> str:
    return f"kernels up to {isa_levels()[0]}" if subject.device == "cpu" else "kernels for NVIDIA GPUs"


def _quantized(subject: Subject) -> Literal["", "here", "before"]:
    if not any(is_encoding(value.type.dtype) for value in subject.graph.constants.values()):
        return ""
    return "before" if subject.precision.stored else "here"


def _hashes(subject: Subject) -> str:
    source = subject.files.manifest.source
    entries = [f"{name} sha256 {source[name].sha256[:16]}…" for name in sorted(source)]
    return ", ".join(entries[:3]) + (f" and {len(entries) - 3} more" if len(entries) > 3 else "")
