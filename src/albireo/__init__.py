"""Albireo, an LLM inference engine: the public names and nothing else.

Names are imported when first used, so that `import albireo` is light. Does not know what any of them does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albireo.api.async_llm import AsyncLLM
    from albireo.api.build import build
    from albireo.api.llm import LLM, load
    from albireo.api.llm_engine import LLMEngine
    from albireo.api.requests.prompts import TextPrompt, TokensPrompt
    from albireo.beam_search_params import BeamSearchParams
    from albireo.config import BuildConfig, EngineArgs, EngineConfig
    from albireo.errors import (
        ConfigError,
        Corrupt,
        DeviceLost,
        EngineError,
        EngineFileError,
        InvalidParams,
        InvariantError,
        ModelError,
        NoGpu,
        OutOfMemory,
        PromptTooLong,
        RankLost,
        RequestError,
        ResourceError,
        TargetMismatch,
        TemplateError,
        UnsupportedFeature,
        UnsupportedModel,
        VersionMismatch,
        WeightMismatch,
    )
    from albireo.lora_request import LoRARequest
    from albireo.outputs import (
        BeamSearchOutput,
        BeamSearchSequence,
        ClassificationOutput,
        ClassificationRequestOutput,
        CompletionOutput,
        EmbeddingOutput,
        EmbeddingRequestOutput,
        Logprob,
        PoolingOutput,
        PoolingRequestOutput,
        RequestMetrics,
        RequestOutput,
        ScoringOutput,
        ScoringRequestOutput,
        Segment,
        Transcript,
        Word,
    )
    from albireo.params import PoolingParams, RequestOutputKind, SamplingParams
    from albireo.repetition_params import RepetitionDetectionParams
    from albireo.structured_params import StructuredOutputsParams
    from albireo.transcription_params import TranscriptionParams

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncLLM",
    "BeamSearchOutput",
    "BeamSearchParams",
    "BeamSearchSequence",
    "BuildConfig",
    "ClassificationOutput",
    "ClassificationRequestOutput",
    "CompletionOutput",
    "ConfigError",
    "Corrupt",
    "DeviceLost",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "EngineArgs",
    "EngineConfig",
    "EngineError",
    "EngineFileError",
    "InvalidParams",
    "InvariantError",
    "LLMEngine",
    "LoRARequest",
    "Logprob",
    "ModelError",
    "NoGpu",
    "OutOfMemory",
    "PoolingOutput",
    "PoolingParams",
    "PoolingRequestOutput",
    "PromptTooLong",
    "RankLost",
    "RepetitionDetectionParams",
    "RequestError",
    "RequestMetrics",
    "RequestOutput",
    "RequestOutputKind",
    "ResourceError",
    "SamplingParams",
    "ScoringOutput",
    "ScoringRequestOutput",
    "Segment",
    "StructuredOutputsParams",
    "TargetMismatch",
    "TemplateError",
    "TextPrompt",
    "TokensPrompt",
    "Transcript",
    "TranscriptionParams",
    "UnsupportedFeature",
    "UnsupportedModel",
    "VersionMismatch",
    "WeightMismatch",
    "Word",
    "__version__",
    "build",
    "load",
]

_HOMES = {
    "LLM": "albireo.api.llm",
    "AsyncLLM": "albireo.api.async_llm",
    "LLMEngine": "albireo.api.llm_engine",
    "BeamSearchOutput": "albireo.outputs",
    "BeamSearchParams": "albireo.beam_search_params",
    "BeamSearchSequence": "albireo.outputs",
    "BuildConfig": "albireo.config",
    "EngineArgs": "albireo.config",
    "EngineConfig": "albireo.config",
    "build": "albireo.api.build",
    "load": "albireo.api.llm",
    "LoRARequest": "albireo.lora_request",
    "PoolingParams": "albireo.params",
    "RepetitionDetectionParams": "albireo.repetition_params",
    "RequestOutputKind": "albireo.params",
    "SamplingParams": "albireo.params",
    "StructuredOutputsParams": "albireo.structured_params",
    "ClassificationOutput": "albireo.outputs",
    "ClassificationRequestOutput": "albireo.outputs",
    "CompletionOutput": "albireo.outputs",
    "EmbeddingOutput": "albireo.outputs",
    "EmbeddingRequestOutput": "albireo.outputs",
    "Logprob": "albireo.outputs",
    "PoolingOutput": "albireo.outputs",
    "PoolingRequestOutput": "albireo.outputs",
    "RequestMetrics": "albireo.outputs",
    "RequestOutput": "albireo.outputs",
    "ScoringOutput": "albireo.outputs",
    "ScoringRequestOutput": "albireo.outputs",
    "Segment": "albireo.outputs",
    "TextPrompt": "albireo.api.requests.prompts",
    "TokensPrompt": "albireo.api.requests.prompts",
    "Transcript": "albireo.outputs",
    "Word": "albireo.outputs",
    "TranscriptionParams": "albireo.transcription_params",
}
#: Further names of vLLM's for the same.
_ALIASES = {"AsyncLLMEngine": "AsyncLLM", "AsyncEngineArgs": "EngineArgs"}


def __getattr__(name: str) -> Any:
    if name in _ALIASES:
        return __getattr__(_ALIASES[name])
    if name not in __all__:
        if (said := import_module("albireo.vllm_names").NAMES.get(name)) is not None:
            # not an AttributeError, of which an import says nothing
            raise ImportError(f"{name} is vLLM's, and is not there; {said}", name=name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "albireo.errors")), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
