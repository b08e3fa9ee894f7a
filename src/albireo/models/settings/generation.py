"""GenerationDefaults: what an author recommends for sampling, from generation_config.json or settings like its.

Called by the front doors, which let a caller's own parameters go first. Does not know SamplingParams.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from albireo.json_file import Fields, keys, read_json
from albireo.speculative_config import MAX_VOCAB

if TYPE_CHECKING:
    from albireo.models.config import ModelConfig

#: Keys that do not change which tokens are likely, or that only describe the file.
IGNORABLE_KEYS = keys(
    "_from_model_config transformers_version trust_remote_code bos_token_id pad_token_id do_sample max_length",
    "use_cache cache_implementation return_dict_in_generate output_scores output_logits output_attentions",
    "output_hidden_states num_return_sequences disable_compile",
)
_NEUTRAL = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "typical_p": (1.0,),
    "length_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "guidance_scale": (1.0,),
    "temperature": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDefaults:
    """Recommended sampling; None where the file is silent. Names as in SamplingParams.

    Fields:
        max_tokens: from max_new_tokens.
        eos_token_ids: every id that ends the text; may be empty.
        unused: keys that ask for a way of decoding there is none of here (beams, suppressed tokens); to be logged.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    unused: tuple[str, ...] = ()


def read_generation_defaults(directory: Path) -> GenerationDefaults:
    """Read generation_config.json; all defaults are None where there is none.

    Raises: ModelError naming the key and the value that is impossible.
    """
    path = directory / "generation_config.json"
    return defaults_of(Fields(read_json(path), str(path))) if os.path.lexists(path) else GenerationDefaults()


def defaults_of(fields: Fields) -> GenerationDefaults:
    """Fields: by the keys of generation_config.json. Raises: ModelError, as read_generation_defaults()."""
    return GenerationDefaults(
        temperature=fields.optional_number("temperature", 0.0, 1e6),
        # 0 keeps nothing; transformers refuses it too.
        top_p=fields.optional_number("top_p", 1e-9, 1.0),
        top_k=fields.optional_integer("top_k", -1, MAX_VOCAB),
        min_p=fields.optional_number("min_p", 0.0, 1.0),
        repetition_penalty=fields.optional_number("repetition_penalty", 1e-6, 1e6),
        max_tokens=fields.optional_integer("max_new_tokens", 1, 2**31),
        eos_token_ids=fields.ids("eos_token_id", MAX_VOCAB),
        unused=tuple(fields.unread(IGNORABLE_KEYS, _NEUTRAL)),
    )


def eos_token_ids(config: ModelConfig, defaults: GenerationDefaults) -> tuple[int, ...]:
    """Every id that ends a text: those of config.json, then the further ones of generation_config.json."""
    return tuple(dict.fromkeys(config.eos_token_ids + defaults.eos_token_ids))
