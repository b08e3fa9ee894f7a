"""Go on with a text, or with many: from arguments, a file or stdin.

Prints while the model writes when there is one prompt; several run together and come out in order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, TextIO

import click

from albireo.api.requests.beam_search import checked_params
from albireo.api.requests.submission import Submission
from albireo.api.sources.locate import locate_model
from albireo.cli.media import Shown, media_options
from albireo.cli.options import engine_options, sampling_options
from albireo.cli.prompts import STDIN, InputFormat, PromptLine, read_prompts, split_arguments
from albireo.cli.session import Reply, Session, with_adapter
from albireo.cli.terminal import Bar
from albireo.cli.timings import timings_line
from albireo.cli.writers import JsonlWriter, TextWriter, Writer
from albireo.config import EngineConfig
from albireo.errors import InvalidParams, ModelError, RequestError, UnsupportedFeature
from albireo.outputs import RequestOutput

#: When neither a flag nor the model says how much.
MAX_TOKENS = 256


@click.command()
@click.argument("arguments", nargs=-1, metavar="[MODEL] [PROMPT]...")
@click.option("--model", help="The model; then every argument is a prompt.")
@click.option("--input-file", help="Prompts, one a line, or JSONL; - is stdin.")
@click.option(
    "--input-format",
    type=click.Choice(["auto", "text", "jsonl"]),
    default="auto",
    show_default=True,
    help="Auto: JSONL when the first line begins with a brace.",
)
@click.option("--output", type=click.Choice(["text", "jsonl"]), default="text", show_default=True)
@click.option(
    "--echo/--no-echo", default=None, help="Text output begins with the prompt; by default where that is gone on with."
)
@media_options
@click.option(
    "--json-schema",
    type=click.File(encoding="utf-8"),
    help="The output is JSON, on one line, that fits the schema in this file.",
)
@click.option("--regex", help="The output matches this regular expression from its beginning to its end.")
@click.option("--beam-width", type=int, help="Search for the likeliest outputs with so many beams, and give them all.")
@click.option("--length-penalty", type=float, help="Of a beam search: above 1 favours long outputs, 0 short ones.")
@click.option("--lora", metavar="DIR", help="An adapter (LoRA) that every prompt has; --enable-lora goes with it.")
@click.option("--stats", is_flag=True, help="A line of timings on stderr at the end.")
@sampling_options(max_tokens=str(MAX_TOKENS))
@engine_options(without=("seed", "skip_tokenizer_init"))
def command(
    arguments: tuple[str, ...],
    model: str | None,
    input_file: str | None,
    input_format: InputFormat,
    output: str,
    echo: bool | None,
    images: tuple[str, ...],
    sounds: tuple[str, ...],
    videos: tuple[str, ...],
    json_schema: TextIO | None,
    regex: str | None,
    beam_width: int | None,
    length_penalty: float | None,
    lora: str | None,
    stats: bool,
    sampling: dict[str, Any],
    engine: dict[str, Any],
) -> None:
    """Go on with a text, or with many: from arguments, a file or stdin.

    The first argument is the MODEL when it is a directory or written like one (./model), a GGUF file, or like a hub
    name (owner/name); otherwise it is a PROMPT, for the bundled model. With --model every argument is a PROMPT. Without
    a PROMPT, and for "-", prompts are read from stdin.

    \b
      albireo generate "Once upon a time"
      albireo generate ./my-model "Once upon a time" --temperature 0
      albireo generate --input-file prompts.jsonl --output jsonl > answers.jsonl

    A line of JSONL is an object with "prompt" (text or token ids) and any sampling parameter, structured_outputs and
    beam_width too:
    {"prompt": "The sun", "max_tokens": 20}. It goes before the flags, which go before the model's recommendation. With
    "messages" in place of the prompt it is a chat.

    With --image, --audio or --video each prompt is a question about the pictures, sounds or videos, asked by the
    model's chat template, and the answer alone is printed; only a prompt that holds the model's own mark of one is gone
    on with.

    \b
      albireo generate ./my-model --image cat.png "What is it?"
      albireo generate ./my-model --audio bird.mp3 "What is it?"
      albireo generate ./my-model --video match.mp4 "Who wins?"
    """
    if "logprobs" in sampling and output != "jsonl":
        raise click.UsageError("--logprobs are shown in --output jsonl only.")
    sampling |= _form(json_schema, regex)
    beams = {"beam_width": beam_width, "length_penalty": length_penalty}
    sampling |= {name: value for name, value in beams.items() if value is not None}
    name, texts = split_arguments(model, arguments)
    if name is None and len(texts) > 1 and texts[0] and not any(mark.isspace() for mark in texts[0]):
        # what is written like a model that is not there would be gone on with, by another model
        click.echo(f"note: there is no directory {texts[0]}, so it is a prompt; --model names a model", err=True)
    lines = _collect(texts, input_file, input_format)
    for line in lines:
        _check(line, sampling, "--image" if images else "--audio" if sounds else "--video" if videos else "")
    shown = Shown.named(images, sounds, videos)
    directory = None if name is None else _locate(name, is_argument=model is None)
    session = Session(EngineConfig.from_kwargs(model=directory, **with_adapter(engine, lora)), lora)
    lines = [_asked(line, shown, session.marks) for line in lines]
    echoed = [echo if echo is not None else line.messages is None for line in lines]
    writer: Writer = JsonlWriter() if output == "jsonl" else TextWriter(echoed)
    finished, num_failed = _run(session, lines, sampling, shown, writer)
    if stats and finished:
        click.echo(timings_line(finished, session.loaded.load_s), err=True)
    if num_failed:
        click.get_current_context().exit(1)


def _form(json_schema: TextIO | None, regex: str | None) -> dict[str, Any]:
    """What the flags say about the output's form, as a sampling parameter."""
    if json_schema is None and regex is None:
        return {}
    if json_schema is not None and regex is not None:
        raise click.UsageError("--json-schema and --regex are two forms; give one of them.")
    try:
        # JSON on one line: it is read by programs, and small models waste tokens on white space.
        compact = {} if json_schema is None else {"json": json_schema.read(), "disable_any_whitespace": True}
    except ValueError as error:
        raise click.UsageError(f"--json-schema: the file is not UTF-8 ({error}).") from None
    return {"structured_outputs": compact or {"regex": regex}}


def in_order(replies: Iterable[Reply]) -> Iterator[Reply]:
    """The replies by place; those that come before their turn wait for it. Of a growing one, only the first in turn."""
    early: dict[int, Reply] = {}
    turn = 0
    for reply in replies:
        if not reply.is_last:
            if reply.place == turn:
                yield reply
            continue
        early[reply.place] = reply
        while turn in early:
            yield early.pop(turn)
            turn += 1


def _collect(texts: list[str], input_file: str | None, input_format: InputFormat) -> list[PromptLine]:
    """What to run. Raises: click.UsageError when there is nothing, or too much."""
    if input_file is not None:
        if texts:
            raise click.UsageError("There are prompts as arguments and an --input-file; give one of them.")
        return read_prompts(input_file, input_format)
    for idx, text in enumerate(texts):
        if any("\ud800" <= mark <= "\udfff" for mark in text):  # Python's way to keep bytes that are no text
            raise InvalidParams(
                f"prompt {idx + 1} is no text in the terminal's encoding; write it as UTF-8, or set LC_ALL=C.UTF-8"
            )
    if texts and texts != [STDIN]:
        return [PromptLine(text) for text in texts]
    if not texts and sys.stdin.isatty():
        raise click.UsageError('There is no prompt. Try: albireo generate "Once upon a time"')
    return read_prompts(STDIN, input_format)


def _check(line: PromptLine, flags: Mapping[str, Any], media: str) -> None:
    """Args: media: the option that shows some, or empty.

    Raises: InvalidParams naming the line, before a model is loaded for nothing.
    """
    if media and line.messages is not None:
        what = {"--image": "pictures", "--audio": "sounds", "--video": "videos"}[media]
        raise InvalidParams(_placed(line, f"its messages say where {what} are; leave {media} out, or give a prompt"))
    try:
        checked_params({**flags, **line.fields})
    except (InvalidParams, UnsupportedFeature, TypeError) as error:
        raise InvalidParams(_placed(line, error)) from None


def _asked(line: PromptLine, shown: Shown, marks: Sequence[str]) -> PromptLine:
    """A line that is a question about what is shown, as a chat: a text has places for that only where it says so.

    Args: marks: with which it says so; none where the model reads none, which the engine tells.
    """
    if not shown or not marks or not isinstance(line.prompt, str) or any(mark in line.prompt for mark in marks):
        return line
    return replace(line, messages=[shown.message(line.prompt)])


def _locate(name: str, *, is_argument: bool) -> str:
    try:
        return str(locate_model(name))
    except ModelError as error:
        hint = f'. To go on with it as text: albireo generate --model MODEL "{name}"' if is_argument else ""
        raise ModelError(f"{error}{hint}") from None


def _run(
    session: Session,
    lines: list[PromptLine],
    flags: Mapping[str, Any],
    shown: Shown,
    writer: Writer,
) -> tuple[list[RequestOutput], int]:
    """Run and print. Returns: what finished, and how many did not."""
    finished: list[RequestOutput] = []
    requests = [partial(_prepare, session, line, flags, shown) for line in lines]
    is_streaming = len(lines) == 1
    with Bar(len(lines), "Generating") as bar, closing(session.run(requests, is_streaming=is_streaming)) as replies:
        for reply in in_order(_counted(replies, bar)):
            bar.step_aside()
            writer.write(reply)
            if not reply.is_last:
                continue
            problem = _problem(reply)
            if problem is not None:
                click.echo(f"error: {_placed(lines[reply.place], problem)}", err=True)
            elif reply.output is not None:
                finished.append(reply.output)
    return finished, len(lines) - len(finished)


def _prepare(session: Session, line: PromptLine, flags: Mapping[str, Any], shown: Shown) -> Submission:
    params = session.params({**flags, **line.fields}, MAX_TOKENS)
    if line.messages is not None:
        return session.chat(line.messages, params)
    return session.text(line.prompt, params, shown.data)


def _counted(replies: Iterable[Reply], bar: Bar) -> Iterator[Reply]:
    for reply in replies:
        if reply.is_last:
            bar.advance()
        yield reply


def _problem(reply: Reply) -> RequestError | str | None:
    """Why a request gave nothing, or not all: it was refused, or the engine gave it up."""
    if reply.output is None:
        return reply.refusal
    return next((str(each.stop_reason) for each in reply.output.outputs if each.finish_reason == "error"), None)


def _placed(line: PromptLine, problem: object) -> str:
    return f"{line.where}: {problem}" if line.where else str(problem)
