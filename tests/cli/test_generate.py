"""generate: text and JSONL out, prompts from everywhere in, errors by the line."""

from __future__ import annotations

import io
import json
import os
import re
import signal

import pytest

import tiny_models
from albireo.api.sources.locate import BUNDLED
from albireo.cli import writers
from albireo.cli.generate import in_order
from albireo.cli.session import Reply
from albireo.errors import InvalidParams
from albireo.outputs import RequestOutput
from albireo.text.tokenizer import Tokenizer
from tiny_adapters import make_adapter
from tiny_models import STORIES, shared_data

START = "Once upon a time"


def records(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def published():
    """What another implementation made of stories260k, greedily."""
    shared_data("models", "stories260k", "expected.json")
    return json.loads((STORIES / "expected.json").read_text())


def test_greedy_tokens_are_the_published_ones(albireo, published, tmp_path):
    file = tmp_path / "prompts.jsonl"
    lines = [{"prompt_token_ids": case["prompt_ids"], "ignore_eos": True} for case in published["cases"]]
    file.write_text("\n".join(json.dumps(line | {"max_tokens": 40}) for line in lines))
    result = albireo("generate", STORIES, "--input-file", file, "--temperature", "0", "--output", "jsonl")
    assert result.exit_code == 0, result.stderr
    found = [record["outputs"][0]["token_ids"] for record in records(result)]
    assert found == [case["greedy_ids"][:40] for case in published["cases"]]


def test_text_reads_on_from_the_prompt(albireo, published):
    case = next(case for case in published["cases"] if case["prompt"])
    count = min(30, len(case["greedy_ids"]))
    result = albireo("generate", STORIES, case["prompt"], "--temperature", "0", "--max-tokens", count)
    whole = Tokenizer.from_directory(STORIES).decode(case["prompt_ids"] + case["greedy_ids"][:count])
    assert result.stdout == whole + "\n"
    assert result.stderr == ""


def test_beams_are_told_the_best_first(albireo, tmp_path):
    ask = ("generate", START, "--beam-width", "3", "--max-tokens", "6", "--length-penalty", "0")
    found = records(albireo(*ask, "--output", "jsonl"))[0]["outputs"]
    scores = [each["cumulative_logprob"] for each in found]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    shown = albireo(*ask).stdout
    assert shown == "".join(f"==> continuation {i} <==\n{START}{each['text']}\n" for i, each in enumerate(found, 1))
    file = tmp_path / "prompts.jsonl"
    line = {"prompt": START, "max_tokens": 6, "beam_width": 3, "length_penalty": 0.0}
    file.write_text(json.dumps(line))
    assert records(albireo("generate", "--input-file", file, "--output", "jsonl"))[0]["outputs"] == found
    file.write_text(json.dumps({**line, "top_p": 0.5}))
    assert "line 1 of" in (refused := albireo("generate", "--input-file", file)).stderr and "top_p" in refused.stderr
    assert "beam_width" in albireo("generate", START, "--length-penalty", "2").stderr


def test_the_bundled_model_needs_no_name(albireo):
    result = albireo("generate", START, "--seed", "1", "--max-tokens", "12")
    assert result.exit_code == 0
    assert result.stdout.startswith(START)
    assert len(result.stdout) > len(START) + 1
    named = albireo("generate", "--model", BUNDLED, START, "--seed", "1", "--max-tokens", "12")
    assert named.stdout == result.stdout


def test_echo_can_be_left_out(albireo):
    args = ("generate", START, "--seed", "1", "--max-tokens", "12")
    assert albireo(*args).stdout == START + albireo(*args, "--no-echo").stdout


def test_prompts_from_stdin(albireo):
    args = ("--seed", "1", "--max-tokens", "8")
    direct = albireo("generate", START, *args).stdout
    assert albireo("generate", *args, stdin=START + "\n").stdout == direct
    assert albireo("generate", "-", *args, stdin=START + "\n").stdout == direct
    assert albireo("generate", "--input-file", "-", *args, stdin=START + "\n").stdout == direct


def test_arguments_go_before_a_pipe_nobody_asked_for(albireo):
    result = albireo("generate", START, "--max-tokens", "2", stdin="not this\n")
    assert "not this" not in result.stdout


def test_several_prompts_come_in_order_under_headings(albireo):
    result = albireo("generate", "The cat", "The dog", "A bird", "--max-tokens", "3", "--temperature", "0")
    headings = re.findall(r"==> prompt (\d) <==\n(.*)", result.stdout)
    assert [number for number, _ in headings] == ["1", "2", "3"]
    assert [text[:5] for _, text in headings] == ["The c", "The d", "A bir"]


def test_a_word_in_the_place_of_a_model_is_told_to_be_a_prompt(albireo):
    result = albireo("generate", "no-such-model", START, "--max-tokens", "2")
    assert result.exit_code == 0 and "==> prompt 2 <==" in result.stdout
    assert result.stderr == "note: there is no directory no-such-model, so it is a prompt; --model names a model\n"
    for quiet in ((START, "The cat"), ("Once",)):
        assert albireo("generate", *quiet, "--max-tokens", "2").stderr == ""


def test_continuations_have_headings(albireo):
    result = albireo("generate", START, "--n", "2", "--seed", "1", "--max-tokens", "3")
    assert re.findall(r"==> (.*) <==", result.stdout) == ["continuation 1", "continuation 2"]


def test_a_batch_gives_what_each_prompt_gives_alone(albireo, tmp_path):
    file = tmp_path / "prompts.jsonl"
    lines = [
        {"prompt": "The cat", "seed": 5, "max_tokens": 9},
        {"prompt": "The dog", "temperature": 0, "max_tokens": 3},
        {"prompt": START, "seed": 6, "max_tokens": 20, "top_k": 3},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    together = records(albireo("generate", "--input-file", file, "--output", "jsonl"))
    alone = [records(albireo("generate", "--output", "jsonl", stdin=json.dumps(line)))[0] for line in lines]
    assert [record["index"] for record in together] == [0, 1, 2]
    assert [record["outputs"] for record in together] == [record["outputs"] for record in alone]
    assert [len(record["outputs"][0]["token_ids"]) for record in together] == [9, 3, 20]


def test_jsonl_has_the_fields_of_a_request_output(albireo):
    flags = ("--output", "jsonl", "--max-tokens", "3", "--n", "2", "--logprobs", "2", "--seed", "1")
    (record,) = records(albireo("generate", START, *flags))
    assert record["prompt"] == START
    assert len(record["prompt_token_ids"]) == 5
    assert [each["index"] for each in record["outputs"]] == [0, 1]
    for each in record["outputs"]:
        assert each["finish_reason"] == "length"
        assert len(each["token_ids"]) == len(each["logprobs"]) == 3
        for token_id, entry in zip(each["token_ids"], each["logprobs"], strict=True):
            assert entry[str(token_id)]["logprob"] <= 0.0
            assert len(entry) in (2, 3)


def test_a_line_goes_before_a_flag(albireo):
    result = albireo("generate", "--max-tokens", "9", "--output", "jsonl", stdin='{"prompt": "A", "max_tokens": 2}')
    assert len(records(result)[0]["outputs"][0]["token_ids"]) == 2


def test_stop_ends_the_text(albireo):
    flags = ("--temperature", "0", "--max-tokens", "40", "--output", "jsonl")
    (whole,) = records(albireo("generate", START, *flags))
    word = whole["outputs"][0]["text"].split()[3]
    (short,) = records(albireo("generate", START, *flags, "--stop", word))
    assert short["outputs"][0]["text"] == whole["outputs"][0]["text"].split(word)[0]
    assert (short["outputs"][0]["finish_reason"], short["outputs"][0]["stop_reason"]) == ("stop", word)


def test_the_output_has_the_form_of_a_flag(albireo, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"type": "object", "properties": {"ok": {"type": "boolean"}},'
        ' "required": ["ok"], "additionalProperties": false}'
    )
    flags = ("--seed", "1", "--no-echo", "--max-tokens", "60")
    result = albireo("generate", START, "--json-schema", schema, *flags)
    assert result.stdout in ('{"ok":true}\n', '{"ok":false}\n')
    result = albireo("generate", START, "--regex", r"[a-z]{3,5}!", *flags)
    assert re.fullmatch(r"[a-z]{3,5}!\n", result.stdout)
    line = json.dumps({"prompt": START, "structured_outputs": {"choice": ["so"]}})
    assert albireo("generate", *flags, stdin=line).stdout == "so\n"


def test_stats_are_one_line_on_stderr(albireo):
    result = albireo("generate", START, "--max-tokens", "5", "--ignore-eos", "--stats")
    assert re.fullmatch(
        r"loaded in .+, 1 prompt of 5 tokens, first token after .+, 5 tokens in .+, [\d,]+ tok/s\n", result.stderr
    )


def test_no_bars_without_a_terminal(process):
    child = process("generate", "The cat", "The dog", "--max-tokens", "3")
    stdout, stderr = child.communicate()
    assert child.returncode == 0
    assert stderr == b""
    assert b"\r" not in stdout


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("./no/such/model", START), "there is no directory ./no/such/model"),
        ((START, "--temperature", "-1"), "temperature=-1.0"),
        ((START, "--top-p", "0"), "top_p"),
        ((START, "caf\udce9"), "prompt 2 is no text in the terminal's encoding"),
        ((START, "--max-tokens", "0"), "max_tokens=0"),
        ((START, "--dtype", "int3"), "int3"),
        ((START, "--block-size", "7"), "block_size=7"),
        ((START, "--max-model-len", "100000"), "max_model_len=100000"),
        ((START, "--memory-utilization", "0.000001"), "memory_utilization"),
        (("word " * 600,), "max_model_len=512"),
        ((START, "--logprobs", "999", "--output", "jsonl"), "logprobs=999"),
        ((START, "--regex", "[a"), "unclosed character class"),
    ],
)
def test_refusals_are_one_line(albireo, args, said):
    result = albireo("generate", *args)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((START, "--logprobs", "2"), "--output jsonl"),
        ((START, "--input-file", "x"), "give one of them"),
        (("--input-file", "no-such-file"), "cannot be read"),
        ((START, "--max-tokens", "many"), "many"),
        ((START, "--regex", "a", "--json-schema", __file__), "give one of them"),
    ],
)
def test_usage_errors(albireo, args, said):
    result = albireo("generate", *args)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_hub_name_without_the_network(process, tmp_path):
    child = process("generate", "nobody/nothing", "hi", env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    stdout, stderr = child.communicate()
    assert child.returncode == 1
    assert stdout == b""
    text = stderr.decode()
    assert text.startswith("error: there is no directory nobody/nothing")
    assert "hub" in text
    assert 'generate --model MODEL "nobody/nothing"' in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "line", ['{"prompt": "x", "temperature": "hot"}', '{"prompt": "x", "stop": 5}', '{"prompt": "x", "n": 0}']
)
def test_bad_parameters_of_a_line_stop_before_anything_runs(albireo, tmp_path, line):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "fine"}\n' + line)
    result = albireo("generate", "--input-file", file)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"line 2 of {file}" in result.stderr


def test_a_refused_line_does_not_disturb_the_others(albireo, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "%s"}\n{"prompt": "The cat", "max_tokens": 2}\n' % ("word " * 600))
    result = albireo("generate", "--input-file", file, "--output", "jsonl")
    assert result.exit_code == 1
    assert f"line 1 of {file}" in result.stderr
    refused, fine = records(result)
    assert refused["index"] == 0
    assert "max_model_len=512" in refused["error"]
    assert len(fine["outputs"][0]["token_ids"]) == 2


def test_a_prompt_with_an_unknown_token_is_refused(albireo):
    result = albireo("generate", stdin='{"prompt_token_ids": [4096]}')
    assert result.exit_code == 1
    assert "4096" in result.stderr


def test_nothing_to_do(albireo):
    assert "holds no prompt" in albireo("generate").stderr


def test_no_prompt_on_a_terminal(albireo, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    from albireo.cli import generate

    monkeypatch.setattr(generate.sys, "stdin", Terminal())
    with pytest.raises(generate.click.UsageError, match="There is no prompt"):
        generate._collect([], None, "auto")


def test_interrupt_while_writing(albireo, monkeypatch):
    """Ctrl-C comes while text is printed: the step is finished, the rest is not."""
    grow = writers.TextWriter._grow

    def interrupted(self, output):
        grow(self, output)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(writers.TextWriter, "_grow", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        result = albireo("generate", START, "--max-tokens", "50", "--ignore-eos")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert result.stdout.startswith(START)
    assert result.stderr == ""


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_architecture_runs(albireo, tmp_path, model_type):
    from albireo.models import load_architecture

    config = {**load_architecture(model_type).tiny, "vocab_size": 512}
    tiny_models.make_checkpoint(tmp_path / "model", config, tokenizer=True)
    flags = ("--max-tokens", "4", "--ignore-eos", "--output", "jsonl", "--dtype", "float32")
    result = albireo("generate", tmp_path / "model", "hello", *flags)
    assert result.exit_code == 0, result.stderr
    assert len(records(result)[0]["outputs"][0]["token_ids"]) == 4


def test_in_order():
    def growing(place):
        return Reply(place, RequestOutput("", None, [], finished=False))

    def last(place):
        return Reply(place, None, InvalidParams("no"))

    found = [growing(1), growing(0), last(2), last(1), growing(0), last(0), growing(3), last(3)]
    assert [(reply.place, reply.is_last) for reply in in_order(found)] == [
        (0, False),
        (0, False),
        (0, True),
        (1, True),
        (2, True),
        (3, False),
        (3, True),
    ]


def test_an_adapter_that_every_prompt_has(albireo, tmp_path):
    adapter = make_adapter(tmp_path, json.loads((BUNDLED / "config.json").read_text()), rank=20)
    asked = ("generate", START, "--temperature", "0", "--max-tokens", "8")
    plain, changed = (albireo(*asked, *flags) for flags in ((), ("--lora", adapter)))
    assert plain.exit_code == changed.exit_code == 0 and plain.stdout != changed.stdout
    missing = albireo(*asked, "--lora", tmp_path / "none")
    assert missing.exit_code != 0 and "adapter_config.json" in missing.stderr
