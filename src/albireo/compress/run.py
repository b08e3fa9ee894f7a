"""Quantizes a checkpoint: one layer at a time, each on inputs that the quantized layers before it produce.

Called by cli/quantize.py. In memory are one layer in float32, the texts' values between two layers, and the moments of
one group's inputs; the new checkpoint goes to disk as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from albireo.backends.reference.rounding import bfloat16_bits, round_to
from albireo.compress.choosing import Progress, choose
from albireo.compress.compressed_tensors import WEIGHT_PARTS, Stored, quantization_config, stored
from albireo.compress.evaluation import Evaluation
from albireo.compress.folding import FOLDING_METHODS, Layer, find_scales, fold
from albireo.compress.forward import Batch, Env, run_nodes
from albireo.compress.recipe import Choice, Recipe
from albireo.compress.result import Linear, Outcome, TextQuality
from albireo.compress.rounding import MOMENT_METHODS, Rounded, round_group
from albireo.compress.source import Source
from albireo.compress.stages import Group, Stage, cut
from albireo.compress.statistics import Inputs
from albireo.compress.texts import Text, batches
from albireo.compress.writer import CheckpointWriter, check_target, checkpoint_writer, config_bytes
from albireo.errors import ConfigError
from albireo.graph.node import Value
from albireo.json_file import read_json
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.checkpoint.normed_head import normed_axis
from albireo.models.settings.text_part import is_whole
from albireo.quantization.encoded import F32
from albireo.quantization.methods.progressive import METADATA_KEY
from albireo.quantization.schemes import WEIGHT_ONLY
from albireo.verify.blas_threads import one_blas_thread
from albireo.verify.quality import Quality

_NARROW = 512
_QUANTIZED = "{}: is quantized already; give the checkpoint of full precision it was made from"
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def silent(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda done: None)


def quantize(
    source: Path,
    target: Path,
    recipe: Recipe,
    calibration: Text,
    texts: Sequence[Text],
    *,
    finish: Callable[[CheckpointWriter, Outcome], Outcome] = lambda writer, outcome: outcome,
    progress: Progress = silent,
) -> Outcome:
    """Write the checkpoint of source in fewer bits to target.

    Args:
        calibration: what methods look at. texts: what quality is measured on.
        finish: called with the whole checkpoint before its directory gets its name; may look at it, write more files,
            such as a report, and say more of it.
    Raises: ConfigError, ModelError, ResourceError; target is as it was then.
    """
    check_target(target)
    original = read_json(source / "config.json")
    if original.get("quantization_config") is not None:
        raise ConfigError(_QUANTIZED.format(source))
    if is_whole(original):
        raise ConfigError(
            f"{source}: reads images or hears sounds, too; only models of text alone are quantized into checkpoints"
        )
    config = load_config(source)
    if config.experts is not None:
        raise ConfigError(
            f"{source}: {config.model_type} has experts, whose inputs are not calibrated yet; round its weights "
            "where it is loaded or built: --quantization int8, fp8 or int4"
        )
    if config.blocks.is_layer_norm:
        raise ConfigError(
            f"{source}: {config.model_type} has LayerNorms, and blocks that are not calibrated yet; round its weights "
            "where it is loaded or built: --quantization int8, fp8 or int4"
        )
    if config.blocks.times > 1:
        raise ConfigError(
            f"{source}: {config.model_type} goes through its layers {config.blocks.times} times, and what they are "
            "given each time is not calibrated together yet; round its weights where it is loaded or built: "
            "--quantization int8, fp8 or int4"
        )
    if recipe.head != "bf16" and normed_axis(original) is not None:
        raise ConfigError(
            f"{source}: head={recipe.head!r}: a {config.model_type} like this divides its head by lengths as it is "
            "read, which is done to numbers alone; leave it out, for bf16"
        )
    if config.recurrent is not None:
        raise ConfigError(
            f"{source}: {config.model_type} has layers that keep a state, which are not calibrated yet; round its "
            "weights where it is loaded or built: --quantization int8, fp8 or int4"
        )
    graph = build_graph(config, config.max_position_embeddings)
    stages = cut(graph)
    # products of a narrow model are too small to share between threads
    threads = one_blas_thread() if config.hidden_size < _NARROW else nullcontext()
    with threads, open_checkpoint(source, graph) as checkpoint:
        if checkpoint.encodings:
            raise ConfigError(_QUANTIZED.format(source))
        reader = Source(checkpoint, graph)
        choice = choose(recipe, stages, reader, calibration, progress)
        is_untied = any(g.is_table and name in choice for g in _groups(stages) for name in g.weights)
        with checkpoint_writer(target, _names(checkpoint.names, choice)) as writer:
            run = _Run(recipe, reader, choice, writer, calibration, Evaluation(texts))
            qualities = run.layers(stages, progress)
            run.write_rest(graph.constants.values(), load_architecture(config.model_type).fixed)
            modules = {linear.module: choice[name] for name, linear in run.linears.items() if name in choice}
            ignored = [linear.module for name, linear in run.linears.items() if name not in choice]
            quantization = quantization_config(modules, ignored, recipe.scheme in WEIGHT_ONLY)
            writer.write("config.json", config_bytes(original, quantization, is_untied))
            progressive = [module for module, coding in modules.items() if coding.kind == "progressive"]
            if progressive:
                writer.metadata[METADATA_KEY] = ",".join(progressive)
            writer.copy_from(source)
            outcome = Outcome(
                model={
                    "architecture": f"{config.model_type}, {config.num_layers} layers, width {config.hidden_size}",
                    "computed in": config.dtype,
                },
                recipe=_said(recipe, calibration),
                linears=tuple(run.linears.values()),
                bytes_before=sum(checkpoint.tensor(name).num_bytes for name in checkpoint.names),
                bytes_after=writer.num_bytes,
                drift=tuple(run.evaluation.drift),
                qualities=tuple(TextQuality(t.name, t.num_tokens, q) for t, q in zip(texts, qualities, strict=True)),
                is_untied=is_untied,
            )
            writer.finish()
            return finish(writer, outcome)


def _names(tensors: Sequence[str], choice: Choice) -> list[str]:
    """All that may be written; a head that was the table is another tensor beside it."""
    rounded = [name if name in tensors else "lm_head.weight" for name in (*choice, "lm_head.weight")]
    return [*tensors, *(f"{name}{end}" for name in rounded for end in WEIGHT_PARTS)]


def _groups(stages: Sequence[Stage]) -> list[Group]:
    return [stage.group for stage in stages]


def _said(recipe: Recipe, calibration: Text) -> dict[str, str]:
    asked = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    said = {name: ", ".join(v) if isinstance(v, tuple) else str(v) for name, v in asked.items() if v not in (None, ())}
    return {**said, "calibration": f"{calibration.name}, {calibration.num_tokens:,} tokens"}


@dataclass(slots=True)
class _Run:
    """One quantization on its way through the layers."""

    recipe: Recipe
    source: Source
    choice: Choice
    writer: CheckpointWriter
    calibration: Text
    evaluation: Evaluation
    linears: dict[str, Linear]
    _written: set[str]
    _batches: list[Batch]
    _envs: list[Env]

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        choice: Choice,
        writer: CheckpointWriter,
        calibration: Text,
        evaluation: Evaluation,
    ) -> None:
        self.recipe, self.source, self.choice, self.writer = recipe, source, choice, writer
        self.calibration, self.evaluation = calibration, evaluation
        self.linears, self._written = {}, set()
        self._batches = batches(calibration)
        self._envs = [{} for _ in self._batches]

    @property
    def rounded(self) -> frozenset[str]:
        """Weights whose inputs kernels round."""
        return frozenset(name for name, coding in self.choice.items() if coding.activation == "int8.token")

    def layers(self, stages: Sequence[Stage], progress: Progress) -> list[Quality]:
        """Every layer, and the quality of the whole."""
        qualities: list[Quality] = []
        with progress("quantizing", len(stages)) as advance:
            for _, group in groupby(stages, key=lambda stage: stage.layer):
                parts = list(group)
                is_head = parts[-1] is stages[-1]
                values = tuple(dict.fromkeys(v for stage in parts for v in stage.constants))
                layer = Layer(self.source.constants(values, whole=is_head), set(), {})
                before = dict(layer.constants) if is_head else {}
                if not is_head:
                    self.evaluation.pass_clean(parts, layer.constants)
                self._layer(parts, layer, advance)
                if is_head:
                    with progress("quality", 0) as count:
                        qualities = self.evaluation.measure_head(
                            parts[-1], before, layer.constants, self.rounded, layer.scales, count
                        )
                else:
                    self.evaluation.pass_quantized(parts, layer.constants, self.rounded, layer.scales)
                self.source.release(values)
        return qualities

    def write_rest(self, constants: Iterable[Value], fixed: Iterable[str]) -> None:
        """Tensors of the graph that no layer changed, byte by byte. A constant may be made of several. Rows of a table
        that no text has come by are seen here first.

        Args: fixed: patterns of tensors that the graph has as numbers of its own; other programs read them.
        """
        made_of = (value.constant.sources for value in constants if value.constant is not None)
        names = dict.fromkeys(name for sources in made_of for name in sources)
        stored = self.source.checkpoint.names
        for name in (*names, *(n for pattern in fixed for n in stored if fnmatchcase(n, pattern))):
            if name not in self._written:
                if name in names:
                    self.source.check(name)
                tensor = self.source.checkpoint.tensor(name)
                self.writer.add(name, Stored(_TYPES[tensor.dtype], tensor.shape, tensor.buffer))

    def _layer(self, stages: Sequence[Stage], layer: Layer, advance: Callable[[int], None]) -> None:
        alphas = self._fold(stages, layer) if self.recipe.method in FOLDING_METHODS else {}
        for stage in stages:
            inputs = self._run_before(stage, layer, self._envs, self.recipe.method in MOMENT_METHODS)
            weights = {name: layer[name] for name in stage.group.weights}
            done = round_group(weights, self.choice, inputs, self.recipe.method, self._dtype(stage))
            for name, module in self._modules(stage.group).items():
                self._record(name, module, stage, layer, done.get(name), alphas.get(stage.group.name))
            self._run_linears(stage, layer, self._envs, self.rounded)
            advance(1)
        self._write_changed(layer)

    def _fold(self, stages: Sequence[Stage], layer: Layer) -> dict[str, float | None]:
        """Find the scales of every group on what the layer computes now, then fold them all."""
        envs, found = [dict(env) for env in self._envs], {}
        for stage in stages:
            inputs = self._run_before(stage, layer, envs, False)
            scaled = find_scales(stage.group, inputs, layer, self.choice, self.recipe.method, self.source)
            if scaled is not None and scaled.alpha is not None:
                found[stage.group.name] = (stage.group, scaled)
            self._run_linears(stage, layer, envs, NOTHING)
        for group, scaled in found.values():
            fold(group, scaled.scales, layer, self.source)
        return {name: scaled.alpha for name, (_, scaled) in found.items()}

    def _run_before(self, stage: Stage, layer: Layer, envs: list[Env], with_moments: bool) -> Inputs:
        """Bring all batches to the input of the stage's linears."""
        width = int(stage.group.input.type.dims[-1])
        inputs = Inputs(stage.group.name, width, sum(len(b.token_ids) for b in self._batches), with_moments)
        for index, batch in enumerate(self._batches):
            envs[index] = run_nodes(stage.before, envs[index], batch, layer.constants, stage.keep_before)
            inputs.add(envs[index][stage.group.input])
        return inputs

    def _run_linears(self, stage: Stage, layer: Layer, envs: list[Env], rounded: frozenset[str]) -> None:
        if stage.group.is_head:
            return
        for index, batch in enumerate(self._batches):
            envs[index] = run_nodes(stage.nodes, envs[index], batch, layer.constants, stage.keep, rounded)

    def _modules(self, group: Group) -> dict[str, str]:
        """Weight tensor -> module; a head that is the embedding table becomes a module of its own when rounded."""
        names = dict(zip(group.weights, group.modules, strict=True))
        return {name: "lm_head" if group.is_table else module for name, module in names.items()}

    def _dtype(self, stage: Stage) -> str:
        return self.source.checkpoint.tensor(stage.group.weights[0]).dtype

    def _record(
        self, name: str, module: str, stage: Stage, layer: Layer, done: Rounded | None, alpha: float | None
    ) -> None:
        """Write a rounded weight, go on with what it stands for, and note what became of it."""
        n, k = self.source.checkpoint.shape(name)
        before = self.writer.num_bytes
        if done is not None:
            self.choice[name] = done.matrix.encoding
            for tensor, data in stored(module, done.matrix, self._dtype(stage)).items():
                self.writer.add(tensor, data)
            layer[name] = done.matrix.decode()
            layer.changed.discard(name)
            if not stage.group.is_table:
                self._written.add(name)
        num_bytes = self.writer.num_bytes - before if done else self.source.checkpoint.tensor(name).num_bytes
        coding, error, note = (
            (str(done.matrix.encoding), done.error, done.note) if done else (self._dtype(stage), 0.0, "")
        )
        self.linears[name] = Linear(module, stage.layer, (n, k), coding, num_bytes, error, alpha, note)

    def _write_changed(self, layer: Layer) -> None:
        """Norms, biases and kept matrices that scales were folded into."""
        for name in sorted(layer.changed - self._written):
            dtype = self.source.checkpoint.tensor(name).dtype
            self.writer.add(name, as_stored(layer[name], dtype))
            self._written.add(name)


NOTHING: frozenset[str] = frozenset()


def as_stored(array: F32, dtype: str) -> Stored:
    """An array rounded to a checkpoint's type."""
    rounded = round_to(array, dtype)
    data = bfloat16_bits(rounded) if dtype == "bfloat16" else rounded.astype("<f2" if dtype == "float16" else "<f4")
    return Stored(_TYPES[dtype], array.shape, data.tobytes())
