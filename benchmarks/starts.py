"""The question: how long until a user sees something, and what does it take of the processor?

    python benchmarks/starts.py [--rounds 9] [--python OTHER/bin/python ...]

Three starts, of the bundled model, each process anew: `albireo generate` of one token, the whole process; `albireo
serve`, from its start until /health answers 200, until the first token of a completion, and its stop; `LLM(...)` in
Python, from the interpreter's start to the first token. Several interpreters (of another version, in an environment of
its own) take turns, round by round. Seconds by the clock, and of the processor (user and system, of processes that were
started, too); medians and the least are printed, every round is appended to benchmarks/results/starts.jsonl. The clock
tells how busy a machine was; the least seconds of the processor tell versions apart.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "starts.jsonl"
_LLM = (
    "import albireo; "
    "llm = albireo.LLM(use_tqdm_on_load=False); "
    "llm.generate(['Once'], albireo.SamplingParams(max_tokens=1, seed=7), use_tqdm=False)"
)
#: Seconds by the clock, by what they are of.
Found = dict[str, float]


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def generate(python: str) -> Found:
    begun_s = time.monotonic()
    run([python, "-m", "albireo", "generate", "--seed", "7", "Once", "--max-tokens", "1"])
    return {"generate": time.monotonic() - begun_s}


def in_python(python: str) -> Found:
    begun_s = time.monotonic()
    run([python, "-c", _LLM])
    return {"LLM": time.monotonic() - begun_s}


def serve(python: str) -> Found:
    begun_s = time.monotonic()
    server = subprocess.Popen([python, "-m", "albireo", "serve", "--port", "0"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said = ""
    for line in server.stderr:
        said += line
        if " is ready after " in line:
            break
    port = re.search(r"listening on http://[\d.]+:(\d+)", said)
    if port is None:
        raise SystemExit(f"the server did not start:\n{said}")
    connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=60)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, "it said that it is ready"
    ready_s = time.monotonic()
    body = json.dumps({"prompt": "Once", "max_tokens": 1, "seed": 7})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    token_s = time.monotonic()
    server.send_signal(signal.SIGTERM)
    server.communicate()
    found = {"serve, ready": ready_s, "serve, first token": token_s}
    return {name: at_s - begun_s for name, at_s in found.items()} | {"serve, stop": time.monotonic() - token_s}


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(start: Callable[[str], Found], python: str) -> Found:
    """A start's figures, and what it and its end took of the processor."""
    before_s = processor_s()
    found = start(python)
    return found | {f"{start.__name__}, processor": processor_s() - before_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    asked = parser.parse_args()
    rounds: dict[str, list[Found]] = {python: [] for python in asked.python}
    for _ in range(asked.rounds):
        for python, found in rounds.items():
            starts = (generate, serve, in_python)
            found.append({name: took for start in starts for name, took in measured(start, python).items()})
            with RESULTS.open("a") as file:
                file.write(json.dumps({"at": time.strftime("%Y-%m-%d"), "python": python, **found[-1]}) + "\n")
    for python, found in rounds.items():
        print(python)
        for name in found[0]:
            values = [each[name] for each in found]
            print(f"  {name:<22} {statistics.median(values):6.2f} s   least {min(values):.2f} s")


if __name__ == "__main__":
    main()
