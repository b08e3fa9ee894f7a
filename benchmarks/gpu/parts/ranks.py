"""The bundled model on several GPUs, a process each: the bits of one GPU that adds in their order, recorded and not,
with a draft model and with an adapter; how fast a token is; and what becomes of a model whose rank is killed.

Where there is one GPU, or the native core is not built, the part is left out.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from report import Row
from setup import Setup, attempt

if TYPE_CHECKING:
    from albireo import LLM

#: Of the bundled model, which has four heads; more are for a model that is made for them.
SIZES = (2, 4)
_PROMPTS = ("Once upon a time", "The little dog", "One day, a girl named Lily found a needle in her room.")
_TOKENS, _TIMED = 60, 400
#: It is the model itself in 4 bits.
_DRAFTS = {"speculative_config": {"method": "draft_model", "quantization": "int4"}}
_LORA = {"enable_lora": True, "max_loras": 1, "max_lora_rank": 8}


def run(setup: Setup) -> Iterator[Row]:
    from albireo import LLM  # noqa: F401 - without the native core the part is left out
    from albireo.backends.cuda.device import num_gpus

    found = 0 if setup.is_dry else num_gpus()
    if found < 2:
        raise ImportError(f"ranks need two GPUs at least, {found} can be used here")
    wanted: list[Any] = []
    yield from attempt("one GPU", lambda: _alone(wanted))
    for size in (size for size in SIZES if size <= found):
        yield from attempt(f"{size} GPUs", lambda size=size: _together(size, wanted))
    yield from attempt("an adapter", _adapted)
    yield from attempt("a rank is killed", _killed)


def _open(size: int, **more: Any) -> LLM:
    from albireo import LLM

    order: dict[str, Any] = {"tp_invariant": True} if size == 1 else {"tensor_parallel_size": size}
    return LLM(device="cuda", max_num_seqs=8, gpu_memory_utilization=0.3, **order, **more)


def _told(llm: LLM, lora: Any = None) -> list[Any]:
    """Tokens, and the best log-probabilities of each, as they are."""
    from albireo import SamplingParams

    greedy = SamplingParams(temperature=0, max_tokens=_TOKENS, ignore_eos=True, logprobs=5)
    params = [greedy, greedy.clone(temperature=0.8, top_p=0.9, seed=3), greedy.clone(temperature=1.0, seed=4)]
    outputs = [output.outputs[0] for output in llm.generate(list(_PROMPTS), params, use_tqdm=False, lora_request=lora)]
    return [
        (list(one.token_ids), [{token: each.logprob for token, each in row.items()} for row in one.logprobs or ()])
        for one in outputs
    ]


def _speed(llm: LLM) -> float:
    """Tokens a second of one request."""
    from albireo import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=_TIMED, ignore_eos=True)
    llm.generate(_PROMPTS[0], params, use_tqdm=False)
    start = time.perf_counter()
    llm.generate(_PROMPTS[0], params, use_tqdm=False)
    return _TIMED / (time.perf_counter() - start)


def _alone(wanted: list[Any]) -> Iterator[Row]:
    llm = _open(1)
    wanted += _told(llm)
    yield Row("one GPU, in the order of ranks", _speed(llm), "tok/s")


def _together(size: int, wanted: list[Any]) -> Iterator[Row]:
    for name, more in (("recorded", {}), ("launched", {"enforce_eager": True}), ("with a draft model", _DRAFTS)):
        start = time.perf_counter()
        llm = _open(size, **more)
        loaded_s = time.perf_counter() - start
        num_same = sum(ours == theirs for ours, theirs in zip(_told(llm), wanted, strict=True))
        note = f"of {len(wanted)} requests to the last bit; loaded in {loaded_s:.1f} s"
        yield Row(f"{size} GPUs, {name}, as one", num_same, "", note, num_same == len(wanted))
        yield Row(f"{size} GPUs, {name}", _speed(llm), "tok/s")
        _end(llm)


def _adapted() -> Iterator[Row]:
    """Beside a request without one, by one GPU that adds in the order of ranks and by two."""
    from albireo import LoRARequest

    with tempfile.TemporaryDirectory() as directory:
        found = []
        for size in (1, 2):
            llm = _open(size, **_LORA)
            if not found:
                _write_adapter(Path(directory), llm)
            lora = LoRARequest("random", 1, directory)
            found.append(_told(llm, [lora, None, lora]))
            if size > 1:
                _end(llm)
    num_same = sum(ours == theirs for ours, theirs in zip(*found, strict=True))
    note = f"of {len(_PROMPTS)} requests to the last bit, two with an adapter"
    yield Row("2 GPUs, an adapter, as one", num_same, "", note, num_same == len(_PROMPTS))


def _write_adapter(directory: Path, llm: LLM) -> None:
    """Random numbers beside every linear, as PEFT writes them."""
    adapters: Any = llm.loaded.adapters if llm.loaded else None
    rng, rank, header, data = np.random.default_rng(1), 8, dict[str, Any](), b""
    for module, (outputs, inputs) in sorted(adapters._shapes.items()):
        for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            numbers = (rng.standard_normal(shape, np.float32) * np.float32(0.3 / shape[1] ** 0.5)).tobytes()
            where = [len(data), len(data) + len(numbers)]
            name = f"base_model.model.{module}.lora_{side}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": where}
            data += numbers
    told = json.dumps(header).encode()
    (directory / "adapter_model.safetensors").write_bytes(len(told).to_bytes(8, "little") + told + data)
    targets = sorted({module.rpartition(".")[2] for module in adapters._shapes})
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets, "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(said))


def _killed() -> Iterator[Row]:
    from albireo.errors import RankLost

    llm = _open(2)
    os.kill(_leader(llm).pids[0], signal.SIGKILL)
    start = time.perf_counter()
    try:
        _told(llm)
    except RankLost as error:
        yield Row("a rank is killed", time.perf_counter() - start, "s", f"until it is told: {error}", True)
    else:
        yield Row("a rank is killed", note="and nobody notices", is_good=False)


def _leader(llm: LLM) -> Any:
    model: Any = llm.loaded.model if llm.loaded else None
    return model.leader


def _end(llm: LLM) -> None:
    _leader(llm).close()
