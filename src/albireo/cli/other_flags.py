"""Flags of other servers than vLLM: what ours is called, or why none is needed.

Used by served.py, behind vllm_flags.py. Facts about llama.cpp's server, SGLang and text-generation-inference (TGI), of
their flags that say what a user means; docs/migrating.md has them as tables. Does not know what our flags do.
"""

from __future__ import annotations

_LLAMA, _SGLANG, _TGI = "llama.cpp's", "SGLang's", "TGI's"
#: Begins what has no flag here.
_OUT = "leave it out: "
_ALWAYS = f"{_OUT}it is always so"
_MODEL = "the argument: albireo serve MODEL"
_DRAFT = "--speculative-config '{\"model\": …}'"
#: Flags -> whose they are, and what it is here.
_CALLED = {
    ("-m",): (_LLAMA, _MODEL),
    ("-hf", "-hfr", "--hf-repo"): (_LLAMA, "the argument: download the file, and give its path"),
    ("-c", "--ctx-size"): (_LLAMA, "--max-model-len, of one request"),
    ("-np", "--parallel"): (_LLAMA, "--max-num-seqs"),
    ("-t", "--threads", "-tb", "--threads-batch"): (_LLAMA, "--num-threads"),
    ("-b", "--batch-size", "-ub"): (_LLAMA, "--max-num-batched-tokens, or --profile"),
    ("-ngl", "--gpu-layers", "--n-gpu-layers"): (_LLAMA, "--device cuda, of all layers, or --device cpu"),
    ("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"): (_LLAMA, "--kv-cache-dtype int8 or fp8, of both"),
    ("-fa", "--flash-attn", "-cb", "--cont-batching", "--jinja", "--metrics", "--slots"): (_LLAMA, _ALWAYS),
    ("--embedding", "--embeddings", "--reranking", "--rerank", "--props"): (_LLAMA, _ALWAYS),
    ("--slot-save-path",): (_LLAMA, "--prefix-cache-dir"),
    ("--lora",): (_LLAMA, "--enable-lora --lora-modules NAME=FILE"),
    ("-md", "--model-draft"): (_LLAMA, _DRAFT),
    ("-a", "--alias"): (_LLAMA, "--served-model-name"),
    ("--chat-template-file",): (_LLAMA, "--chat-template FILE"),
    ("--chat-template-kwargs",): (_LLAMA, "--default-chat-template-kwargs"),
    ("--api-key-file",): (_LLAMA, "--api-key @FILE"),
    ("-to", "--timeout"): (_LLAMA, "--request-timeout"),
    ("--temp", "--top-k", "--top-p", "--min-p", "--repeat-penalty"): (_LLAMA, "--override-generation-config '{…}'"),
    ("--mlock", "--no-mmap", "--numa"): (_LLAMA, f"{_OUT}weights are packed into memory that is placed by node"),
    ("--model-path",): (_SGLANG, _MODEL),
    ("--context-length",): (_SGLANG, "--max-model-len"),
    ("--mem-fraction-static",): (_SGLANG, "--gpu-memory-utilization"),
    ("--max-running-requests",): (_SGLANG, "--max-num-seqs"),
    ("--chunked-prefill-size", "--max-prefill-tokens"): (_SGLANG, "--max-num-batched-tokens, or --profile"),
    ("--tp-size",): (_SGLANG, "-tp"),
    ("--dp-size",): (_SGLANG, "-dp"),
    ("--schedule-policy",): (_SGLANG, "--scheduling-policy; prefixes are always shared"),
    ("--grammar-backend",): (_SGLANG, "--structured-outputs-backend"),
    ("--speculative-algorithm", "--speculative-draft-model-path"): (_SGLANG, _DRAFT),
    ("--lora-paths",): (_SGLANG, "--enable-lora --lora-modules NAME=PATH"),
    ("--random-seed",): (_SGLANG, "--seed"),
    ("--enable-metrics", "--enable-cache-report"): (_SGLANG, _ALWAYS),
    ("--model-id",): (_TGI, _MODEL),
    ("--max-total-tokens", "--max-input-tokens"): (_TGI, "--max-model-len"),
    ("--cuda-memory-fraction",): (_TGI, "--gpu-memory-utilization"),
    ("--max-concurrent-requests",): (_TGI, "--max-num-seqs, and --max-num-queued-requests of those that wait"),
    ("--max-batch-prefill-tokens",): (_TGI, "--max-num-batched-tokens, or --profile"),
    ("--num-shard",): (_TGI, "-tp"),
    ("--quantize",): (_TGI, "--quantization"),
    ("--lora-adapters",): (_TGI, "--enable-lora --lora-modules NAME=PATH"),
}  # fmt: skip
_WORDS = {
    flag: f"{flag} is {whose}; {said if said.startswith(_OUT) else f'here it is {said}'}"
    for flags, (whose, said) in _CALLED.items()
    for flag in flags
}


def other_words(flag: str) -> str | None:
    """What is said of a flag of theirs; None: it is not one of these."""
    return _WORDS.get(flag)


def all_others() -> tuple[str, ...]:
    """All that something is said of."""
    return tuple(_WORDS)
