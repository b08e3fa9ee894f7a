"""What is printed of a reply."""

from __future__ import annotations

import json

from albireo.cli.session import Reply
from albireo.cli.writers import JsonlWriter, TextWriter
from albireo.errors import InvalidParams
from albireo.outputs import CompletionOutput, Logprob, RequestOutput


def reply(text, *, finished, prompt="Hi", place=0):
    output = RequestOutput("0", prompt, [1], [CompletionOutput(0, text, [2])], finished)
    return Reply(place, output)


def test_text_grows_by_what_is_new(capsys):
    writer = TextWriter([True])
    shown = []
    for each in (reply("", finished=False), reply(" the", finished=False), reply(" there", finished=True)):
        writer.write(each)
        shown.append(capsys.readouterr().out)
    assert shown == ["Hi", " the", "re\n"]


def test_token_ids_have_nothing_to_echo(capsys):
    TextWriter([True]).write(reply("x", finished=True, prompt=None))
    assert capsys.readouterr().out == "x\n"


def test_under_headings_only_what_is_finished(capsys):
    writer = TextWriter([True, False])
    writer.write(reply("x", finished=False))
    writer.write(reply("xy", finished=True, place=1))
    assert capsys.readouterr().out == "==> prompt 2 <==\nxy\n"


def test_refusals_are_no_text(capsys):
    TextWriter([True, True]).write(Reply(0, None, InvalidParams("no")))
    assert capsys.readouterr().out == ""


def test_jsonl_keeps_characters_and_refusals(capsys):
    writer = JsonlWriter()
    writer.write(reply("é\n", finished=False))
    writer.write(reply("é\n", finished=True))
    writer.write(Reply(3, None, InvalidParams("no")))
    lines = capsys.readouterr().out.splitlines()
    assert "é\\n" in lines[0]
    assert json.loads(lines[0])["outputs"][0]["text"] == "é\n"
    assert json.loads(lines[1]) == {"index": 3, "error": "no"}


def test_jsonl_shows_prompt_logprobs_when_there_are_any(capsys):
    each = reply("x", finished=True)
    JsonlWriter().write(each)
    assert "prompt_logprobs" not in json.loads(capsys.readouterr().out)
    each.output.prompt_logprobs = [None, {7: Logprob(-0.5, 1, "a")}]
    JsonlWriter().write(each)
    shown = json.loads(capsys.readouterr().out)["prompt_logprobs"]
    assert shown == [None, {"7": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}}]
