"""A GGUF file behind the server, in a batch, and as the tokenizer of a load: what is said is in the file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
from click.testing import CliRunner

from albireo import LLM, SamplingParams
from albireo.cli.main import main
from albireo.server.model_card import FILE_TYPES
from tiny_gguf import write_with_tokenizer

MESSAGES = [{"role": "user", "content": "hi"}]
ASK: dict[str, Any] = {"messages": MESSAGES, "temperature": 0, "max_tokens": 4, "ignore_eos": True}
SMALL = {"max_model_len": 64, "max_num_seqs": 2}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_with_tokenizer(path, "F32")
    return path


@pytest.fixture(scope="module")
def text(file: Path) -> str:
    """What the model answers, greedily."""
    params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
    return LLM(str(file), **SMALL).chat(MESSAGES, params)[0].outputs[0].text


def test_it_is_served(start: Any, file: Path, text: str) -> None:
    server = start(str(file), "--max-model-len", "64")
    assert server.http.post("/v1/chat/completions", json=ASK).json()["choices"][0]["message"]["content"] == text
    shown = server.http.post("/api/show", json={"model": str(file)}).json()
    said = {field.name: field.contents() for field in gguf.GGUFReader(file).fields.values() if len(field.types) == 1}
    said = {key: value for key, value in said.items() if not key.startswith(("GGUF.", "tokenizer."))}
    num = sum(int(each.n_elements) for each in gguf.GGUFReader(file).tensors)
    beside = {"general.basename": str(file), f"{said['general.architecture']}.context_length": 64}
    beside["general.parameter_count"] = num
    assert shown["model_info"] == said | beside
    assert (shown["details"]["format"], shown["details"]["family"]) == ("gguf", said["general.architecture"])
    assert shown["details"]["parameter_size"] == f"{num / 10**6:.2f}M"
    form = {"structured_outputs": {"regex": "[a-c]{3}"}, "max_tokens": 8}
    made = server.http.post("/v1/completions", json={"prompt": "hi", **form}).json()
    assert re.fullmatch("[a-c]{3}", made["choices"][0]["text"]), made
    asked = ("--num-prompts", "2", "--random-input-len", "4", "--random-output-len", "3", "--tokenizer", str(file))
    loaded = CliRunner().invoke(main, ["bench", "serve", "--base-url", server.url, *asked])
    assert loaded.exit_code == 0, loaded.stderr
    assert re.search(r"Successful requests: +2\b", loaded.stdout)


def test_it_runs_a_batch(file: Path, text: str, tmp_path: Path) -> None:
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": ASK}
    (tmp_path / "asks.jsonl").write_text(json.dumps(line))
    files = ["-i", str(tmp_path / "asks.jsonl"), "-o", str(tmp_path / "answers.jsonl")]
    ran = CliRunner().invoke(main, ["run-batch", *files, str(file), "--max-model-len", "64"])
    assert ran.exit_code == 0, ran.stderr
    (answer,) = map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())
    assert answer["response"]["body"]["choices"][0]["message"]["content"] == text


def test_files_are_called_as_their_makers_call_them() -> None:
    known = {each.value: each.name.removeprefix("ALL_").removeprefix("MOSTLY_") for each in gguf.LlamaFileType}
    assert {number: known[number] for number in FILE_TYPES} == FILE_TYPES and len(FILE_TYPES) > 30
