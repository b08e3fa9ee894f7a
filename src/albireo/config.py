"""EngineConfig: how to run now. Frozen; an unknown key is an error that names the nearest known one.

Names are vLLM's where the meaning is the same. Does not know what the model is (models/config.py).
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from albireo.dtypes import kv_cache_dtype
from albireo.errors import ConfigError, InvalidParams, short
from albireo.media_limits import MediaLimits
from albireo.params import SamplingParams, plain_number
from albireo.profiles import DEFAULT, PROFILES, Profile, StepLimits, resolve
from albireo.speculative_config import SpeculativeConfig
from albireo.structured_params import BACKENDS, backend_name
from albireo.vllm_flags import argument_words

BLOCK_SIZES = (8, 16, 32)
#: More than any machine has cores.
MAX_THREADS = 4096
#: Engines behind one server.
MAX_ENGINES = 64
#: Of bytes, tokens and sequences: far above any machine, and the largest that native code can be told.
MAX_NUMBER = 2**63 - 1
_FLAGS = (
    "enforce_eager",
    "enable_prefix_caching",
    "skip_tokenizer_init",
    "enable_lora",
    "verify_hashes",
    "pin_numerics",
)
#: Far above any use; a step finds the slot of an adapter by looking at all.
MAX_LORAS = 1024
MAX_LORA_RANK = 4096
#: Names of recommended sampling -> those of SamplingParams.
GENERATION_NAMES = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")},
    "max_new_tokens": "max_tokens",
}
_LIMITS = ("max_model_len", "max_num_seqs", "max_num_batched_tokens")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How to run one model.

    Fields:
        model: directory in Hugging Face layout, a hub name, or None for the bundled model.
        tokenizer: directory of the tokenizer, when it is not the model's.
        device: where it is computed: cpu, cuda (one NVIDIA GPU), or auto: a GPU where there is one that can be used.
        enforce_eager: on a GPU, launch every kernel of every step instead of replaying recorded CUDA graphs.
        dtype: compute type; auto takes the checkpoint's.
        quantization: hold the weights of a checkpoint in few bits, rounded to nearest while they are loaded: int8,
            fp8, fp8-a16, int4, int4-g32, int4-g64, int4-g128, mxfp4 or nvfp4; None: as they are, and so is the name
            of the format that they are in (awq, gptq, compressed-tensors …).
        quantization_head: the same for the head alone: int8, fp8, int4-g32, int4-g64, int4-g128 or bf16 (as it is);
            None: what quantization says.
        max_model_len: longest sequence in tokens; None or -1: the model's, as far as memory allows.
        profile: temperament: balanced, throughput (long steps of many sequences) or latency (short steps, so that
            running requests do not wait for long prompts); None: balanced, or what an engine directory was built for.
        max_num_seqs: most sequences in one step; None: the profile's.
        max_num_batched_tokens: token budget of one step; None: the profile's.
        target_itl_ms: milliseconds that a step is to take while somebody's tokens stream: it has as many tokens of
            others' prompts as that allows, by what the last steps took; 0: any; None: the profile's.
        block_size: KV positions per block.
        kv_cache_dtype: type of the KV cache: bf16, f16, f32, int8 or fp8; auto: the compute type, or what an engine
            directory was built for. With int8 and fp8 half of bf16's bytes hold a token.
        kv_cache_memory_bytes: bytes of the KV pool; None: a part of memory_utilization.
        memory_utilization: fraction of the machine's memory, or of the GPU's, this engine may use in all.
        swap_space: GiB of page-locked host memory where a GPU's KV blocks of preempted requests are kept, unless their
            tokens are computed again in less time; 0: they always are. Not for the CPU, whose KV cache is there anyway.
        num_gpu_blocks_override: exact number of KV blocks, for tests (vLLM's name); where layers form groups, of each.
        enable_prefix_caching: reuse the KV cache of prompts that begin alike.
        prefix_cache_dir: folder where what was computed of prompts and answers is kept in files, and read from in place
            of computing it again, also by the next process; None: it is kept in the KV cache alone.
        prefix_cache_dir_bytes: most bytes of its files; those that were of no use for longest go first.
        scheduling_policy: who runs first: fcfs, or the lowest priority number.
        seed: where requests without a seed of their own derive theirs from.
        num_threads: compute threads, of all ranks together; None: one per core this process may run on,
            and no more than its control group gives time for.
        tensor_parallel_size: ranks that compute the model together, each with its part of the weights; None: 1, or of
            an engine directory as many as it was built for.
        tp_invariant: add the sums that ranks share in the order of several also when there is one, which then computes
            the same bits as they do.
        data_parallel_size: whole engines behind one server, each with its own weights and KV cache, and with its part
            of the threads and of the memory, or a GPU of its own. Of `serve` alone.
        skip_tokenizer_init: prompts are token ids only, and nothing is detokenized.
        generation_config: auto takes the model's recommended sampling; vllm none.
        override_generation_config: what is recommended in its place, by the names of generation_config.json, as
            {"temperature": 0.6, "max_new_tokens": 200} or its text in JSON.
        hf_overrides: what config.json is to say in place of what it does, as {"rope_theta": 1e6} or its text in JSON;
            of objects in it key by key. Not of an engine directory, which is built with them.
        mm_processor_kwargs: what the files that prepare pictures are to say in place of what they do, as
            {"max_pixels": 501760} or its text in JSON; of videos in an object videos_kwargs. Otherwise as hf_overrides.
        mmproj: file that holds what a model in a GGUF file sees and hears with, as llama.cpp has it (mmproj-….gguf);
            None: the one that lies beside it, if there is one alone.
        structured_outputs_backend: who compiles the form of an output where a request does not say: llguidance (or
            guidance, vLLM's name of it), xgrammar, or auto: llguidance, and xgrammar for what that one does not do.
        speculative_config: guess ahead, and compute several tokens of a sequence in one step where guesses come true;
            outputs stay the same. An object, or its text in JSON: method (ngram: by looking up the last few tokens in
            the prompt and output; draft_model: by a smaller model, or this one in fewer bits; mtp, eagle, eagle3: by a
            head that reads its hidden states), num_speculative_tokens,
            prompt_lookup_max, prompt_lookup_min, model, quantization; None: one token a step.
        enable_lora: run requests with adapters of low rank (LoRA), others beside them. Not on several engines
            yet.
        max_loras: adapters that one step may have; each has a slot, memory that is taken at the start.
        max_lora_rank: largest rank of an adapter; slots have room for it.
        limit_mm_per_prompt: most images, sounds and videos of one prompt, as {"image": 4, "video": 1} or its text in
            JSON; 0 images, or sounds: the part of the model that reads them is not loaded; by default any number.
        allowed_local_media_path: folder whose files requests may name as images, sounds or videos; None: none may.
        allowed_media_domains: hosts that images and sounds may be fetched from, by URLs in requests; *: any that is not
            of this network. Without one, they come with the request.
        max_logprobs: most logprobs a request may ask for; -1: the vocabulary.
        verify_hashes: check the weights of an engine directory against their hashes before running.
        pin_numerics: refuse an engine directory where other kernels than the build's would run, whose logits may differ
            in the last bits.
        without: compiler passes to leave out, by name, to measure what they are worth; results stay the same.

    Raises: ConfigError naming the field, the value and what is allowed.
    """

    model: str | None = None
    tokenizer: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    enforce_eager: bool = False
    dtype: str = "auto"
    quantization: str | None = None
    quantization_head: str | None = None
    max_model_len: int | None = None
    profile: Profile | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    target_itl_ms: int | None = None
    block_size: int = 16
    kv_cache_dtype: str = "auto"
    kv_cache_memory_bytes: int | None = None
    memory_utilization: float = 0.9
    swap_space: float = 0.0
    num_gpu_blocks_override: int | None = None
    enable_prefix_caching: bool = True
    prefix_cache_dir: str | None = None
    prefix_cache_dir_bytes: int = 16 << 30
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    seed: int = 0
    num_threads: int | None = None
    tensor_parallel_size: int | None = None
    tp_invariant: bool = False
    data_parallel_size: int = 1
    skip_tokenizer_init: bool = False
    generation_config: Literal["auto", "vllm"] = "auto"
    override_generation_config: str | Mapping[str, float] | None = None
    hf_overrides: Mapping[str, Any] | None = None
    mm_processor_kwargs: Mapping[str, Any] | None = None
    mmproj: str | None = None
    structured_outputs_backend: Literal["llguidance", "guidance", "xgrammar", "auto"] = "llguidance"
    speculative_config: SpeculativeConfig | None = None
    enable_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16
    limit_mm_per_prompt: MediaLimits = MediaLimits()  # noqa: RUF009  # it is frozen
    allowed_local_media_path: str | None = None
    allowed_media_domains: tuple[str, ...] = ()
    max_logprobs: int = 20
    verify_hashes: bool = False
    pin_numerics: bool = False
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("device", self.device, ("auto", "cpu", "cuda"))
        _check_choice("scheduling_policy", self.scheduling_policy, ("fcfs", "priority"))
        _check_choice("generation_config", self.generation_config, ("auto", "vllm"))
        object.__setattr__(self, "override_generation_config", _sampling(self.override_generation_config))
        for name, example in _OVERRIDES.items():
            object.__setattr__(self, name, _overrides(name, getattr(self, name), example))
        for name in ("model", "tokenizer", "mmproj", "allowed_local_media_path", "prefix_cache_dir"):
            object.__setattr__(self, name, _place(name, getattr(self, name)))
        _check_shared(self)
        object.__setattr__(self, "structured_outputs_backend", _backend(self.structured_outputs_backend))
        for name in _FLAGS:
            _flag(name, getattr(self, name))
        if type(self.block_size) is not int or self.block_size not in BLOCK_SIZES:
            raise ConfigError(f"block_size={short(self.block_size)} is not supported; choose one of {BLOCK_SIZES}")
        _at_least("seed", self.seed, -MAX_NUMBER - 1)
        if self.max_model_len == -1:
            object.__setattr__(self, "max_model_len", None)
        for name in (*_LIMITS, "kv_cache_memory_bytes", "num_gpu_blocks_override", "tensor_parallel_size"):
            _at_least_if_given(name, getattr(self, name), 1)
        _at_least_if_given("target_itl_ms", self.target_itl_ms, 0)
        _at_least_if_given("num_threads", self.num_threads, 1, MAX_THREADS)
        _at_least("data_parallel_size", self.data_parallel_size, 1, MAX_ENGINES)
        _at_least("prefix_cache_dir_bytes", self.prefix_cache_dir_bytes, 1)
        _at_least("max_logprobs", self.max_logprobs, -1)
        object.__setattr__(self, "speculative_config", SpeculativeConfig.of(self.speculative_config))
        object.__setattr__(self, "limit_mm_per_prompt", MediaLimits.of(self.limit_mm_per_prompt))
        object.__setattr__(self, "allowed_media_domains", _names("allowed_media_domains", self.allowed_media_domains))
        _check_swap_space(self.swap_space, self.device)
        _check_lora(self)
        value = self.memory_utilization
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 < value <= 1.0:
            raise ConfigError(f"memory_utilization={short(value)} is outside (0, 1]")

    @property
    def step_limits(self) -> StepLimits:
        """Most sequences and tokens of a step, as asked for or as the profile has them for the device."""
        return resolve(
            self.profile,
            self.max_num_seqs,
            self.max_num_batched_tokens,
            self.target_itl_ms,
            is_gpu=self.device == "cuda",
        )

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> EngineConfig:
        """Build from user keywords; gpu_memory_utilization is an alias of memory_utilization. None is what is not said,
        and so are arguments of vLLM's that ask for what is so anyway, or for nothing.

        Raises: ConfigError naming an unknown key and the nearest known one, or what vLLM's is here.
        """
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        if "gpu_memory_utilization" in kwargs:
            if "memory_utilization" in kwargs:
                raise ConfigError("memory_utilization and its alias gpu_memory_utilization are both given; keep one")
            kwargs["memory_utilization"] = kwargs.pop("gpu_memory_utilization")
        known = [f.name for f in fields(cls)]
        for key in [key for key in kwargs if key not in known]:
            said = argument_words(key, kwargs[key])
            if said:
                raise ConfigError(said)
            if said is None:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
                raise ConfigError(f"unknown setting {key!r}{hint}")
            del kwargs[key]
        return cls(**{key: plain_number(value) for key, value in kwargs.items()})


class EngineArgs(EngineConfig):
    """EngineConfig by vLLM's name, of arguments as LLM takes them. vars() and asdict() of it are such arguments."""

    def __init__(self, model: str | None = None, **kwargs: Any) -> None:
        """Raises: as EngineConfig.from_kwargs()."""
        vars(self).update(vars(EngineConfig.from_kwargs(model=model, **kwargs)))

    def __setattr__(self, name: str, value: Any) -> None:
        """As vLLM's may be changed before they are used. Raises: as EngineConfig.from_kwargs()."""
        own = name.removeprefix("gpu_") if name == "gpu_memory_utilization" else name
        self.__init__(**vars(self) | {own: value})  # type: ignore[misc]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """How to build an engine directory.

    Fields:
        dtype: compute type; auto takes the checkpoint's. An engine directory runs in this type only.
        quantization, quantization_head: hold weights in few bits, as in EngineConfig; a directory runs so only.
        hf_overrides, mm_processor_kwargs: what files are to say in place of what they do, as in EngineConfig; a
            directory runs so only.
        mmproj: file that a model in a GGUF file sees and hears with, as in EngineConfig; a directory runs so only.
        kv_cache_dtype: type of the KV cache where the directory is run, unless another is asked for there: bf16, f16,
            f32, int8 or fp8; auto: the compute type.
        max_model_len: longest sequence in tokens; None: the model's. It is the default where the directory is run.
        target: ISA level to choose kernels for: native (this machine's best), amx, avx512bf16, avx512vnni, avx512,
            avxvnni, avx2 or scalar, on Arm neonmm, neondot, neon or scalar; or cuda, or cuda:90 and the like, for an
            NVIDIA GPU, where its kernels are compiled.
        profile: temperament the directory has where it is run: balanced, throughput or latency.
        max_num_seqs, max_num_batched_tokens: the step that program.json and report.md are written for; None: the
            profile's. Memory is planned again for what is asked for where the directory is run.
        tensor_parallel_size: ranks that compute the model together. A directory runs on as many only.
        tp_invariant: add the sums that ranks share in the order of several also when there is one, which then computes
            the same bits as they do.
        without: compiler passes to leave out, by name, to measure what they are worth.
        force: replace an engine directory that is already there.

    Raises: ConfigError naming the field, the value and what is allowed.
    """

    dtype: str = "auto"
    quantization: str | None = None
    quantization_head: str | None = None
    hf_overrides: Mapping[str, Any] | None = None
    mm_processor_kwargs: Mapping[str, Any] | None = None
    mmproj: str | None = None
    kv_cache_dtype: str = "auto"
    max_model_len: int | None = None
    target: str = "native"
    profile: Profile = DEFAULT
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    tensor_parallel_size: int = 1
    tp_invariant: bool = False
    without: tuple[str, ...] = ()
    force: bool = False

    def __post_init__(self) -> None:
        _check_shared(self)
        _flag("force", self.force)
        for name, example in _OVERRIDES.items():
            object.__setattr__(self, name, _overrides(name, getattr(self, name), example))
        if not isinstance(self.target, str):
            raise ConfigError(
                f"target={short(self.target)} is not allowed; it must be the name of an ISA level, or cuda"
            )
        for name in _LIMITS:
            _at_least_if_given(name, getattr(self, name), 1)
        _at_least("tensor_parallel_size", self.tensor_parallel_size, 1)


def _check_shared(config: EngineConfig | BuildConfig) -> None:
    """What both kinds of configuration have."""
    if config.profile is not None:
        _check_choice("profile", config.profile, tuple(PROFILES))
    # A torch.dtype will do, as in vLLM; its text is its name.
    dtype = config.dtype if isinstance(config.dtype, str) else short(config.dtype)
    if not isinstance(config.dtype, str) and not dtype.startswith("torch."):
        raise ConfigError(f"dtype={dtype} is not allowed; it must be a name, such as 'bfloat16'")
    object.__setattr__(config, "dtype", dtype)
    for name in ("quantization", "quantization_head"):
        value = getattr(config, name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{name}={short(value)} is not allowed; it must be a name, such as 'int8'")
    _flag("tp_invariant", config.tp_invariant)
    object.__setattr__(config, "kv_cache_dtype", kv_cache_dtype(config.kv_cache_dtype) or "auto")
    object.__setattr__(config, "without", _names("without", config.without))


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}={short(value)} is unknown; choose {', '.join(choices[:-1])} or {choices[-1]}")


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={short(value)} is not allowed; it must be True or False")


def _place(name: str, value: Any) -> str | None:
    """A directory or a name as text; a path may be given as such."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if text is not None and not isinstance(text, str):
        raise ConfigError(f"{name}={short(value)} is not allowed; it must be a directory or a name")
    return text


def _check_swap_space(value: Any, device: str) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 <= value < float("inf"):
        raise ConfigError(f"swap_space={value!r} is not allowed; it must be a number of GiB of at least 0")
    if value and device == "cpu":
        raise ConfigError(
            f"swap_space={value:g}: on the CPU the KV cache is in host memory already, there is no other to swap to; "
            "leave it out, and raise kv_cache_memory_bytes to give the cache more"
        )


def _check_lora(config: EngineConfig) -> None:
    _at_least("max_loras", config.max_loras, 1, MAX_LORAS)
    _at_least("max_lora_rank", config.max_lora_rank, 1, MAX_LORA_RANK)
    if not config.enable_lora:
        return
    if config.data_parallel_size > 1:
        raise ConfigError(
            f"enable_lora: one engine has adapters, not data_parallel_size={config.data_parallel_size} of them; leave "
            "one of the two out"
        )


def _sampling(given: Any) -> dict[str, float] | None:
    """Sampling parameters by generation_config.json's names. Raises: ConfigError."""
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        found = given
    if found is None:
        return None
    unknown = [name for name in found if name not in GENERATION_NAMES] if isinstance(found, Mapping) else [given]
    if unknown:
        raise ConfigError(
            f"override_generation_config has {short(unknown[0])}; it must be an object of {', '.join(GENERATION_NAMES)}"
        )
    try:
        SamplingParams(**{GENERATION_NAMES[name]: value for name, value in found.items()})
    except InvalidParams as error:
        raise ConfigError(f"override_generation_config: {error}") from None
    return dict(found)


#: What files are to say -> an example.
_OVERRIDES = {"hf_overrides": '{"rope_theta": 1000000.0}', "mm_processor_kwargs": '{"max_pixels": 501760}'}


def _overrides(name: str, given: Any, example: str) -> dict[str, Any] | None:
    """What a file is to say, as JSON has it. Raises: ConfigError."""
    try:
        found = json.loads(json.dumps(json.loads(given) if isinstance(given, str) else given, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        found = False
    if found is not None and not isinstance(found, dict):
        raise ConfigError(
            f"{name}={short(given)} is not allowed; it must be an object of what the model's files are to say, as "
            f"{example}"
        )
    return found or None


def _backend(given: Any) -> str:
    try:
        return backend_name("structured_outputs_backend", given) or BACKENDS[0]
    except InvalidParams as error:
        raise ConfigError(str(error)) from None


def _names(name: str, given: Any) -> tuple[str, ...]:
    """Names from one string with commas, or from several such; each once, in order."""
    texts = (given,) if isinstance(given, str) else given
    if not isinstance(texts, (tuple, list)) or not all(isinstance(text, str) for text in texts):
        wanted = "compiler passes" if name == "without" else "hosts"
        raise ConfigError(f"{name}={short(given)} is not allowed; it must be names of {wanted}")
    return tuple(dict.fromkeys(each for text in texts for part in text.split(",") if (each := part.strip())))


def _at_least_if_given(name: str, value: Any, low: int, high: int = MAX_NUMBER) -> None:
    if value is not None:
        _at_least(name, value, low, high)


def _at_least(name: str, value: Any, low: int, high: int = MAX_NUMBER) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        limits = f"of at least {low}" + (f" and at most {high}" if high < MAX_NUMBER else ", in 64 bits")
        raise ConfigError(f"{name}={short(value)} is not allowed; it must be a whole number {limits}")
