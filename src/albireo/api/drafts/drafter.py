"""What guesses for a model: planned beside it, before a weight is read, and then loaded. Here, a draft model; a head
that drafts is in draft_head.py.

Called by load.py. Does not guess (engine/model_guesses.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from albireo.api.drafts.beside import Guesser
from albireo.api.machine.device import Device, PlanRunner
from albireo.api.machine.tuning import tuned
from albireo.api.programs import compile_program
from albireo.api.sources.config_only import open_to_plan
from albireo.api.sources.locate import locate_model
from albireo.api.sources.source import ModelSource, guard, open_source
from albireo.api.tokenizer import open_tokenizer
from albireo.config import EngineConfig
from albireo.engine.block_tables import Windows
from albireo.errors import ConfigError, ModelError
from albireo.execution.draft_head import StateStore
from albireo.graph.program import Program
from albireo.json_file import read_json
from albireo.models.settings.context import longest_context
from albireo.models.settings.draft_input import ASSISTANT
from albireo.speculative.proposer import Method
from albireo.text.tokenizer import Tokenizer

#: Of the tokens of two models so many must have one id in both: some have special tokens of their own.
LEAST_SHARED = 0.99


@dataclass(frozen=True, slots=True)
class LoadedDrafter:
    """Implements beside.Beside.

    Fields:
        method: how drafts are made; None: as the engine's settings say.
        hidden_states: where those that it reads are left by the model; None: it reads none.
        prepare: see PlanRunner.
        block_bytes: what it keeps of one KV block's positions. resize: has it keep those of so many blocks.
    """

    method: Method | None
    block_bytes: int
    hidden_states: StateStore | None = None
    prepare: Callable[[], bool] = lambda: False
    resize: Callable[[int], None] | None = None

    def take_blocks(self, num_blocks: int) -> None:
        assert self.resize is not None, "on this device it has as many as it was made with"
        self.resize(num_blocks)


#: Of an engine without drafts, or whose drafts no model makes.
NOTHING_GUESSES = LoadedDrafter(None, 0)


class Drafter(Protocol):
    """What guesses, and is not loaded yet.

    Fields:
        programs: all that it is computed by: of guesses, and of what is made for them in each step of the model.
        taps: which of the model's hidden states it reads, see DraftHead; none: it reads none.
        max_positions: of the longest sequence that it knows.
        vocab_size: guesses are drawn among so many tokens. reads: see speculative.proposer.Method.
    """

    @property
    def programs(self) -> tuple[Program, ...]: ...

    @property
    def taps(self) -> tuple[int, ...]: ...

    @property
    def max_positions(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def reads(self) -> Literal["", "states", "cache"]: ...

    def weight_bytes(self, device: Device) -> int: ...

    def block_bytes(self, device: Device) -> int:
        """What it keeps of one KV block's positions."""
        ...

    def check_tokens(self, tokenizer: Tokenizer | None) -> None:
        """Raises: ConfigError, WeightMismatch when its tokens are others than the model's, as far as that is known."""
        ...

    def load(
        self, device: Device, model: object, num_blocks: int, advance: Callable[[int], None], *, is_tuned: bool
    ) -> LoadedDrafter:
        """It with its weights, and room for num_blocks blocks, where the model is computed that it is for."""
        ...


class Loading:
    """Loads a drafter when the model that it is for asks what is beside it; see beside.MakeBeside.

    Attributes: loaded: it, from then on.
    """

    def __init__(self, drafter: Drafter, device: Device, advance: Callable[[int], None], is_tuned: bool) -> None:
        self._drafter, self._device, self._advance, self._is_tuned = drafter, device, advance, is_tuned
        self.loaded = NOTHING_GUESSES
        self.programs = [(program, drafter.max_positions) for program in drafter.programs]
        self.taps = drafter.taps

    def __call__(self, model: object, num_blocks: int) -> LoadedDrafter:
        self.loaded = self._drafter.load(self._device, model, num_blocks, self._advance, is_tuned=self._is_tuned)
        return self.loaded


@dataclass(frozen=True, slots=True)
class ModelDrafter:
    """Implements Drafter: a draft model. is_same: it is the model itself, rounded."""

    config: EngineConfig
    source: ModelSource
    program: Program
    max_positions: int
    is_same: bool

    @property
    def programs(self) -> tuple[Program, ...]:
        return (self.program,)

    @property
    def taps(self) -> tuple[int, ...]:
        return ()

    @property
    def vocab_size(self) -> int:
        return self.source.model_config.vocab_size

    @property
    def reads(self) -> Literal["", "states", "cache"]:
        return ""

    def weight_bytes(self, device: Device) -> int:
        return device.weight_bytes(self.program)

    def block_bytes(self, device: Device) -> int:
        return device.block_bytes(self.program.kv)

    def load(
        self, device: Device, model: object, num_blocks: int, advance: Callable[[int], None], *, is_tuned: bool
    ) -> LoadedDrafter:
        program, longest = self.program, self.max_positions
        if is_tuned and device.name == "cpu":
            program = tuned(program, self.source.directory, self.config.num_threads)[0]
        with self.source.weights(self.source.graph(longest)) as weights:
            own: Any = device.guesser(self.config, model, Guesser(program, weights, longest), num_blocks, advance)
        runner: PlanRunner = device.runner(own, self.vocab_size, self.config.block_size, longest)
        method = Method(1, execute=runner.execute, max_positions=longest, vocab_size=self.vocab_size)
        resize = None if device.name == "cpu" else own.take_blocks
        return LoadedDrafter(method, self.block_bytes(device), prepare=runner.prepare, resize=resize)

    def check_tokens(self, tokenizer: Tokenizer | None) -> None:
        if self.is_same or tokenizer is None:
            return
        place = self.source.tokenizer_directory
        own, wanted = open_tokenizer(place).vocabulary(), tokenizer.vocabulary()
        num_same = len(own.items() & wanted.items())
        if num_same < LEAST_SHARED * min(len(own), len(wanted)):
            raise ConfigError(
                f"speculative_config.model={self.config.model}: {num_same} of its {len(own)} tokens are the model's, "
                f"which has {len(wanted)}; a draft model must have the model's tokens: take a smaller one of its family"
            )


def plan_drafter(
    config: EngineConfig, windows: Windows, model_len: int, device: Device, *, may_lack_weights: bool = False
) -> ModelDrafter | None:
    """Compile the draft model that config asks for, None where there is none.

    Args:
        windows, model_len: of the model: its block groups, and the longest sequence.
        may_lack_weights: nothing is to be loaded: its config.json is enough.
    Raises: ConfigError saying what does not go with one; ModelError; UnsupportedModel.
    """
    asked = config.speculative_config
    if asked is None or asked.method != "draft_model":
        return None
    why = "speculative_config: a draft model"
    if None not in windows:
        raise ConfigError(
            f"{why} needs blocks that are kept, and all layers of this model have windows; use method ngram"
        )
    own = replace(
        config,
        model=config.model if asked.model is None else asked.model,
        hf_overrides=config.hf_overrides if asked.model is None else None,
        mm_processor_kwargs=None,
        mmproj=None,
        quantization=asked.quantization,
        quantization_head=None,
        dtype="auto",
        kv_cache_dtype="auto",
        max_model_len=None,
        # of the model, whatever profile a directory was built for
        max_num_seqs=config.step_limits.max_num_seqs,
        max_num_batched_tokens=config.step_limits.max_num_batched_tokens,
        speculative_config=None,
        enable_lora=False,
        # whole, whatever number of ranks computes the model
        tensor_parallel_size=None,
        tp_invariant=False,
        verify_hashes=False,
        pin_numerics=False,
    )
    try:
        directory = locate_model(own.model)
    except ModelError as error:
        raise ConfigError(f"speculative_config.model: {error}") from None
    _refuse_head(directory)
    drafting = open_to_plan(directory, own) if may_lack_weights else open_source(directory, own)
    if len(drafting.parts) != 1:
        raise ConfigError(
            f"{why} runs whole, and {directory} is built for {len(drafting.parts)} ranks; name its checkpoint, or a "
            "build without --tp"
        )
    own = drafting.adopt(own)
    max_positions = min(model_len, longest_context(drafting.model_config))
    with guard(drafting):
        graph = drafting.graph(max_positions)
        program = compile_program(
            graph, own, max_positions, drafting.parts[0], device.catalog(), has_block_groups=False
        )
        drafting.check(program)
    if program.states:
        kind = drafting.model_config.model_type
        raise ConfigError(
            f"{why} that keeps states cannot go back behind a wrong draft, and {kind} keeps some; use another"
        )
    return ModelDrafter(own, drafting, program, max_positions, asked.model is None)


def _refuse_head(directory: Path) -> None:
    """Raises: ConfigError for a directory that holds a head, which is no model."""
    path = directory / "config.json"
    data = read_json(path) if path.is_file() else {}
    names = [*(data.get("architectures") or ()), data.get("speculators_model_type")]
    said = next((str(name) for name in names if "eagle" in str(name).lower()), None)
    is_assistant = data.get("model_type") == ASSISTANT
    if said is not None or is_assistant or "draft_vocab_size" in data:
        method = "mtp" if is_assistant else "eagle3" if said is None or "3" in said else "eagle"
        raise ConfigError(
            f'speculative_config.model={directory} is a head that drafts, not a model; say which: "method": "{method}"'
        )
