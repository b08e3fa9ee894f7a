"""albireo run-batch: a file of requests without a server, and a run that goes on with what another one left."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, SamplingParams

COMPLETION = "/v1/completions"


def line(name: str, url: str = COMPLETION, **body: Any) -> dict[str, Any]:
    body = {"model": "story", "prompt": f"Once {name}", "temperature": 0, "max_tokens": 6, **body}
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def read(path: Path) -> dict[str, Any]:
    found = [json.loads(each) for each in path.read_text().splitlines()]
    by_name = {each["custom_id"]: each for each in found}
    assert len(found) == len(by_name)
    return by_name


def test_a_file_is_run_and_then_what_is_new(albireo: Any, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Once a"}], "max_tokens": 6, "temperature": 0}
    lines = [
        line("a"),
        {**line("b"), "url": "/v1/chat/completions", "body": chat},
        {**line("c"), "url": "/v1/embeddings", "body": {"input": "Once"}},
        {**line("d"), "url": "/v1/responses", "body": {"input": "Once", "max_output_tokens": 3}},
    ]
    source, output = written(tmp_path / "in.jsonl", *lines), tmp_path / "out.jsonl"
    args = ["run-batch", "-i", source, "-o", output, "--num-threads", "1", "--max-inflight", "2"]
    result = albireo(*args)
    assert result.exit_code == 0 and result.stdout == ""
    assert f"{source}: 4 requests\n" in result.stderr and "4 answers, 0 errors" in result.stderr
    found = read(output)
    assert {each["response"]["status_code"] for each in found.values()} == {200}
    with LLM(num_threads=1) as llm:
        (wanted,) = llm.generate("Once a", SamplingParams(temperature=0, max_tokens=6), use_tqdm=False)
    assert found["a"]["response"]["body"]["choices"][0]["text"] == wanted.outputs[0].text
    assert found["b"]["response"]["body"]["object"] == "chat.completion"

    before = output.read_bytes()
    result = albireo(*args)
    assert result.exit_code == 0 and "4 of them done already" in result.stderr and output.read_bytes() == before

    written(source, *lines, line("e", max_tokens=0), line("f", model="other"), line("g"))
    result = albireo(*args)
    assert result.exit_code == 1 and "5 answers, 2 errors" in result.stderr
    assert output.read_bytes().startswith(before)
    found = read(output)
    assert [found[name]["response"]["status_code"] for name in "efg"] == [400, 404, 200]
    assert found["e"]["response"]["body"]["error"]["param"] == "max_tokens"


def test_ctrl_c_and_a_torn_line(albireo: Any, process: Any, tmp_path: Path) -> None:
    lines = [line(str(i), max_tokens=60, ignore_eos=True) for i in range(60)]
    source, output = written(tmp_path / "in.jsonl", *lines), tmp_path / "out.jsonl"
    args = ["run-batch", "-i", str(source), "-o", str(output), "--num-threads", "1"]
    running = process(*args, "--max-inflight", "1")
    end = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < end:
        if output.exists() and output.read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.01)
    assert albireo(*args).exit_code == 1, "one at a time"
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and b"Traceback" not in said
    kept = output.read_bytes()
    assert 3 <= kept.count(b"\n") < 60 and kept.endswith(b"\n")
    output.write_bytes(kept + kept[:50])
    result = albireo(*args)
    assert result.exit_code == 0 and f"{kept.count(10)} of them done already" in result.stderr
    assert output.read_bytes().startswith(kept) and set(read(output)) == {str(i) for i in range(60)}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "in.jsonl: the file has no requests"),
        ([{"prompt": "x"}], "in.jsonl, line 1: the line is no request of a batch"),
        ([line("a"), line("a")], "in.jsonl, line 2: the custom_id 'a' is that of line 1"),
        ([line("a", url="/v1/audio")], "it must be one of /v1/chat/completions"),
        ([line("a", url="x"), *(line(str(i), url="x") for i in range(9))], "(5 more)"),
    ],
)
def test_an_input_that_is_none(albireo: Any, tmp_path: Path, lines: list[Any], words: str) -> None:
    result = albireo("run-batch", "-i", written(tmp_path / "in.jsonl", *lines), "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1 and words in result.stderr and not (tmp_path / "out.jsonl").exists()


def test_an_output_that_is_something_else(albireo: Any, tmp_path: Path) -> None:
    source, output = written(tmp_path / "in.jsonl", line("a")), tmp_path / "out.jsonl"
    other = json.dumps({"id": "batch_req_1", "custom_id": "z", "response": None, "error": {"code": "c", "message": ""}})
    for data, words in (("A story.\n", "line 1 is no answer of a batch"), (other + "\n", "such as 'z'")):
        output.write_text(data)
        result = albireo("run-batch", "-i", source, "-o", output)
        assert result.exit_code == 1 and words in result.stderr and output.read_text() == data
    result = albireo("run-batch", "-i", source, "-o", source)
    assert result.exit_code == 1 and "is the input" in result.stderr
    result = albireo("run-batch", "-i", source, "-o", "/dev/null")
    assert result.exit_code == 1 and "is no file" in result.stderr


def test_how_it_is_called(albireo: Any, tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", line("a"))
    assert "Missing option '-o'" in albireo("run-batch", "-i", source).stderr
    result = albireo("run-batch", "-i", source, "-o", tmp_path / "out", "one", "--model", "two")
    assert result.exit_code == 2 and "give one of them" in result.stderr
    result = albireo("run-batch", "-i", source, "-o", tmp_path / "out", "--model", "nowhere")
    assert result.exit_code == 1 and "nowhere" in result.stderr
