"""Every environment variable that is read, in one place. Those of ours exist to test and measure, never to configure.

ALBIREO_ISA_MAX   cap the CPU instruction-set level: scalar, avx2, avxvnni, avx512, avx512vnni, avx512bf16 or amx;
                  on Arm scalar, neon, neondot or neonmm
CUDA_VISIBLE_DEVICES  NVIDIA's: the GPUs to use; set to one of them, or one a rank, in each of several engine processes
HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME   the hub's: where its cache is, read where its library is not installed
OLLAMA_MODELS     Ollama's: where its models are (api/sources/other_stores.py); by default ~/.ollama/models
OPENAI_API_KEY    the key `albireo bench serve` sends to the server it measures, as OpenAI's clients have it
TORCH_NCCL_ASYNC_ERROR_HANDLING, TORCH_NCCL_ENABLE_MONITORING, TORCH_NCCL_DUMP_ON_TIMEOUT  torch's: 0, set where ranks
                  run on GPUs, unless given
TRITON_INTERPRET  Triton's: kernels are interpreted; taken from processes that compile them
VLLM_API_KEY, LLAMA_API_KEY   other servers': keys of `albireo serve` where it is given none (cli/environment.py, which
                  says of others what they are called here)
XDG_CACHE_HOME    where the user keeps caches; by default ~/.cache
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def isa_max() -> str | None:
    """The cap on the CPU level, or None. Validated where levels are known (backends.cpu)."""
    return os.environ.get("ALBIREO_ISA_MAX") or None


def cache_home() -> Path | None:
    """The user's directory of caches, as the XDG base directory specification has it; None: there is no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    path = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~")) / ".cache"
    return path if path.is_absolute() else None


def compiling_environment() -> dict[str, str]:
    """What a process that compiles kernels is given."""
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def cuda_visible_devices() -> list[str] | None:
    """The GPUs that may be used, as the driver reads it: up to the first that is none; None: all."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return None
    names = []
    for name in given.split(","):
        if name.strip() in ("", "-1"):
            break
        names.append(name.strip())
    return names


def use_cuda_devices(names: Sequence[str]) -> None:
    """Let this process, and those it starts, see these GPUs. The driver reads it once, when it is first used."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)


def handle_nccl_errors() -> None:
    """Leave it to this package what becomes of a rank whose others are gone; torch would end the process, which may be
    a user's: where a call fails, and where its thread that watches is held up for long. That thread also looks every
    second whether another rank dumps what it knows, in the file by which ranks met."""
    for name in ("ASYNC_ERROR_HANDLING", "ENABLE_MONITORING", "DUMP_ON_TIMEOUT"):
        os.environ.setdefault(f"TORCH_NCCL_{name}", "0")


def variables() -> Mapping[str, str]:
    """All there are, for what looks for other programs' names among them."""
    return os.environ


def openai_api_key() -> str | None:
    """The key for an OpenAI-compatible server, or None. A secret: it goes into one header and nowhere else."""
    return os.environ.get("OPENAI_API_KEY") or None
