"""The names users import, and that importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import albireo
from albireo import vllm_names

ROOT = Path(__file__).resolve().parents[2]

NAMES = {
    "LLM",
    "LLMEngine",
    "AsyncLLM",
    "BeamSearchOutput",
    "BeamSearchParams",
    "BeamSearchSequence",
    "BuildConfig",
    "ClassificationOutput",
    "ClassificationRequestOutput",
    "CompletionOutput",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "ConfigError",
    "Corrupt",
    "DeviceLost",
    "EngineArgs",
    "EngineConfig",
    "EngineError",
    "EngineFileError",
    "InvalidParams",
    "InvariantError",
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
    "RequestError",
    "RequestMetrics",
    "RequestOutput",
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
    "Word",
    "UnsupportedFeature",
    "UnsupportedModel",
    "VersionMismatch",
    "WeightMismatch",
    "RepetitionDetectionParams",
    "RequestOutputKind",
    "__version__",
    "build",
    "load",
}
HEAVY = ("numpy", "tokenizers", "jinja2", "torch", "transformers", "tqdm", "asyncio", "albireo._native")


def test_the_public_names_are_these() -> None:
    assert set(albireo.__all__) == NAMES
    assert dir(albireo) == sorted(NAMES)


def test_each_name_resolves_to_the_thing_of_that_name() -> None:
    for name in NAMES - {"__version__"}:
        assert getattr(albireo, name).__name__ == name
        assert getattr(albireo, name) is getattr(albireo, name)


def test_all_errors_of_the_tree_are_public() -> None:
    from albireo import errors

    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert tree <= NAMES


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'Llm'"):
        albireo.Llm  # noqa: B018


@pytest.mark.parametrize(("alias", "name"), [("AsyncLLMEngine", "AsyncLLM"), ("AsyncEngineArgs", "EngineArgs")])
def test_further_names_of_vllm_are_the_same_things(alias: str, name: str) -> None:
    assert getattr(albireo, alias) is getattr(albireo, name)


def test_an_import_of_what_only_vllm_has_says_what_is_there_instead() -> None:
    with pytest.raises(ImportError, match=r"^GuidedDecodingParams is vLLM's.*StructuredOutputsParams has the same"):
        from albireo import GuidedDecodingParams  # noqa: F401
    with pytest.raises(ImportError, match=r"^cleanup_dist_env_and_memory is vLLM's.*LLM.close"):
        from albireo import cleanup_dist_env_and_memory  # noqa: F401
    assert not NAMES & {*vllm_names.NAMES} and not {*vllm_names.NAMES} & {"AsyncLLMEngine", "AsyncEngineArgs"}


def test_the_version_is_the_one_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert albireo.__version__ == project["version"]


def test_importing_albireo_imports_nothing_heavy() -> None:
    code = f"import sys, albireo; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert done.stdout.strip() == "[]"
    code = "import sys; from albireo import SamplingParams, EngineConfig, RequestOutput, InvalidParams\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert done.stdout.strip() == "[]"
