"""Flags of `vllm serve`, and arguments of vLLM's LLM, that are none here, and what is said of each: what ours is
called, or why none is needed.

Used by commands, and by EngineConfig. Facts about vLLM 0.10 to 0.32; does not know what our flags do.
"""

from __future__ import annotations

import re
from typing import Any

#: Flag -> ours.
_CALLED = {
    "--disable-access-log-for-endpoints": "--no-log-requests, or nothing: probes are left out while all is well",
    "--disable-log-requests": "--no-log-requests",
    "--disable-uvicorn-access-log": "--no-log-requests",
    "--response-role": "--chat-template FILE, which says how answers begin",
    "--guided-decoding-backend-config": "--structured-outputs-backend",
    "--structured-outputs-config": "--structured-outputs-backend",
    "--pooler-config": "--pooling-type, or the fields of a request",
    "--override-pooler-config": "--pooling-type, or the fields of a request",
    "--speculative-model": "--speculative-config",
    "--num-speculative-tokens": "--speculative-config",
    "--kv-offloading-size": "--swap-space (preempted sequences), or --prefix-cache-dir (prefixes in files)",
    "--kv-transfer-config": "--prefix-cache-dir, which engines on one machine may share",
    "--mamba-cache-dtype": "--kv-cache-dtype; states keep their own type",
    "--optimization-level": "--profile, which is about the length of steps; kernels are chosen for this machine",
    "--performance-mode": "--profile latency, balanced or throughput",
    "--cpu-offload-gb": "--quantization, to need less memory",
    "--max-log-len": "--no-log-requests; no text of requests is logged",
    "--collect-detailed-traces": "--otlp-endpoint; where the time of a request went is in /v1/requests/{id}/explain",
    "--ssl-ca-certs": "a proxy in front; clients are known by --api-key",
    "--ssl-cert-reqs": "a proxy in front; clients are known by --api-key",
    "--data-parallel-backend": "--distributed-executor-backend",
    "-n": "--distributed-executor-backend ray with -dp",
    "-r": "--distributed-executor-backend ray with -dp",
    "-dpa": "--distributed-executor-backend ray with -dp",
    "-dpb": "--distributed-executor-backend",
    "-dpl": "--distributed-executor-backend ray with -dp",
    "-dpp": "--distributed-executor-backend ray with -dp",
    "--nnodes": "--distributed-executor-backend ray with -dp",
    "--node-rank": "--distributed-executor-backend ray with -dp",
    "--master-addr": "--distributed-executor-backend ray with -dp",
    "--master-port": "--distributed-executor-backend ray with -dp",
    "--data-parallel-address": "--distributed-executor-backend ray with -dp",
    "--data-parallel-rpc-port": "--distributed-executor-backend ray with -dp",
    "--data-parallel-size-local": "--distributed-executor-backend ray with -dp",
    "--headless": "--distributed-executor-backend ray with -dp",
    "--model": "the argument: albireo serve MODEL",
    "--revision": "the argument: download that revision first, and give its directory",
    "--tokenizer-revision": "--tokenizer DIRECTORY",
    "--download-dir": "the cache of the hub (HF_HOME), or the argument: a directory",
    "--rope-scaling": "--hf-overrides '{\"rope_scaling\": {…}}'",
    "--rope-theta": "--hf-overrides '{\"rope_theta\": …}'",
    "--return-tokens-as-token-ids": "return_tokens_as_token_ids of a request",
    "--stream-interval": "stream_interval of a request",
    "--language-model-only": "--limit-mm-per-prompt '{\"image\": 0, \"audio\": 0}'",
    "--hf-token": "the environment: HF_TOKEN",
    "--hf-config-path": "--hf-overrides, or a directory with that config.json",
    "--code-revision": "the argument: download that revision first, and give its directory",
    "--kv-offloading-backend": "--swap-space (preempted sequences), or --prefix-cache-dir (prefixes in files)",
    "--default-mm-loras": "the name of an adapter as a request's model; --lora-modules",
    "--long-prefill-token-threshold": "--target-itl-ms; short prompts pass long ones anyway",
    "--ssl-keyfile-password": "--ssl-keyfile FILE, without a password",
    "--h11-max-incomplete-event-size": "--max-body-bytes; headers have 64 KiB",
    "--media-io-kwargs": "--limit-mm-per-prompt, or videos_kwargs of --mm-processor-kwargs (fps, max_frames)",
    "--config": "flags on the command line",
    "--spec-method": "--speculative-config",
    "--spec-model": "--speculative-config",
    "--spec-tokens": "--speculative-config",
    "-sc": "--speculative-config",
    "-q": "--quantization",
    "--max-num-queued-reqs": "--max-num-queued-requests",
    "--max-num-active-seqs": "--max-num-seqs",
    "--max-num-scheduled-tokens": "--max-num-batched-tokens",
    "--device-memory-utilization": "--gpu-memory-utilization",
    "--device-ids": "the environment: CUDA_VISIBLE_DEVICES",
    "--enable-per-request-metrics": "return_timings of a request, or /v1/requests/{id}/explain",
    "--per-request-spec-decode-metrics": "/metrics, with --speculative-config",
    "--log-level": "--no-log-requests; what goes wrong is always logged",
    "--logging-config": "--no-log-requests; what goes wrong is always logged",
    "--numa-bind": "numactl in front of the command, or --num-threads",
    "--numa-bind-nodes": "numactl in front of the command, or --num-threads",
    "--numa-bind-cpus": "taskset in front of the command, or --num-threads",
    "--offload-backend": "--quantization, to need less memory",
    "--kv-cache-metrics": "GET /v1/stats, which has the blocks",
    "--quantization-config": "--quantization, or a directory that albireo quantize wrote",
    "--sleep-preserve-parameter-names": "POST /sleep, which gives all memory back",
    "--watermark": "nothing: what is written has no mark",
    "--enable-offline-docs": "GET /docs, which fetches nothing",
    "--ssl-ciphers": "a proxy in front, or the system's OpenSSL",
    "--kv-cache-dtype-skip-layers": "--kv-cache-dtype, of all layers",
    "--prefix-cache-retention-interval": "--prefix-cache-dir, which keeps prefixes in files",
    "--trust-request-mm-kwargs": "--mm-processor-kwargs, of all requests",
}  # fmt: skip
#: Switch that asks for what is so anyway -> why. Such a one is taken, and a line says so.
HONOURED = {
    "--trust-remote-code": "nothing of a model's directory is ever run",
    "--no-trust-remote-code": "nothing of a model's directory is ever run",
    "--enable-auto-tool-choice": "tools are offered whenever a request has some; --tool-call-parser names the format",
    "--enable-chunked-prefill": "prompts are always computed in chunks, beside answers",
    "--enable-log-requests": "it is on; --no-log-requests turns it off",
    "--enable-prompt-tokens-details": "usage always has cached_tokens",
    "--enable-request-id-headers": "answers always have x-request-id",
    "--enable-server-load-tracking": "GET /load is always there",
    "--enable-scale-out": "its routes (/v1/…/render, /inference/v1/generate) are always there, but for /derender",
    "--enable-ssl-refresh": "a certificate is read again when its files are others",
    "--enable-sleep-mode": "POST /sleep is always there; --sleep-after does it by itself",
    "--enable-reasoning": "it is found in the chat template; --reasoning-parser names another",
    "--async-scheduling": "steps are prepared while others run wherever the device gains by it",
    "--skip-mm-profiling": "memory is planned, not measured",
    "--disable-custom-all-reduce": "there is nothing of that kind to turn off",
    "--disable-log-stats": "nothing of that kind is logged; /metrics has it",
    "--disable-cascade-attn": "there is none, and bits do not depend on what is shared",
    "--disable-mm-preprocessor-cache": "there is none; prefixes with pictures are cached with all others",
}  # fmt: skip
#: Flag -> why there is nothing to say.
_ALWAYS = {
    "--no-enable-chunked-prefill": "prompts are computed in chunks, beside answers; none is held up by another",
    "--no-async-scheduling": "bits are the same either way",
    "--disable-async-output-proc": "outputs are made in another process",
    "--disable-frontend-multiprocessing": "the server and its engine are two processes",
    "--api-server-count": "one process answers; the engine has its own",
    "--max-seq-len-to-capture": "lengths are chosen by themselves",
    "--cuda-graph-sizes": "sizes are chosen by themselves; --enforce-eager records none",
    "--cudagraph-capture-sizes": "sizes are chosen by themselves; --enforce-eager records none",
    "--compilation-config": "a model is compiled for this machine; --enforce-eager records no graphs",
    "--attention-backend": "kernels are chosen for this machine",
    "--load-format": "it is found in the files",
    "--config-format": "it is found in the files",
    "--tokenizer-mode": "it is found in the files",
    "--chat-template-content-format": "it is found in the template",
    "--runner": "it is found in the model's files; embeddings are had of any model",
    "--task": "it is found in the model's files; embeddings are had of any model",
    "--convert": "embeddings are had of any model",
    "--model-impl": "there is one",
    "--max-parallel-loading-workers": "weights are read as fast as the disk gives them",
    "--use-tqdm-on-load": "/health has the progress",
    "--calculate-kv-scales": "a scale is kept for each head of each position",
    "--prefix-caching-hash-algo": "it is SHA-256",
    "--mm-processor-cache-gb": "there is none to bound; prefixes with pictures are cached with all others",
    "--disable-hybrid-kv-cache-manager": "layers with windows and states have blocks of their own wherever it is less",
    "--max-num-partial-prefills": "as many prompts share a step as fit its tokens; short ones pass long ones",
    "--max-long-partial-prefills": "as many prompts share a step as fit its tokens",
    "--model-loader-extra-config": "weights are read as fast as the disk gives them",
    "--safetensors-load-strategy": "weights are read as fast as the disk gives them",
    "--ignore-patterns": "of a hub only weights in safetensors, settings and tokenizers are fetched",
    "--disable-sliding-window": "windows are computed as the model has them",
    "--lora-dtype": "adapters are float32 in their slots",
    "--mm-processor-cache-type": "there is none; prefixes with pictures are cached with all others",
    "--mm-shm-cache-max-object-size-mb": "there is none; prefixes with pictures are cached with all others",
    "--h11-max-header-count": "200 headers are read",
    "--max-context-len-to-capture": "lengths are chosen by themselves",
    "--generation-tokens-only": "ask with token ids and return_token_ids",
    "--logits-processor-pattern": "requests bring no code",
    "--enable-expert-parallel": "experts are shared among ranks by -tp",
    "--disable-fastapi-docs": "/docs fetches nothing, and has no data",
    "--show-hidden-metrics-for-version": "no metric is hidden",
    "--skip-tokenizer-init": "ask with token ids and return_token_ids; texts are known beside",
    "--attention-config": "kernels are chosen for this machine",
    "-ac": "kernels are chosen for this machine",
    "-cc": "a model is compiled for this machine; --enforce-eager records no graphs",
    "-asc": "one process answers; the engine has its own",
    "-ep": "experts are shared among ranks by -tp",
    "--kernel-config": "kernels are chosen for this machine",
    "--moe-backend": "kernels are chosen for this machine",
    "--linear-backend": "kernels are chosen for this machine",
    "--mamba-backend": "kernels are chosen for this machine",
    "--gdn-prefill-backend": "kernels are chosen for this machine",
    "--kda-prefill-backend": "kernels are chosen for this machine",
    "--kda-decode-backend": "kernels are chosen for this machine",
    "--mm-encoder-attn-backend": "kernels are chosen for this machine",
    "--sparse-indexer-topk-backend": "kernels are chosen for this machine",
    "--all2all-backend": "experts are shared among ranks by -tp",
    "--expert-placement-strategy": "experts are shared among ranks by -tp",
    "--max-cudagraph-capture-size": "sizes are chosen by themselves; --enforce-eager records none",
    "--mamba-block-size": "states are kept at the ends of blocks",
    "--mamba-cache-mode": "states are cached with prefixes",
    "--mamba-ssm-cache-dtype": "states are float32",
    "--scheduler-reserve-full-isl": "a request that waits for blocks is preempted, and goes on with the same bits",
    "--renderer-num-workers": "texts are encoded beside the streams",
    "--distributed-timeout-seconds": "ranks on one machine wait for each other",
    "--cpu-distributed-timeout-seconds": "ranks on one machine wait for each other",
    "--safetensors-prefetch-num-threads": "weights are read as fast as the disk gives them",
    "--safetensors-prefetch-block-size": "weights are read as fast as the disk gives them",
    "--pt-load-map-location": "weights are read from safetensors and GGUF files",
    "--mm-hasher-algorithm": "it is SHA-256",
    "--tool-strict-level": "calls of tools with strict fit their schemas, others as tool_choice says",
    "--fail-on-environ-validation": "variables of others that are set are named at the start",
}  # fmt: skip
#: What there is not.
_NONE = (
    "--pipeline-parallel-size", "-pp", "--decode-context-parallel-size", "-dcp", "--enable-dbo", "--enable-eplb",
    "--middleware", "--tool-parser-plugin", "--reasoning-parser-plugin", "--logits-processors",
    "--io-processor-plugin", "--tool-server", "--enable-prompt-embeds", "--enable-mm-embeds", "--worker-cls",
    "--worker-extension-cls", "--scheduler-cls", "--kv-events-config", "--data-parallel-rank",
    "--data-parallel-external-lb", "--data-parallel-hybrid-lb", "--fully-sharded-loras", "--lora-extra-vocab-size",
    "--max-cpu-loras", "--logprobs-mode", "--allow-credentials", "--log-config-file", "--uvicorn-log-level",
    "--video-pruning-rate", "--allowed-headers", "--allowed-methods", "--enable-log-outputs",
    "--additional-config", "--ec-transfer-config", "--data-parallel-start-rank", "--grpc", "--tokens-only",
    "--exclude-tools-when-tool-choice-none", "--kv-sharing-fast-prefill", "--interleave-mm-strings",
    "--override-attention-dtype", "--prefill-context-parallel-size", "-pcp", "-dpn", "-dpr", "-dph", "-dpe", "-dpm",
    "-dc", "--data-parallel-multi-port-external-lb", "--diffusion-config", "--weight-transfer-config",
    "--profiler-config", "--enable-elastic-ep", "--elastic-ep-max-dp-size", "--enable-fault-tolerance",
    "--fault-tolerance-config", "--enable-return-routed-experts", "--return-sampling-mask",
    "--enable-trace-replay", "--watermark-config", "--grpc-port", "--lora-target-modules",
    "--enable-tower-connector-lora", "--reasoning-config", "--specialize-active-lora", "--max-lora-cls-labels",
    "--eplb-config", "--enable-ep-weight-filter", "--ubatch-size", "--engram-config", "--ec-manager-config",
    "--enable-mfu-metrics", "--custom-histogram-buckets", "--fingerprint-mode", "--fingerprint-value",
    "--enable-layerwise-nvtx-tracing", "--ray-workers-use-nsight", "--mm-encoder-only", "--video-pruning-method",
    "--model-class-overrides", "--cohere-format", "--cohere-is-reasoning-model",
    "--anthropic-disabled-thinking-effort", "--mm-encoder-tp-mode", "--log-error-stack", "--disable-chunked-mm-input",
)  # fmt: skip

#: What says how vLLM computes, or how its parts find each other.
_INSIDE = (
    "--aggregate-engine-logging", "--allow-deprecated-quantization", "--aux-output-config",
    "--cp-kv-cache-interleave-size", "--cpu-offload-params", "--cudagraph-metrics", "--data-parallel-supervisor-port",
    "--dbo-decode-token-threshold", "--dbo-prefill-token-threshold", "--dcp-comm-backend",
    "--dcp-kv-cache-interleave-size", "--dcp-q-replicate", "--disable-nccl-for-dp-synchronization",
    "--dp-supervisor-probe-failure-threshold", "--dp-supervisor-probe-interval-s", "--dp-supervisor-probe-timeout-s",
    "--dp-sync-interval", "--enable-batch-sharded-sampling", "--enable-cumem-allocator",
    "--enable-flash-late-interaction", "--enable-flashinfer-autotune", "--enable-hc-sp", "--enable-log-deltas",
    "--enable-logging-iteration-details", "--enable-mamba-cache-stochastic-rounding",
    "--enable-mamba-shared-prefix-checkpoint", "--enable-mixed-moe-lora-format", "--enable-moe-shared-loras",
    "--enable-nccl-comm-suspend", "--enable-shm-tensor-arena", "--ir-op-priority", "--jit-monitor-mode",
    "--jit-monitor-verbose", "--kv-cache-metrics-sample", "--long-prefill-token-threshold-adaptive",
    "--mamba-cache-philox-rounds", "--mamba-ssu-algorithm", "--mm-device-do-normalize", "--mm-encoder-attn-dtype",
    "--mm-encoder-fp8-scale-path", "--mm-encoder-fp8-scale-save-margin", "--mm-encoder-fp8-scale-save-path",
    "--mm-ipc-gpu-memory-gb", "--mm-processor-device", "--mm-tensor-ipc", "--offload-group-size",
    "--offload-num-in-group", "--offload-params", "--offload-prefetch-step", "--prefill-schedule-interval",
    "--prefix-match-unit", "--replayssm-buffer-len", "--sleep-mode-offload-cudagraph", "--swa-bounded-replay",
    "--use-fp64-gumbel", "--use-replayssm",
)  # fmt: skip

#: Flag -> values that ask for what is so anyway, or for what is found in the files; taken as switches are.
_SO_ANYWAY = {
    "--runner": ("auto", "generate", "pooling"),
    "--task": ("auto", "generate", "embed", "embedding", "classify", "score", "reward"),
    "--convert": ("auto", "none", "embed"),
    "--tokenizer-mode": ("auto", "hf"),
    "--load-format": ("auto", "safetensors"),
    "--config-format": ("auto", "hf"),
    "--model-impl": ("auto", "vllm"),
    "--chat-template-content-format": ("auto",),
    "--pipeline-parallel-size": ("1",),
    "-pp": ("1",),
    "--decode-context-parallel-size": ("1",),
    "-dcp": ("1",),
    "--nnodes": ("1",),
    "--node-rank": ("0",),
    "--api-server-count": ("1",),
    "-asc": ("1",),
    "--data-parallel-backend": ("mp",),
    "--cpu-offload-gb": ("0", "0.0"),
    "--revision": ("main",),
    "--tokenizer-revision": ("main",),
    "--code-revision": ("main",),
    "--logprobs-mode": ("raw_logprobs",),
    "--mm-processor-cache-gb": ("0", "4", "4.0"),
    "--lora-dtype": ("auto",),
    "--mamba-cache-dtype": ("auto",),
    "--mamba-ssm-cache-dtype": ("auto", "float32"),
}
#: Arguments of LLM that are vLLM's flags in another place here, or none.
_ARGUMENTS = {
    "served_model_name": "names are what servers have: albireo serve --served-model-name",
    "distributed_executor_backend": "ranks are processes of this machine; albireo serve has ray",
    "reasoning_parser": "texts come whole; servers take thoughts out of them: albireo serve --reasoning-parser",
    "tool_call_parser": "texts come whole; servers take calls out of them: albireo serve --tool-call-parser",
    "otlp_traces_endpoint": "servers send traces: albireo serve --otlp-traces-endpoint",
    "pooler_config": "PoolingParams say it, of each call",
    "override_pooler_config": "PoolingParams say it, of each call",
    "guided_decoding_backend": "here it is structured_outputs_backend",
    "max_log_len": "nothing of a request is logged",
    "disable_log_requests": "nothing of a request is logged",
}
_ARGUMENTS_SO_ANYWAY = {"distributed_executor_backend": ("mp", "uni")}


def words(flag: str) -> str | None:
    """What is said of a flag of vLLM's; None: it is not one of these."""
    if flag in _CALLED:
        return f"{flag} is vLLM's; here it is {_CALLED[flag]}"
    if (why := HONOURED.get(flag)) is not None:
        return f"{flag} is not needed: {why}"
    if flag in _ALWAYS:
        return f"{flag} is not needed: {_ALWAYS[flag]}; leave it out"
    if flag in _INSIDE:
        return f"{flag} says how vLLM computes; leave it out"
    if flag in _NONE:
        return f"{flag} is vLLM's, and there is no such thing here; leave it out"
    why = HONOURED.get("--" + flag.removeprefix("--no-"))
    return None if why is None else f"{flag} is vLLM's, and is not taken here: {why}"


def turned_off(flag: str, ours: set[str]) -> str | None:
    """Why a switch with --no- in front asks for what is so anyway; None: it does not, or is not one of vLLM's.

    Args: ours: flags there are; one of them that is off unless it is given is off.
    """
    asked = "--" + flag.removeprefix("--no-")
    if not flag.startswith("--no-") or words(flag) is not None or flag in ours:
        return None
    if asked in ours:
        return f"{asked} is off unless it is given"
    return f"there is no {asked} here" if words(asked) is not None and asked not in HONOURED else None


def is_so_anyway(flag: str, value: str) -> bool:
    """Whether a flag with this value asks for what is so anyway."""
    return value.lower() in _SO_ANYWAY.get(flag, ())


def argument_words(name: str, value: Any) -> str | None:
    """What is said of an argument of vLLM's LLM; empty: it asks for nothing, or for what is so anyway; None: it is not
    one of vLLM's."""
    flag = "--" + name.replace("_", "-")
    why, off = _ARGUMENTS.get(name), "--no-" + flag.removeprefix("--")
    if why is None and words(flag) is None:
        return None
    if value is False and off in _ALWAYS:
        return _as_arguments(f"{name}=False is not taken: {_ALWAYS[off]}; leave it out")
    same = (*_ARGUMENTS_SO_ANYWAY.get(name, ()), *_SO_ANYWAY.get(flag, ()))
    if not value or (value is True and flag in HONOURED) or str(value).lower() in same:
        return ""
    return f"{name} is vLLM's: {why}" if why is not None else _as_arguments(words(flag) or "")


def _as_arguments(text: str) -> str:
    return re.sub(r"--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)", lambda found: found[1].replace("-", "_"), text)


def known() -> tuple[str, ...]:
    """All that something is said of."""
    return (*_CALLED, *HONOURED, *_ALWAYS, *_NONE, *_INSIDE)
