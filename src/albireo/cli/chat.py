"""Talk to a model in the terminal, by its own chat template.

With stdin from a pipe each line is one message, and nothing but the answers is printed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click

from albireo.api.sources.locate import locate_model
from albireo.api.tokenizer import chat_templates
from albireo.artifact.reader import tokenizer_directory
from albireo.cli.media import Shown, media_options, open_picture, open_sound, open_video, typed_name
from albireo.cli.options import engine_options, sampling_options
from albireo.cli.session import Reply, Session, with_adapter
from albireo.cli.timings import timings_line
from albireo.config import EngineConfig
from albireo.errors import InvalidParams, PromptTooLong, TemplateError
from albireo.params import SamplingParams

HELP = (
    "/reset forgets the conversation, /image FILE, /audio FILE and /video FILE go with the next message, /stats "
    "switches timings on and off, /exit ends it (so does Ctrl-D)"
)


@click.command()
@click.argument("model", required=False)
@click.option("--system-prompt", help="What the model is told before the conversation.")
@media_options
@click.option("--lora", metavar="DIR", help="An adapter (LoRA) that answers; --enable-lora goes with it.")
@click.option("--stats", is_flag=True, help="Timings after each answer, on stderr.")
@sampling_options(max_tokens="what the context leaves", without=("n", "logprobs"))
@engine_options(without=("seed", "skip_tokenizer_init", "max_logprobs"))
def command(
    model: str | None,
    system_prompt: str | None,
    images: tuple[str, ...],
    sounds: tuple[str, ...],
    videos: tuple[str, ...],
    lora: str | None,
    stats: bool,
    sampling: dict[str, Any],
    engine: dict[str, Any],
) -> None:
    """Talk to a model in the terminal, by its own chat template.

    MODEL is a directory or a hub name; the bundled model when left out. Inside: /reset forgets the conversation,
    /image FILE, /audio FILE and /video FILE go with the next message, as --image, --audio and --video do with the
    first, /stats switches timings on and off, /exit ends it. Ctrl-C stops an answer.
    """
    SamplingParams(**sampling)
    directory = locate_model(model)
    _require_template(directory)
    shown = Shown.named(images, sounds, videos)
    config = EngineConfig.from_kwargs(model=str(directory), **with_adapter(engine, lora))
    chat = Chat(Session(config, lora), sampling, system_prompt, has_stats=stats, shown=shown)
    if sys.stdin.isatty():
        click.echo(f"{directory.absolute().name}: {HELP}", err=True)
    for line in _messages():
        if line.startswith("/"):
            if not chat.obey(line.strip()):
                break
        elif line.strip():
            chat.say(line)
    if chat.num_failed and not sys.stdin.isatty():
        click.get_current_context().exit(1)


class Chat:
    """A conversation. Invariant: it ends with an answer, or holds no message but the system prompt."""

    def __init__(
        self,
        session: Session,
        sampling: Mapping[str, Any],
        system_prompt: str | None,
        *,
        has_stats: bool,
        shown: Shown,
    ) -> None:
        """Args: shown: what goes with the first message."""
        self.num_failed = 0
        self._session = session
        self._params = session.params(sampling, max_tokens=None)
        self._start = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
        self._messages: list[dict[str, Any]] = list(self._start)
        self._has_stats = has_stats
        self._shown = shown

    def obey(self, command: str) -> bool:
        """Do what a line that begins with a slash says. Returns: False for the end."""
        if command == "/exit":
            return False
        if command == "/reset":
            self._messages, self._shown = list(self._start), Shown()
            click.echo("the conversation is forgotten", err=True)
        elif command == "/stats":
            self._has_stats = not self._has_stats
            click.echo(f"timings are {'on' if self._has_stats else 'off'}", err=True)
        elif command.split()[0] in ("/image", "/audio", "/video"):
            self._show(*command.partition(" ")[::2])
        else:
            click.echo(f"{command} is no command: {HELP}", err=True)
        return True

    def _show(self, command: str, words: str) -> None:
        """Keep the picture, sound or video that somebody names for the next message."""
        try:
            if not words.strip():
                raise InvalidParams(f"{command} needs the name of a file, or a URL")
            name = typed_name(words.strip())
            if command == "/image":
                self._shown.images.append(open_picture(name))
            elif command == "/audio":
                self._shown.sounds.append(open_sound(name))
            else:
                self._shown.videos.append(open_video(name))
        except InvalidParams as error:
            self.num_failed += 1
            click.echo(f"error: {error}", err=True)
            return
        click.echo(f"{self._shown} will go with the next message", err=True)

    def say(self, text: str) -> None:
        """Send a message, print the answer while it comes, and keep both; neither when the message is refused, with
        what it shows: what is wrong may be a part of that."""
        messages = [*self._messages, self._shown.message(text)]
        reply = self._answer(messages)
        if reply is None:
            return
        shown, self._shown = self._shown, Shown()
        if reply.output is None:
            self.num_failed += 1
            click.echo(f"error: {reply.refusal}{_advice(reply, shown)}", err=True)
            return
        output = reply.output.outputs[0]
        self._messages = [*messages, {"role": "assistant", "content": output.text}]
        if output.finish_reason == "error":
            self.num_failed += 1
            click.echo(f"error: {output.stop_reason}", err=True)
        limit = self._session.loaded.settings.max_model_len
        if len(reply.output.prompt_token_ids) + len(output.token_ids) >= limit:
            click.echo(f"the context of {limit} tokens is full; /reset starts the conversation again", err=True)
        if self._has_stats:
            click.echo(timings_line([reply.output]), err=True)

    def _answer(self, messages: list[dict[str, Any]]) -> Reply | None:
        """The last reply; what there was of it when Ctrl-C stopped it on a terminal, None when that was nothing."""
        reply: Reply | None = None
        num_shown = 0
        requests = [lambda: self._session.chat(messages, self._params)]
        try:
            with closing(self._session.run(requests, is_streaming=True)) as replies:
                for reply in replies:
                    if reply.output is not None:
                        text = reply.output.outputs[0].text
                        click.echo(text[num_shown:], nl=reply.is_last)
                        num_shown = len(text)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            click.echo()
        return reply


def _messages() -> Iterator[str]:
    """Lines of the user: typed behind a prompt, or from a pipe."""
    if not sys.stdin.isatty():
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # bytes that are no UTF-8 are shown, not fatal
        for line in sys.stdin:
            yield line.rstrip("\r\n")
        return
    with suppress(ImportError):  # not every Python has it
        import readline  # noqa: F401  (from here on input() has history and editing)

    while True:
        try:
            yield input("> ")
        except EOFError:
            click.echo()
            return


def _require_template(directory: Path) -> None:
    """Raises: TemplateError saying what to do, before weights are loaded for nothing."""
    templates = chat_templates(tokenizer_directory(directory))
    if "default" in templates:
        return
    what = (
        f"has chat templates ({', '.join(sorted(templates))}) but no default one"
        if templates
        else "has no chat template (neither in tokenizer_config.json nor chat_template.jinja): it is not a chat model, "
        "or the file is missing"
    )
    raise TemplateError(
        f'{directory} {what}. To go on with a text: albireo generate {directory} "Once upon a time"; with a model of '
        f"speech: albireo transcribe {directory} FILE"
    )


def _advice(reply: Reply, shown: Shown) -> str:
    again = ". /reset starts the conversation again" if isinstance(reply.refusal, PromptTooLong) else ""
    return again + (f". The message is left out, with {shown}" if shown else "")
