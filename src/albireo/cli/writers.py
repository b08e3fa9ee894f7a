"""Replies -> stdout: as text that grows, or as a line of JSON for each prompt.

Used by generate.py. Gets replies in the order of the prompts. Does not know where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

import click

from albireo.cli.session import Reply
from albireo.outputs import CompletionOutput, RequestOutput


class Writer(Protocol):
    """Text and JSONL."""

    def write(self, reply: Reply) -> None:
        """Print what is new in a reply."""
        ...


class TextWriter:
    """Prompt and continuation, as they read on. Several come under headings, as head(1) prints several files.

    Args:
        echoes: of each prompt whether its output begins with it.
    """

    def __init__(self, echoes: Sequence[bool]) -> None:
        self._echoes = echoes
        self._has_headings = len(echoes) > 1
        self._num_shown: int | None = None

    def write(self, reply: Reply) -> None:
        """See Writer. A reply that goes on is the only one there is."""
        if reply.output is None:
            return
        if len(reply.output.outputs) == 1 and not self._has_headings:
            self._grow(reply.output)
        elif reply.is_last:
            for each in reply.output.outputs:
                click.echo(self._heading(reply.place, reply.output, each))
                click.echo(self._prompt(reply.place, reply.output) + each.text)

    def _grow(self, output: RequestOutput) -> None:
        text = output.outputs[0].text
        if self._num_shown is None:
            click.echo(self._prompt(0, output), nl=False)
            self._num_shown = 0
        click.echo(text[self._num_shown :], nl=output.finished)
        self._num_shown = len(text)

    def _prompt(self, place: int, output: RequestOutput) -> str:
        return output.prompt if self._echoes[place] and output.prompt is not None else ""

    def _heading(self, place: int, output: RequestOutput, each: CompletionOutput) -> str:
        names = [f"prompt {place + 1}"] if self._has_headings else []
        names += [f"continuation {each.index + 1}"] if len(output.outputs) > 1 else []
        return f"==> {', '.join(names)} <=="


class JsonlWriter:
    """One object a prompt, with the fields of RequestOutput; {"index", "error"} for one that was refused."""

    def write(self, reply: Reply) -> None:
        """See Writer."""
        if reply.is_last:
            click.echo(json.dumps({"index": reply.place, **_record(reply)}, ensure_ascii=False))


def _record(reply: Reply) -> dict[str, Any]:
    output = reply.output
    if output is None:
        return {"error": str(reply.refusal)}
    record: dict[str, Any] = {
        "prompt": output.prompt,
        "prompt_token_ids": output.prompt_token_ids,
        "outputs": [asdict(each) for each in output.outputs],
        "num_cached_tokens": output.num_cached_tokens,
    }
    if output.prompt_logprobs is not None:
        record["prompt_logprobs"] = [
            entry and {token_id: asdict(each) for token_id, each in entry.items()} for entry in output.prompt_logprobs
        ]
    return record
