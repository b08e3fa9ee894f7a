"""The figures of what guesses for a model: its part of the memory, and what it is worth.

Called by plan.py. Refuses what loading would, with its words. Does not predict (draft_speed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from albireo.api.drafts.drafter import Drafter, ModelDrafter
from albireo.api.machine.device import Device
from albireo.api.sources.config_only import ConfigOnly
from albireo.api.sources.source import ModelSource
from albireo.api.tokenizer import open_tokenizer
from albireo.bench.cost_model import CostModel
from albireo.bench.draft_speed import Batch, DraftCosts, draft_speed
from albireo.bench.predict import Estimate, cases_of
from albireo.bench.roofline import Limits, StepShape
from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.models.gguf.files import is_gguf
from albireo.text.vocabularies import vocabulary_files

#: Keys of what is predicted.
DRAFT_SPEEDS = ("prompt_s", "one_request", "all_requests")


def check_tokens(drafter: Drafter, config: EngineConfig, source: ModelSource) -> None:
    """Raises: ConfigError, WeightMismatch where it has other tokens than the model, as far as files are there."""
    place = Path(config.tokenizer) if config.tokenizer else source.tokenizer_directory
    is_known = not config.skip_tokenizer_init and _has_tokenizer(place)
    if isinstance(drafter, ModelDrafter) and isinstance(drafter.source, ConfigOnly):
        is_known = is_known and _has_tokenizer(drafter.source.tokenizer_directory)
    drafter.check_tokens(open_tokenizer(place) if is_known else None)


def _has_tokenizer(place: Path) -> bool:
    return is_gguf(place) or bool(vocabulary_files(place))


def draft_memory(config: EngineConfig, drafter: Drafter | None, device: Device) -> dict[str, Any] | None:
    """What was asked for, and bytes of what guesses, which the parts of the memory count; None: nothing was."""
    asked = config.speculative_config
    if asked is None:
        return None
    return {
        "method": asked.method,
        "num_speculative_tokens": asked.num_speculative_tokens,
        "weight_bytes": 0 if drafter is None else drafter.weight_bytes(device),
        "kv_bytes_per_block": 0 if drafter is None else drafter.block_bytes(device),
        "activation_bytes": 0 if drafter is None else sum(each.arena_bytes for each in drafter.programs),
        **dict.fromkeys(DRAFT_SPEEDS),
    }


def draft_speeds(
    costs: CostModel,
    drafter: Drafter | None,
    settings: EngineSettings,
    request: tuple[int, int, bool],
    batches: Sequence[int],
    limits: Sequence[Limits],
) -> dict[str, Any]:
    """DRAFT_SPEEDS, at limits measured now.

    Args:
        request: tokens of its prompt; of all of it half way through; whether it is drawn from full logits.
        batches: one request, and how many there are; drafter: None: lookup guesses.
    """
    input_len, length, has_logits = request
    speculative, guessing, combining = settings.speculative, None, None
    assert speculative is not None, "draft_memory() gives nothing then"
    if drafter is not None:
        guessing, *combiners = (CostModel(each, drafter.vocab_size, beside=costs) for each in drafter.programs)
        combining = combiners[0] if combiners else None
    priced = DraftCosts(
        costs, guessing, combining, "" if drafter is None else drafter.reads, settings.num_state_slots > 0
    )
    speeds = []
    for num in batches:
        spare = min(settings.max_num_batched_tokens - num, settings.max_draft_rows)
        most = min(speculative.num_speculative_tokens, max(0, spare) // num)
        speeds.append(asdict(draft_speed(priced, Batch(num, length, has_logits, most), limits)))
    prompt_s = None
    if guessing is not None and priced.reads != "cache":
        size = settings.max_num_batched_tokens
        prompt_s = asdict(_prompt_s(guessing, input_len, size, limits))
    return {"prompt_s": prompt_s, "one_request": speeds[0], "all_requests": speeds[-1]}


def _prompt_s(guessing: CostModel, input_len: int, size: int, limits: Sequence[Limits]) -> Estimate:
    """What guesses reads a prompt, in steps of so many tokens; nobody waits for it before the first token."""
    ends = [*range(size, input_len, size), input_len]
    chunks = [(end - (end - 1) // size * size, end) for end in ends]
    shapes = [StepShape(num_new, 0, int(end == input_len), ((num_new, end),)) for num_new, end in chunks]
    return Estimate.of(*(sum(guessing.step_s(shape, held) for shape in shapes) for held in cases_of(limits)))
