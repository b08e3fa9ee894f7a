"""What vLLM's Python has and there is not here: names, attributes, arguments; and what is said of each.

Leaf module, used by the classes that have vLLM's names. Facts about vLLM 0.10 to 0.32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from functools import wraps
from typing import Any, TypeVar

from albireo.errors import UnsupportedFeature, short

Called = TypeVar("Called", bound=Callable[..., Any])
Kind = TypeVar("Kind", bound=type[Any])

_METRICS = "LLM.stats() has counters, metrics of an output its times; a server has /metrics, with vLLM's names"
_ASSETS = "load an image with Pillow, a sound with soundfile, and give it in multi_modal_data"
_RAY = "albireo serve --distributed-executor-backend ray runs engines on a cluster"
#: What `from vllm… import` brings -> what there is in its place.
NAMES = {
    "AudioAsset": _ASSETS,
    "ImageAsset": _ASSETS,
    "VideoAsset": _ASSETS,
    "CompilationConfig": "leave it out: a model is compiled for this machine",
    "PoolerConfig": "PoolingParams say how a prompt is pooled, of each call",
    "StructuredOutputsConfig": "structured_outputs_backend of LLM says who compiles forms",
    "KVTransferConfig": "prefix_cache_dir of LLM keeps prefixes in files, which engines may share",
    "Counter": _METRICS,
    "Gauge": _METRICS,
    "Histogram": _METRICS,
    "Vector": _METRICS,
    "FlexibleArgumentParser": "argparse reads arguments; LLM takes them by name",
    "GuidedDecodingParams": "StructuredOutputsParams has the same fields; it goes into structured_outputs",
    "EmbedsPrompt": "prompts are texts, token ids and media; embeddings are not taken",
    "LogitsProcessor": "logit_bias, allowed_token_ids, bad_words and structured_outputs say what may be drawn",
    "ModelRegistry": "models of one's own are not run; docs/models.md has those that are",
    "UsageContext": "leave it out: nothing is counted",
    "VllmConfig": "EngineConfig is how a model is run",
    "cleanup_dist_env_and_memory": "LLM.close() gives the memory back, and so does `with LLM(…) as llm:`",
    "destroy_model_parallel": "LLM.close() gives the memory back, and so does `with LLM(…) as llm:`",
    "initialize_ray_cluster": _RAY,
    "print_embeddings": "print them",
    "set_random_seed": "seed of LLM, or of SamplingParams",
}
_LOADED = "loaded.model_config says what the model is, loaded.config how it is run"
_RPC = "nothing but the engine runs in its processes"
_PROFILE = "albireo bench measures, albireo inspect shows kernels"
_NO_CACHE = "prefixes with pictures are cached with all others; reset_prefix_cache() resets them"
_PAUSE = "await its requests, or abort() them; a server has /pause"
#: What LLM and AsyncLLM have there -> what there is in its place.
ATTRIBUTES = {
    "apply_model": _RPC,
    "collective_rpc": _RPC,
    "enqueue": "give all prompts to one generate(), or use AsyncLLM or LLMEngine",
    "wait_for_completion": "give all prompts to one generate(), or use AsyncLLM or LLMEngine",
    "get_metrics": _METRICS,
    "do_log_stats": _METRICS,
    "get_model_config": _LOADED,
    "get_vllm_config": _LOADED,
    "get_supported_tasks": "a call that the model cannot answer says so",
    "init_weight_transfer_engine": "weights are those of the files; sleep() and wake_up() read them again",
    "update_weights": "weights are those of the files; sleep() and wake_up() read them again",
    "llm_engine": "its calls are the LLM's own; loaded.model_config says what the model is, LLMEngine has steps",
    "model_config": _LOADED,
    "vllm_config": _LOADED,
    "pause_generation": _PAUSE,
    "resume_generation": _PAUSE,
    "preprocess_chat": "get_tokenizer().apply_chat_template()",
    "reset_mm_cache": _NO_CACHE,
    "reset_encoder_cache": _NO_CACHE,
    "set_tokenizer": "tokenizer of LLM names another",
    "start_profile": _PROFILE,
    "stop_profile": _PROFILE,
}
_INSIDE = "it is of vLLM's own parts"
#: Arguments of most calls.
OF_CALLS = {
    "tokenization_kwargs": "truncate_prompt_tokens of the parameters cuts a prompt",
    "mm_processor_kwargs": "mm_processor_kwargs of LLM holds for all requests",
    "trace_headers": "a server sends traces",
    "data_parallel_rank": "there is one engine in a process",
    "session_id": _INSIDE,
}
#: Of chats.
OF_CHATS = {"chat_template_content_format": "it is found in the template", "documents": "chat_template_kwargs has them"}
#: Of calls whose prompts are pooled.
OF_POOLING = {
    **OF_CALLS,
    "lora_request": "adapters write texts; prompts are pooled by the model as it is",
    "truncate_prompt_tokens": "PoolingParams has it",
    "chat_template": "the model's files say how two texts are put together",
}


def attribute_error(thing: object, name: str) -> AttributeError:
    """What is said of an attribute that is not there."""
    kind = type(thing).__name__
    if name in ATTRIBUTES:
        return AttributeError(f"{kind}.{name} is vLLM's, and is not there; {ATTRIBUTES[name]}", name=name, obj=thing)
    return AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=thing)


def takes_vllms(**words: str) -> Callable[[Called], Called]:
    """Decorates a function that lacks arguments of vLLM's. One that asks for nothing (None, False, empty, auto) is left
    out, and so is one without words; any other is refused by them, UnsupportedFeature."""

    def decorated(function: Called) -> Called:
        @wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            for name in words.keys() & given.keys():
                if not _is_nothing(value := given.pop(name)) and words[name]:
                    raise UnsupportedFeature(f"{name}={short(value)} is vLLM's, and is not taken: {words[name]}")
            return function(*args, **given)

        return call  # type: ignore[return-value]

    return decorated


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, (bool, int, str, list, tuple, dict)) and (not value or value == "auto"))


def fields_of_vllm(**words: str) -> Callable[[Kind], Kind]:
    """Decorates a class that lacks fields of vLLM's, as takes_vllms() does a function."""

    def decorated(kind: Kind) -> Kind:
        kind.__init__ = takes_vllms(**words)(kind.__init__)
        return kind

    return decorated


def params_of_vllm(**words: str) -> Callable[[Kind], Kind]:
    """fields_of_vllm(), of a frozen dataclass with clone(): who sets a field is told how else it is done."""

    def decorated(kind: Kind) -> Kind:
        def refuse(self: object, name: str, value: object) -> None:
            raise FrozenInstanceError(
                f"{kind.__name__} does not change, so that requests may share it: params.clone({name}={short(value)}) "
                "in place of setting it"
            )

        kind.__setattr__ = refuse  # type: ignore[assignment]
        return fields_of_vllm(**words)(kind)

    return decorated
