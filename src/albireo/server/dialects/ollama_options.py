"""The `options` of a request of Ollama's -> fields of a request of a chat or a completion.

Used by ollama.py beside it. What would not be done is refused, what asks for what is so anyway is taken.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from albireo.server.body import converted_object
from albireo.server.dialects.llama_sampling import SAMPLING, window_of_theirs
from albireo.server.errors import HttpError, unsupported
from albireo.server.protocol.fields import unneutral
from albireo.server.protocol.ollama import Options

#: Option -> values beside null that ask for nothing here.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "mirostat": (0,),
    "typical_p": (1,),
    "tfs_z": (1,),
    "penalize_newline": (True,),
    "num_batch": (),
    "num_gpu": (-1,),
    "main_gpu": (0,),
    "num_thread": (0,),
    "num_gqa": (1,),
    "low_vram": (False,),
    "f16_kv": (True,),
    "logits_all": (False,),
    "vocab_only": (False,),
    "embedding_only": (False,),
    "use_mmap": (True,),
    "use_mlock": (False,),
    "numa": (False,),
}
#: Option -> what to do about it; others are left out.
_ADVICE = {
    "num_batch": "--max-num-batched-tokens says it where the server is started",
    "num_gpu": "--device says where the model runs, where the server is started; -1 leaves it there",
    "num_thread": "--num-threads says it where the server is started; 0 leaves it there",
    "typical_p": "use top_p or min_p, or leave it out",
    "tfs_z": "use top_p or min_p, or leave it out",
    "mirostat": "use temperature, top_p or min_p, or leave it out",
    "f16_kv": "--kv-cache-dtype says it where the server is started",
}


def options_of(given: dict[str, Any] | None, max_model_len: int) -> Options:
    """Raises: HttpError 400 naming the option that is not known, has no such value, or asks for what there is not."""
    options = converted_object(given or {}, Options, "options")
    asked = unneutral(options, _NEUTRAL)
    if asked is not None:
        name, value = asked
        raise unsupported(f"options.{name}", value, _ADVICE.get(name, "leave it out"))
    if (options.num_ctx or 0) > max_model_len:
        raise HttpError(
            400,
            f"options.num_ctx={options.num_ctx} is more than the {max_model_len} tokens of context there are; ask for "
            "fewer, or leave it out; --max-model-len says it where the server is started",
            param="options",
        )
    if options.num_ctx in (0, max_model_len):
        options = replace(options, num_ctx=None)
    return options


def sampling_of(options: Options) -> dict[str, Any]:
    """Fields of a request, of options that are given."""
    found = {ours: value for name, ours in SAMPLING.items() if (value := getattr(options, name)) is not None}
    window = window_of_theirs(options.repeat_last_n, found)
    if (last_n := window.pop("penalty_window", None)) is not None:
        found["repeat_last_n"] = last_n
    found |= window
    if (options.num_predict or 0) > 0:
        found["max_tokens"] = options.num_predict
    return found


def check_pooled(options: Options) -> None:
    """Raises: HttpError 400 for an option that says how a text is written: an embedding has none."""
    for name in ("num_predict", *SAMPLING):
        if (value := getattr(options, name)) is not None:
            raise unsupported(f"options.{name}", value, "an embedding writes no text; leave it out")
