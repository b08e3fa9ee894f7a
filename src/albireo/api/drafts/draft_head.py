"""A head that drafts: planned beside the model whose hidden states it reads, and then loaded.

Called by load.py. Does not guess (engine/model_guesses.py), nor keep hidden states (execution/draft_head.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from albireo.api.drafts.beside import Guesser, Keeping
from albireo.api.drafts.drafter import LoadedDrafter
from albireo.api.machine.device import Device, PlanRunner
from albireo.api.machine.tuning import tuned
from albireo.api.programs import compile_program
from albireo.api.sources.checkpoint_source import stored_encodings
from albireo.api.sources.locate import locate_model
from albireo.api.sources.source import ModelSource
from albireo.artifact.reader import is_engine_directory
from albireo.backends.cpu.model import CpuModel
from albireo.backends.weights import Tensor, Weights
from albireo.compiler.passes import choose_precision, taps
from albireo.compiler.pipeline import compile_graph
from albireo.config import EngineConfig
from albireo.encodings import is_encoding
from albireo.errors import ConfigError, ModelError
from albireo.execution.ahead import AheadRunner
from albireo.execution.draft_head import DeviceHead, HeadModel, HiddenStates
from albireo.execution.draft_ids import DraftIds
from albireo.execution.runner import Runner
from albireo.graph.node import Graph, RowSegment
from albireo.graph.program import PANEL, Program
from albireo.json_file import read_json
from albireo.models.checkpoint.weights import Checkpoint, weight_files
from albireo.models.config import ModelConfig
from albireo.models.draft_heads.head import ENDS, DraftHead
from albireo.models.gguf.files import is_gguf
from albireo.models.settings.context import longest_context
from albireo.models.settings.draft_input import ASSISTANT, FEW_LOGITS
from albireo.quantization.blocks import Blocks
from albireo.quantization.encoded import Encoded
from albireo.quantization.schemes import Precision
from albireo.speculative.proposer import Method
from albireo.speculative_config import HEADS, SpeculativeConfig
from albireo.text.tokenizer import Tokenizer

#: Tokens that a head guesses among, where the model has more than twice as many and nothing else is asked for.
FEW_IDS = 32768


@dataclass(frozen=True, slots=True)
class HeadDrafter:
    """Implements drafter.Drafter: a head that is not loaded yet.

    Fields:
        program: of its layers; combining: of what makes one row of several hidden states, where it reads several.
        borrowed: constants that are the model's own.
        group: of block tables, whose layers see all positions.
    """

    config: EngineConfig
    source: ModelSource
    head: DraftHead
    program: Program
    combining: Program | None
    borrowed: tuple[str, ...]
    max_positions: int
    group: int

    @property
    def programs(self) -> tuple[Program, ...]:
        return (self.program,) if self.combining is None else (self.program, self.combining)

    @property
    def taps(self) -> tuple[int, ...]:
        return self.head.taps

    @property
    def vocab_size(self) -> int:
        return self.source.model_config.vocab_size

    @property
    def reads(self) -> Literal["", "states", "cache"]:
        return "cache" if self.head.reads_cache else "states"

    def weight_bytes(self, device: Device) -> int:
        own = {name: each for name, each in self.program.constants.items() if name not in self.borrowed}
        programs = (replace(self.program, constants=own), *self.programs[1:])
        return sum(device.weight_bytes(program) for program in programs)

    def block_bytes(self, device: Device) -> int:
        """Of its keys and values, where it has any, and of the hidden states that it reads."""
        width = HiddenStates.bytes_per_token(self.head.kept_size, is_exact=self._is_exact)
        own = 0 if self.head.reads_cache else device.block_bytes(self.program.kv)
        return own + self.config.block_size * width

    def check_tokens(self, tokenizer: Tokenizer | None) -> None:
        """Its tokens are the model's, or it says which each of them is."""
        self._own_ids()

    def load(
        self, device: Device, model: object, num_blocks: int, advance: Callable[[int], None], *, is_tuned: bool
    ) -> LoadedDrafter:
        head, program = self.head, self.program
        if is_tuned and device.name == "cpu":
            program = tuned(program, self.source.directory, self.config.num_threads)[0]
        with self._weights() as weights:
            asked = Guesser(program, weights, self.max_positions, self.borrowed, head.reads_cache)
            own: Any = device.guesser(self.config, model, asked, num_blocks, advance)
            combine = None
            if self.combining is not None:
                combining = Guesser(self.combining, weights, self.combining.maxima["T"])
                combine = device.guesser(self.config, model, combining, 1, advance)
        keeping = Keeping(self.config.block_size, head.kept_size, self._is_exact, self.group, combine)
        states: Any = device.hidden_states(model, own, keeping, num_blocks)
        runner = self._runner(device, own, states)
        method = Method(
            1,
            execute=runner.execute,
            max_positions=self.max_positions,
            vocab_size=self.vocab_size,
            reads=self.reads,
        )

        def resize(num_blocks: int) -> None:
            own.take_blocks(num_blocks)
            states.take_blocks(num_blocks)

        return LoadedDrafter(
            method,
            self.block_bytes(device),
            states,
            prepare=runner.prepare,
            resize=None if device.name == "cpu" else resize,
        )

    def _runner(self, device: Device, model: Any, states: Any) -> PlanRunner:
        """What draws its guesses: the device where it can, and their ids are the model's."""
        size, vocab_size, reads_cache = self.config.block_size, self.vocab_size, self.head.reads_cache
        ids = self._ids(model)
        # one that reads the cache leaves what it leaves where it reads: no step of it is computed twice
        if device.name == "cpu":
            reading = HeadModel(model, states, size, vocab_size, ids, reads_cache=reads_cache)
            return Runner(reading, vocab_size, size, states=reading if reads_cache else None, num_ahead=1)
        there = DeviceHead(model, states, size, vocab_size, ids, reads_cache=reads_cache)
        kept = there if reads_cache else None
        if ids is not None:
            return Runner(there, vocab_size, size, states=kept, num_ahead=1)
        return AheadRunner(there, vocab_size, size, self.max_positions, states=kept, num_ahead=1)

    def _ids(self, model: object) -> NDArray[np.int32] | DraftIds | None:
        """The model's ids of those that it guesses among; None: all, as they are."""
        num_ids = self.head.num_ids
        if num_ids is None:
            return self._own_ids()
        assert isinstance(model, CpuModel), "asked_head() has others guess among all"
        definition = self.program.constants[FEW_LOGITS].definition
        assert definition is not None
        (name,) = definition.sources
        rows = self._rows(name)

        def put(first: int, ids: NDArray[np.int32]) -> None:
            model.put_rows(FEW_LOGITS, first, [RowSegment(name, each, each + 1) for each in ids.tolist()], rows)

        return DraftIds(self.vocab_size, num_ids, put, PANEL)

    def _own_ids(self) -> NDArray[np.int32] | None:
        """The model's ids of those that it has itself; None: it has none."""
        if not self.head.has_own_ids:
            return None
        from albireo.models.draft_heads.eagle import token_ids

        return token_ids(self.head, self.vocab_size)

    def _rows(self, name: str) -> Checkpoint:
        """Where a matrix of the model is, of which rows are read from time to time; it stays open."""
        own = Checkpoint(self.head.directory, self.head.names)
        if name in own:
            return own
        own.close()
        return Checkpoint(self.source.directory, ENDS)

    @property
    def _is_exact(self) -> bool:
        return self.head.config.dtype == "float32"

    @contextmanager
    def _weights(self) -> Iterator[Weights]:
        """Its own; and the model's, where it has none and cannot borrow what lies in memory."""
        with self.head.tensors() as own:
            missing = [name for name in self.head.shared if name not in own and name not in self.borrowed]
            if not missing:
                yield own
                return
            with self.source.weights(self.source.graph(self.max_positions)) as model:
                if not isinstance(model, Checkpoint):
                    raise ConfigError(
                        f"speculative_config.model={self.head.directory}: it has no {missing[0]} of its own, and an "
                        "engine directory's is packed for other kernels, or cut among ranks; serve the checkpoint"
                    )
                yield _Both(own, model, tuple(missing))


@dataclass(frozen=True, slots=True)
class _Both:
    """Implements backends.weights.Weights: a head's tensors, and of missing the model's."""

    own: Checkpoint
    model: Checkpoint
    missing: tuple[str, ...]

    @property
    def encodings(self) -> Mapping[str, str]:
        shared = {name: kind for name, kind in self.model.encodings.items() if name in self.missing}
        return {**self.own.encodings, **shared}

    def tensor(self, name: str) -> Tensor:
        return self._home(name).tensor(name)

    def encoded(self, name: str) -> Encoded:
        return self._home(name).encoded(name)

    def blocks(self, name: str) -> Blocks | None:
        return self._home(name).blocks(name)

    def release(self, name: str) -> None:
        self._home(name).release(name)

    def _home(self, name: str) -> Checkpoint:
        return self.model if name in self.missing else self.own


def asked_head(
    config: EngineConfig, source: ModelSource, device: Device, *, may_lack_weights: bool = False
) -> DraftHead | None:
    """The head that config asks for, None where there is none. Reads no weight.

    Args: may_lack_weights: nothing is to be loaded: where a directory has no weights, they will be there.
    Raises: ConfigError saying what does not go with one; ModelError; UnsupportedModel.
    """
    asked = config.speculative_config
    if asked is None or asked.method not in HEADS:
        return None
    if device.name != "cpu":
        _refuse_on_gpus(config, asked)
    where, model = _directory(asked.model, source), source.model_config
    rows_are = where if asked.method == "mtp" else source.directory
    try:
        num_ids = None
        if device.name == "cpu" and _has_plain_head(rows_are):
            num_ids = _num_ids(asked.draft_vocab_size, model.vocab_size)
        head = _opened(asked.method, model, where, num_ids)
        limit = head.config.max_position_embeddings
        if head.reads_cache and len(source.parts) != 1:
            raise ConfigError(
                f"speculative_config: this head reads the model's KV cache, of which each of {len(source.parts)} ranks "
                "has a part; use a draft model or method ngram, or leave tensor_parallel_size out"
            )
        if weight_files(where) or not may_lack_weights:
            head.check_weights([head.build(limit), *([head.combine()] if head.is_combined else [])])
    except ModelError as error:
        raise type(error)(f"speculative_config: {error}") from None
    return head


def _refuse_on_gpus(config: EngineConfig, asked: SpeculativeConfig) -> None:
    """Raises: ConfigError naming what does not go with a head there."""
    why = "speculative_config: on a GPU a head that drafts"
    if asked.draft_vocab_size:
        raise ConfigError(
            f"{why} guesses among all tokens, draft_vocab_size={asked.draft_vocab_size} is not done there; leave it out"
        )
    if config.swap_space:
        raise ConfigError(f"{why} reads hidden states, and these are not swapped; leave swap_space out")


def plan_head(
    config: EngineConfig,
    source: ModelSource,
    head: DraftHead,
    graph: Graph,
    program: Program,
    model_len: int,
    device: Device,
) -> HeadDrafter:
    """Compile a head. Args: graph, program: of the model."""
    asked, windows = config.speculative_config, program.kv.windows
    assert asked is not None
    if None not in windows:
        raise ConfigError(
            "speculative_config: a head that drafts needs blocks that are kept, and all layers of this model have "
            "windows; use method ngram"
        )
    max_positions = min(model_len, longest_context(head.config))
    # a step of it draws one token of a sequence
    own = replace(config, kv_cache_dtype="auto", enable_lora=False, speculative_config=None)
    built = _rounded(head.build(max_positions), head, config, graph)
    packings = {name: each.packing for name, each in program.constants.items() if name in head.shared}
    compiled = compile_program(
        built,
        own,
        max_positions,
        None,
        device.catalog(),
        has_block_groups=False,
        packings=packings,
        cache=program.kv if head.reads_cache else None,
    )
    combining = None
    if head.is_combined:
        rows = config.step_limits.max_num_batched_tokens
        maxima = {"T": rows, "R": rows, "G": 1}
        combining = compile_graph(
            head.combine(), device.catalog(), maxima=maxima, block_size=config.block_size, max_positions=1
        )
    borrowed = tuple(
        name
        for name in head.shared
        if name in compiled.constants and compiled.constants[name] == program.constants.get(name)
    )
    group = windows.index(None)
    return HeadDrafter(config, source, head, compiled, combining, borrowed, max_positions, group)


def tapped(graph: Graph, read: Sequence[int], model: ModelConfig) -> Graph:
    """A graph of the model, changed so that it hands out what a head reads. Args: read: see DraftHead.taps."""
    if read:
        taps.run(graph, read, model.multipliers.residual)
    return graph


def _directory(model: str | None, source: ModelSource) -> Path:
    """Of a head's tensors. Raises: ConfigError where there are none."""
    if model is None:
        if is_engine_directory(source.directory):
            raise ConfigError(
                f"speculative_config: {source.directory} is an engine directory, which keeps no layers that guess; "
                'name the checkpoint that has them: {"method": "mtp", "model": CHECKPOINT}'
            )
        return source.directory
    try:
        return locate_model(model)
    except ModelError as error:
        raise ConfigError(f"speculative_config.model: {error}") from None


def _opened(method: str, model: ModelConfig, where: Path, num_ids: int | None) -> DraftHead:
    """Architectures are read where somebody asks for a head: else nobody waits for them."""
    if method != "mtp":
        from albireo.models.draft_heads.eagle import eagle_head

        return eagle_head(method, model, where, num_ids)
    path = where / "config.json"
    if path.is_file() and read_json(path).get("model_type") == ASSISTANT:
        from albireo.models.draft_heads.gemma4 import assistant_head

        return assistant_head(model, where, num_ids)
    from albireo.models.draft_heads.mtp import mtp_head

    return mtp_head(model, where, num_ids)


def _has_plain_head(directory: Path) -> bool:
    """Whether rows of what makes the model's logits can be read one by one, as numbers."""
    if is_engine_directory(directory) or is_gguf(directory):
        return False
    if not weight_files(directory):
        return True
    with Checkpoint(directory, ENDS) as tables:
        return not tables.encodings


def _num_ids(asked: int | None, vocab_size: int) -> int | None:
    """How many tokens a head guesses among, in whole panels; None: all."""
    wanted = (FEW_IDS if vocab_size > 2 * FEW_IDS else 0) if asked is None else asked
    num = -(-wanted // PANEL) * PANEL
    return num if 0 < num < vocab_size else None


def _rounded(graph: Graph, head: DraftHead, config: EngineConfig, model: Graph) -> Graph:
    """With the encodings that its matrices are held in: as the checkpoint has them, or as config asks; and what it
    shares with the model as the model has it, unless the head is asked for in bits of its own."""
    asked = config.speculative_config
    assert asked is not None
    stored, is_weight_only = dict[str, str](), False
    if weight_files(head.directory):
        with head.tensors() as tensors:
            stored, is_weight_only = stored_encodings(tensors, head.config.dtype)
    scheme = asked.quantization or (None if stored else config.quantization)
    precision = Precision(scheme, None, stored, is_weight_only)
    kinds = {name: value.type.dtype for name, value in model.constants.items() if name in head.shared}

    def chosen(name: str, role: str | None) -> str | None:
        if asked.quantization is None and name in kinds:
            return kinds[name] if is_encoding(kinds[name]) else None
        return precision.of(name, role)

    tables = {**precision.stored, **{name: kind for name, kind in kinds.items() if is_encoding(kind)}}
    choose_precision.run(graph, chosen, precision.is_weight_only, tables)
    multiplied = {value for node in graph.nodes if node.op != "embed" for value in node.inputs.values()}
    for name, value in graph.constants.items():
        if name in kinds and value not in multiplied:  # a table of embeddings, as the model's lies
            value.type = model.constants[name].type
    return graph
