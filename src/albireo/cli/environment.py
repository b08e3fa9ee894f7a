"""Variables that users of other servers set: what is said of each where `albireo serve` starts.

Used by serve.py. Keys that others read from the environment are read from there, too: a server that was behind a key is
not to be open because its command has changed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping

#: Holds a key -> whose it is.
_KEYS = {"VLLM_API_KEY": "vLLM's", "LLAMA_API_KEY": "llama.cpp's"}
#: Name -> what says it here.
_CALLED = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "--enable-lora allows it",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "--max-model-len with --hf-overrides says it",
    "VLLM_ATTENTION_BACKEND": "kernels are chosen for this machine",
    "VLLM_AUDIO_FETCH_TIMEOUT": "--request-timeout bounds all of a request",
    "VLLM_CACHE_ROOT": "XDG_CACHE_HOME says it",
    "VLLM_CPU_KVCACHE_SPACE": "--kv-cache-memory-bytes says it",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "--num-threads says it",
    "VLLM_CPU_OMP_THREADS_BIND": "--num-threads, or taskset in front of the command, says it",
    "VLLM_ENABLE_RESPONSES_API_STORE": "responses are stored unless a request says otherwise",
    "VLLM_IMAGE_FETCH_TIMEOUT": "--request-timeout bounds all of a request",
    "VLLM_LOGGING_CONFIG_PATH": "the log is lines of JSON on stderr",
    "VLLM_LOGGING_LEVEL": "--no-log-requests leaves out the lines of requests",
    "VLLM_MAX_N_SEQUENCES": "--max-n says it",
    "VLLM_MAX_STOP_STRINGS": "--max-stop says it",
    "VLLM_MAX_AUDIO_DECODE_DURATION_S": "--max-audio-seconds says it",
    "VLLM_PLUGINS": "there are none",
    "VLLM_SERVER_DEV_MODE": "its routes (/sleep, /wake_up, /reset_prefix_cache) are always there",
    "VLLM_SKIP_MODEL_NAME_VALIDATION": "--served-model-name gives the model several names",
    "VLLM_TARGET_DEVICE": "--device says it",
    "VLLM_USE_MODELSCOPE": "models are directories, files, or of Hugging Face's hub",
    "OLLAMA_CONTEXT_LENGTH": "--max-model-len says it",
    "OLLAMA_KEEP_ALIVE": "--sleep-after says it",
    "OLLAMA_KV_CACHE_TYPE": "--kv-cache-dtype says it",
    "OLLAMA_MAX_LOADED_MODELS": "--max-awake-models says it",
    "OLLAMA_MAX_QUEUE": "--max-num-queued-requests says it",
    "OLLAMA_NUM_PARALLEL": "--max-num-seqs says it",
    "OLLAMA_ORIGINS": "--allowed-origins says it",
    "LLAMA_ARG_CTX_SIZE": "--max-model-len says it",
    "LLAMA_ARG_HOST": "--host says it",
    "LLAMA_ARG_MODEL": "the argument says it: albireo serve MODEL",
    "LLAMA_ARG_N_PARALLEL": "--max-num-seqs says it",
    "LLAMA_ARG_PORT": "--port says it",
    "LLAMA_ARG_THREADS": "--num-threads says it",
}


def keys_of(environ: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """The keys that others would ask for, with the name of their variable: llama.cpp's may hold several, as a line of
    CSV. None: there are none."""
    for name in _KEYS:
        text = environ.get(name, "")
        keys = [text] if name != "LLAMA_API_KEY" else [key for row in csv.reader([text]) for key in row]
        if found := [key for key in keys if key]:
            return name, found
    return None


def notes(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each that is set, and is not read here. What others set that is not in the table is not spoken of:
    most of it is about kernels."""
    for name, said in _CALLED.items():
        if environ.get(name):
            yield f"{name} is set, and is not read here: {said}"
