"""`make clients`: real clients against a server that this starts on a free port of loopback with the bundled model.

Run with the project's Python. The clients live in environments of their own, outside the project, which are made when
they are not there: CLIENTS_DIR, by default in the user's cache. One script a client; each says pass, fail and why.
Exit status: 0 when none failed.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
#: What the server serves when nothing is named.
MODEL = HERE.parents[1] / "src" / "albireo" / "models" / "bundled" / "story"
KEY = "the-key-of-the-check"
TIMEOUT_S = 300.0
#: Exit status of a script that tried nothing; see ask.py.
SKIPPED = 77
#: Environment -> what is installed there.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "openai3": ("openai>=3,<4",),
    "frameworks": (
        "openai>=2,<3",
        "langchain-openai",
        "llama-index-llms-openai-like",
        "litellm",
        "instructor",
        "anthropic",
        "cohere",
        "huggingface_hub",
    ),
    "agents": (
        "openai-agents",
        "pydantic-ai-slim[openai,anthropic]",
        "smolagents[openai]",
        "dspy",
        "haystack-ai",
        "guidance",
        "outlines[openai]",
    ),
    "ollama": ("ollama", "langchain-ollama", "llama-index-llms-ollama", "llama-index-embeddings-ollama", "litellm"),
    "proxy": ("litellm[proxy]", "anthropic"),
    "evaluation": ("lm-eval[api,hf]",),
}
#: Those of Node, likewise.
NODE_ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "node6": ("openai@6",),
    "node": (
        "openai@7",
        "ai@7",
        "@ai-sdk/anthropic@4",
        "@ai-sdk/openai@4",
        "@ai-sdk/openai-compatible@3",
        "@anthropic-ai/sdk@1",
        "@openai/agents@0",
        "langchain@1",
        "@langchain/openai@1",
        "zod@4",
        "ollama@0",
    ),
}
#: Environments whose packages would bring torch with CUDA.
WITH_TORCH = {"evaluation"}
#: (name told, environment, script).
CLIENTS = (
    ("openai 2.x", "frameworks", "openai_python.py"),
    ("openai 3.x", "openai3", "openai_python.py"),
    ("langchain-openai", "frameworks", "langchain.py"),
    ("llama-index OpenAILike", "frameworks", "llama_index_openai_like.py"),
    ("litellm", "frameworks", "litellm_client.py"),
    ("instructor", "frameworks", "instructor_client.py"),
    ("pydantic-ai", "agents", "pydantic_ai_client.py"),
    ("openai-agents", "agents", "openai_agents_client.py"),
    ("smolagents", "agents", "smolagents_client.py"),
    ("dspy", "agents", "dspy_client.py"),
    ("haystack", "agents", "haystack_client.py"),
    ("guidance", "agents", "guidance_client.py"),
    ("outlines", "agents", "outlines_client.py"),
    ("anthropic", "frameworks", "anthropic_client.py"),
    ("cohere", "frameworks", "cohere_client.py"),
    ("huggingface_hub", "frameworks", "huggingface_client.py"),
    ("ollama", "ollama", "ollama_client.py"),
    ("langchain, llama-index, litellm: ollama", "ollama", "ollama_frameworks.py"),
    ("litellm's proxy", "proxy", "litellm_proxy.py"),
    ("lm-eval", "evaluation", "lm_eval_client.py"),
    ("openai 6.x for Node", "node6", "openai_node.mjs"),
    ("openai 7.x for Node", "node", "openai_node.mjs"),
    ("anthropic for Node", "node", "anthropic_node.mjs"),
    ("langchain for Node", "node", "langchain_node.mjs"),
    ("openai-agents for Node", "node", "openai_agents_node.mjs"),
    ("ollama for Node", "node", "ollama_node.mjs"),
    ("AI SDK", "node", "ai_sdk.mjs"),
)


class Server:
    """A process that serves the bundled model; ends with the block."""

    def __enter__(self) -> str:
        self._directory = tempfile.TemporaryDirectory(prefix="albireo-clients-")
        # The bundled model's template has no tool calls of its own.
        flags = ["--port", "0", "--api-key", KEY, "--no-log-requests", "--tool-call-parser", "hermes"]
        flags += ["--batch-dir", self._directory.name, "--enable-tokenizer-info-endpoint"]
        command = [sys.executable, "-m", "albireo", "serve", *flags]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"listening on (\S+)", line):
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                return found.group(1)
        raise SystemExit("the server did not start")

    def __exit__(self, *_: Any) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()


def ask(url: str, body: Any, path: str = "/v1/chat/completions") -> tuple[int, Any]:
    """A plain request, over and over while the model loads. Returns: status and answer."""
    host = url.removeprefix("http://")
    end = time.monotonic() + TIMEOUT_S
    while True:
        connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        connection.request("POST", path, msgspec.json.encode(body), headers)
        answer = connection.getresponse()
        data = msgspec.json.decode(answer.read())
        connection.close()
        if answer.status != 503 or time.monotonic() > end:
            return answer.status, data
        time.sleep(0.1)


def home_of_clients() -> Path:
    """Where the environments of the clients are."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "albireo" / "clients"
    return Path(os.environ.get("CLIENTS_DIR", cache))


def python_of(home: Path, packages: tuple[str, ...], needs_torch: bool = False, without: tuple[str, ...] = ()) -> Path:
    """The interpreter of an environment, made when it is not there.

    Args: needs_torch: its CPU build comes first. without: what those bring along, and is taken out again.
    """
    wanted = "\n".join(packages)
    done, python = home / "installed", home / "bin" / "python"
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(packages)} ...", flush=True)
        venv.create(home, with_pip=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        if needs_torch:
            subprocess.run([python, HERE.parent / "install_torch.py"], check=True)
        subprocess.run([*pip, "install", *packages], check=True)
        if without:
            subprocess.run([*pip, "uninstall", "--yes", *without], check=True)
        done.write_text(wanted)
    return python


def node_script(home: Path, packages: tuple[str, ...], script: Path) -> Path:
    """A copy of a script, and of what all share, where Node finds the packages; made when they are not there."""
    wanted = "\n".join(packages)
    done = home / "installed"
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(packages)} for Node ...", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *packages], cwd=home, check=True)
        done.write_text(wanted)
    shutil.copy(HERE / "ask.mjs", home)
    return Path(shutil.copy(script, home / script.name))


def command_of(root: Path, environment: str, script: Path) -> list[str]:
    """What runs a client's script."""
    home = root / environment
    if environment in ENVIRONMENTS:
        python = python_of(home, ENVIRONMENTS[environment], needs_torch=environment in WITH_TORCH)
        return [str(python), "-W", "ignore", str(script)]
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise FileNotFoundError("node and npm are not installed")
    return [node, str(node_script(home, NODE_ENVIRONMENTS[environment], script))]


def run(command: list[str], environment: dict[str, str]) -> tuple[str, str]:
    """Run a client's script. Returns: pass, skip or FAIL, and what it said of it, or the error."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "FAIL", f"it took longer than {TIMEOUT_S:g} s"
    if done.returncode in (0, SKIPPED):
        return "skip" if done.returncode else "pass", done.stdout.strip().rpartition("\n")[2][:100]
    lines = [line for line in done.stderr.splitlines() if re.search(r"Error|Exception", line)]
    return "FAIL", lines[-1].strip()[:300] if lines else f"exit status {done.returncode}: {done.stderr[-200:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=home_of_clients(), help="where the clients are installed")
    parser.add_argument("only", nargs="*", help="scripts to run; by default all")
    args = parser.parse_args()
    stems = [Path(client[2]).stem for client in CLIENTS]
    if unknown := set(args.only) - set(stems):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(dict.fromkeys(stems))}")
    chosen = [client for client, stem in zip(CLIENTS, stems, strict=True) if not args.only or stem in args.only]
    results: list[str] = []
    with Server() as url:
        chat = {"messages": [{"role": "user", "content": "Once upon a time"}], "temperature": 0, "max_tokens": 12}
        status, answer = ask(url, chat)
        if status != 200:
            raise SystemExit(f"a plain request failed: {status} {answer}")
        status, embedded = ask(url, {"input": "Once upon a time"}, "/v1/embeddings")
        if status != 200:
            raise SystemExit(f"a plain request for an embedding failed: {status} {embedded}")
        schema = {"type": "json_schema", "json_schema": {"name": "anything", "schema": {"type": "boolean"}}}
        has_schemas = ask(url, {**chat, "response_format": schema})[0] == 200
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "ALBIREO_URL": url,
            "ALBIREO_MODEL": answer["model"],
            "ALBIREO_TEXT": answer["choices"][0]["message"]["content"],
            "ALBIREO_KEY": KEY,
            "ALBIREO_EMBEDDING": msgspec.json.encode(embedded["data"][0]["embedding"]).decode(),
            "ALBIREO_CHECKPOINT": str(MODEL),
            "ALBIREO_HAS_SCHEMAS": "1" if has_schemas else "",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        for name, home, script in chosen:
            try:
                result, words = run(command_of(args.directory, home, HERE / script), environment)
            except (OSError, subprocess.CalledProcessError) as error:
                result, words = "FAIL", f"not tried: {error}"
            results.append(result)
            print(f"{result}  {name}{words and f': {words}'}", flush=True)
    print(f"{results.count('pass')} of {len(results)} clients passed, {results.count('skip')} skipped")
    return 1 if "FAIL" in results else 0


if __name__ == "__main__":
    raise SystemExit(main())
