"""The question: how fast is Albireo on W1-W4, against the machine's limits and against other engines, in one run?

    python benchmarks/workloads/compare.py --model MODEL [--rounds 3] [--workloads W1,W2,W3,W4]
        [--quantization int8 [--kv-cache-dtype int8]] [--engine NAME[:LABEL]=PYTHON[,ITS_MODEL]] ...

With --quantization Albireo rounds the weights while it loads them; the others are given a model of their own. NAME is
vllm, openvino, llamacpp, or albireo again, for a file that another engine gets, too, or for another build; LABEL tells
two of a name apart: `openvino:int4`. How the engines and their models are made: benchmarks/workloads/PEERS.md.

Every engine is loaded once, in its own environment, and they take turns: run by run, with a read and a dot-product
probe before and after each. Speeds on a shared machine swing up to twofold, so what is compared is a ratio within a
round; medians and spreads over rounds are printed, every run is appended to benchmarks/results/workloads.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixed_requests import WORKLOADS

from albireo import _native
from albireo.backends.cpu.machine import isa_levels
from albireo.encodings import ENCODINGS
from albireo.models import load_config
from albireo.quantization.schemes import SCHEMES

#: An engine that has just run polls on for a while (vLLM's worker for seconds); nobody is to run beside that.
SETTLE_S = 4.0
HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "workloads.jsonl"


@dataclass
class Worker:
    """One engine in its own process."""

    name: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, name: str, python: str, model: str, threads: int, options: list[str]) -> Worker:
        script = HERE / f"worker_{name.partition(':')[0]}.py"
        if not script.exists():
            raise SystemExit(f"no engine is called {name!r}: there is no {script.name}")
        command = [python, str(script), model, str(threads), *options]
        log = open(f"/tmp/albireo-bench-{name}.log", "w")  # noqa: SIM115 - lives as long as the process
        pipe = subprocess.PIPE
        return cls(name, subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, bufsize=1))

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; see /tmp/albireo-bench-{self.name}.log")
        return dict(json.loads(line))

    def run(self, workload: str, run: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"workload": workload, "run": run}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Probe:
    """Read bandwidth and dot peak of this moment, of bf16 or int8: the better of two short tries each."""

    def __init__(self, threads: int, quantization: str | None) -> None:
        self._pool = _native.ThreadPool(_native.usable_cpus()[:threads])
        self._memory = _native.Memory(512 << 20)
        self._memory.view()[:] = 1
        self._kind = "bfloat16" if "avx512bf16" in isa_levels() else "float32"
        if quantization and quantization.startswith("int"):
            self._kind = "int8"

    def __call__(self) -> tuple[float, float]:
        read = max(_native.probe_read(self._pool, self._memory) for _ in range(2))
        dot = max(_native.probe_dot(self._pool, self._kind, 300_000) for _ in range(2))
        return read, dot


@dataclass
class Costs:
    """Bytes and operations of a model, for fractions of the machine's limits."""

    linear_params: int
    head_params: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    linear_bytes: float  # of a weight
    head_bytes: float
    kv_bytes: float  # of a number
    attention_cost: int  # operations of the linears that one of attention takes the time of

    @classmethod
    def of(cls, model: str, quantization: str | None, kv_cache_dtype: str | None) -> Costs:
        c = load_config(model)
        linear, head = (ENCODINGS[name].bytes_per_weight for name in SCHEMES[quantization]) if quantization else (2, 2)
        is_whole = bool(quantization) and quantization.startswith("int")
        qkv = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
        layer = c.hidden_size * (qkv + c.num_heads * c.head_dim + 3 * c.intermediate_size)
        return cls(
            c.num_layers * layer,
            c.hidden_size * c.vocab_size,
            c.num_layers,
            c.num_heads,
            c.num_kv_heads,
            c.head_dim,
            linear,
            head,
            1 if kv_cache_dtype in ("int8", "fp8") else 2,
            (2 if "avx512bf16" in isa_levels() else 4) if is_whole else 1,
        )

    def decode_bytes(self, context: float) -> float:
        """Bytes one decode step of one sequence reads: weights, head, keys and values."""
        kv = 2 * self.layers * self.kv_heads * self.head_dim * context
        return self.linear_bytes * self.linear_params + self.head_bytes * self.head_params + self.kv_bytes * kv

    def prefill_flops(self, tokens: int) -> float:
        """Operations of a prompt: linears, attention (a wider product is two or four), the head for one row."""
        attention = self.attention_cost * 4.0 * self.layers * self.heads * self.head_dim * tokens * (tokens + 1) / 2
        return 2.0 * self.linear_params * tokens + attention + 2.0 * self.head_params


def figures(row: dict[str, Any], costs: Costs) -> dict[str, float]:
    """Speeds of one run, and their fractions of what the probes around it allow."""
    requests = WORKLOADS[row["workload"]](row["run"])
    tokens_in, tokens_out = sum(len(p) for p, _ in requests), sum(n for _, n in requests)
    out = {"total_tok_s": (tokens_in + tokens_out) / row["wall_s"]}
    if row["ttft_s"] is not None:
        decode = (tokens_out - 1) / (row["wall_s"] - row["ttft_s"])
        prefill = costs.prefill_flops(tokens_in) / row["ttft_s"]
        out |= {
            "ttft_s": row["ttft_s"],
            "prefill_tok_s": tokens_in / row["ttft_s"],
            "prefill_of_dot_peak": prefill / row["dot_ops_s"],
            "decode_tok_s": decode,
            "decode_of_read": decode * costs.decode_bytes(tokens_in + tokens_out / 2) / row["read_bytes_s"],
        }
    return out


def spread(values: list[float]) -> str:
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{low:.4g} / {mid:.4g} / {high:.4g}"


def report(rows: list[dict[str, Any]], costs: Costs) -> None:
    names = list(dict.fromkeys(row["engine"] for row in rows))
    for workload in dict.fromkeys(row["workload"] for row in rows):
        print(f"\n{workload} (min / median / max over rounds)")
        by_engine = {n: [r for r in rows if r["engine"] == n and r["workload"] == workload] for n in names}
        table = {n: [figures(r, costs) for r in runs] for n, runs in by_engine.items()}
        for key in table[names[0]][0]:
            for name in names:
                if "_of_" in key and name != "albireo" and rows[0]["quantization"]:
                    continue  # the costs are of Albireo's bytes; others hold other bytes
                line = f"  {key:22} {name:16} {spread([f[key] for f in table[name]])}"
                if name != "albireo" and "_of_" not in key:
                    ratios = [a[key] / b[key] for a, b in zip(table["albireo"], table[name], strict=True)]
                    line += f"    albireo / {name}: {spread(ratios)}"
                print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint directory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workloads", default="W1,W2,W3,W4")
    parser.add_argument("--engine", action="append", default=[], help="name[:label]=python[,model]")
    parser.add_argument("--quantization", choices=list(SCHEMES))
    parser.add_argument("--kv-cache-dtype", choices=["int8", "fp8"])
    args = parser.parse_args()
    specs = [f"albireo={sys.executable}", *args.engine]
    names = [spec.partition("=")[0] for spec in specs]
    if len(set(names)) < len(names):
        parser.error(f"each engine needs a name of its own, NAME:LABEL (albireo is always there): {', '.join(names)}")
    costs = Costs.of(args.model, args.quantization, args.kv_cache_dtype)
    probe = Probe(args.threads, args.quantization)
    options = [args.quantization] if args.quantization else []
    if args.kv_cache_dtype:
        if not args.quantization:
            raise SystemExit("--kv-cache-dtype is measured with --quantization")
        options.append(args.kv_cache_dtype)
    workers, rows = [], []
    try:
        for spec in specs:
            name, _, rest = spec.partition("=")
            python, _, model = rest.partition(",")
            own = options if name.partition(":")[0] == "albireo" and not model else []
            worker = Worker.start(name, python, model or args.model, args.threads, own)
            workers.append(worker)
            print(f"{name}: {worker.answer()}", flush=True)
        for workload in args.workloads.split(","):
            for worker in workers:
                worker.run(workload, 97)  # not counted
            for run in range(args.rounds):
                for worker in workers:
                    time.sleep(SETTLE_S)
                    before = probe()
                    answer = worker.run(workload, run)
                    after = probe()
                    row = {"date": time.strftime("%Y-%m-%d"), "engine": worker.name, "workload": workload, "run": run}
                    row |= {"quantization": args.quantization, "kv_cache_dtype": args.kv_cache_dtype}
                    row |= answer | {
                        "read_bytes_s": (before[0] + after[0]) / 2,
                        "dot_ops_s": (before[1] + after[1]) / 2,
                    }
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    finally:
        for worker in workers:
            worker.stop()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    report(rows, costs)


if __name__ == "__main__":
    main()
