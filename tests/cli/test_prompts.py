"""Which argument is the model, and what a file of prompts may hold."""

from __future__ import annotations

import json

import click
import pytest

from albireo.cli.prompts import PromptLine, parse_object, read_prompts, split_arguments
from albireo.errors import InvalidParams


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("prompts.txt", "tiny.gguf", "my model.GGUF"):
        (tmp_path / name).write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "model", "prompts"),
    [
        ([], None, []),
        (["Once upon a time"], None, ["Once upon a time"]),
        (["Once"], None, ["Once"]),
        (["model"], "model", []),
        (["model", "Once", "Twice"], "model", ["Once", "Twice"]),
        (["Qwen/Qwen3-0.6B", "Once"], "Qwen/Qwen3-0.6B", ["Once"]),
        (["./missing", "Once"], "./missing", ["Once"]),
        (["~/missing"], "~/missing", []),
        (["tiny.gguf", "Once"], "tiny.gguf", ["Once"]),
        (["my model.GGUF", "Once"], "my model.GGUF", ["Once"]),
        (["missing.gguf", "Once"], "missing.gguf", ["Once"]),
        (["What is a .gguf"], None, ["What is a .gguf"]),
        (["/no/such/place"], "/no/such/place", []),
        (["He or/she went"], None, ["He or/she went"]),
        (["...and then"], None, ["...and then"]),
        (["Once", "model"], None, ["Once", "model"]),
        (["-"], None, ["-"]),
        (["", "x"], None, ["", "x"]),
        (["zero\0byte"], None, ["zero\0byte"]),
        (["long " * 5000], None, ["long " * 5000]),
    ],
)
def test_split_arguments(here, arguments, model, prompts):
    assert split_arguments(None, arguments) == (model, prompts)


def test_with_the_model_named_every_argument_is_a_prompt(here):
    assert split_arguments("m", ["model", "Qwen/Qwen3-0.6B"]) == ("m", ["model", "Qwen/Qwen3-0.6B"])


def test_a_file_as_the_first_argument_is_asked_about(here):
    with pytest.raises(click.UsageError, match=r"--input-file prompts\.txt"):
        split_arguments(None, ["prompts.txt"])


def test_text_is_one_prompt_a_line(tmp_path):
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeffOne\u2028line\r\n\n  two \n{not first}".encode())
    assert read_prompts(str(file), "auto") == [
        PromptLine("One\u2028line", where=f"line 1 of {file}"),
        PromptLine("  two ", where=f"line 3 of {file}"),
        PromptLine("{not first}", where=f"line 4 of {file}"),
    ]


def test_jsonl_by_its_first_line(tmp_path):
    file = tmp_path / "whatever"
    lines = [
        {"prompt": "One\u2028", "max_tokens": 3},
        {"prompt_token_ids": [1, 2], "temperature": None},
        {"prompt": [7]},
    ]
    file.write_text("\n" + "\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    assert read_prompts(str(file), "auto") == [
        PromptLine("One\u2028", {"max_tokens": 3}, f"line 2 of {file}"),
        PromptLine([1, 2], {}, f"line 3 of {file}"),
        PromptLine([7], {}, f"line 4 of {file}"),
    ]


def test_a_brace_can_be_text(tmp_path):
    file = tmp_path / "code"
    file.write_text("{ return 1; }\n")
    assert [line.prompt for line in read_prompts(str(file), "text")] == ["{ return 1; }"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a", "seed": ' + "1" * 5000 + "}", "no JSON that can be read"),
        ('{"prompt": "x"', "is no JSON"),
        ("plain", "is no JSON"),
        ("[1]", "JSON list"),
        ("{}", "neither prompt nor"),
        ('{"prompt": "x", "prompt_token_ids": [1]}', "both prompt and"),
        ('{"prompt": "x", "messages": []}', "both prompt and messages"),
        ('{"messages": "x"}', "must be a list of messages"),
        ('{"prompt": null}', "neither prompt nor"),
        ('{"prompt": 5}', "must be text or a list"),
        ('{"prompt": []}', "must be text or a list"),
        ('{"prompt": [true]}', "must be text or a list"),
        ('{"prompt": "x", "max_token": 1}', "did you mean max_tokens?"),
        ('{"prompt": "x", "zzzz": 1}', "SamplingParams"),
        ('{"prompt": "x", "zzzz": 1}', "p.jsonl has the unknown field"),
        ('{"prompt": "x", "bad_words_token_ids": [[1]]}', "unknown field"),
        ('{"prompt": "x", "thinking_marks": 1}', "unknown field"),
        ('{"prompt": "x", "speech_rules": 1}', "unknown field"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "fine"}\n' + line + "\n")
    with pytest.raises(InvalidParams, match="line 2 of ") as error:
        read_prompts(str(file), "auto")
    assert said in str(error.value)
    assert str(error.value).count("line 2 of") == 1


def test_neither_prompt_is_said_rightly():
    with pytest.raises(InvalidParams, match="line 9 has neither prompt nor prompt_token_ids nor messages"):
        parse_object({"temperature": 1}, "line 9")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(click.UsageError, match="cannot be read"):
        read_prompts(str(tmp_path / "missing"), "auto")
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(InvalidParams, match="holds no prompt"):
        read_prompts(str(tmp_path / "empty"), "auto")
    (tmp_path / "latin").write_bytes(b"ok\ncaf\xe9\n")
    with pytest.raises(InvalidParams, match=r"line 2 of .* is not UTF-8"):
        read_prompts(str(tmp_path / "latin"), "auto")
