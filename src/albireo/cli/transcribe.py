"""Write down what is said in files of sound, with a model of speech.

Prints transcripts in the order of the files, when all are there.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click

from albireo.api.llm import LLM
from albireo.api.transcribe.subtitles import srt, vtt
from albireo.api.transcribe.transcription import SAMPLING
from albireo.cli.options import engine_options
from albireo.errors import InvalidParams
from albireo.outputs import Transcript
from albireo.sounds.decode import MAX_SOUND_BYTES, Sound, decoded
from albireo.transcription_params import TASKS, Task, TranscriptionParams

STDIN = "-"
#: What is nothing without times.
_SUBTITLES = ("srt", "vtt")


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--language", metavar="CODE", help="That is spoken, such as en; by default the model says which.")
@click.option("--task", type=click.Choice(TASKS), default=TASKS[0], show_default=True, help="Translate: into English.")
@click.option("--prompt", default="", help="What was said before, or how words are spelt.")
@click.option(
    "--output",
    type=click.Choice(["text", "srt", "vtt", "json"]),
    default="text",
    show_default=True,
    help="Srt and vtt are subtitles; json, one line a file, has times, too, where the model tells them.",
)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: the likeliest tokens.")
@engine_options(without=("skip_tokenizer_init",))
def command(
    model: str,
    files: tuple[str, ...],
    language: str | None,
    task: Task,
    prompt: str,
    output: str,
    temperature: float,
    engine: dict[str, Any],
) -> None:
    """Write down what is said in files of sound, with a model of speech.

    MODEL is a directory or a hub name of a Whisper, a Parakeet, a Qwen3-ASR, a Voxtral, ...; FILE "-" is stdin.

    WAV, FLAC, OGG, MP3 and more; of any length: what is longer than the model hears at once is cut where it is quiet.

    \b
      albireo transcribe ./whisper-base talk.mp3
      albireo transcribe ./whisper-base talk.mp3 --output srt > talk.srt
      albireo transcribe ./whisper-base gespräch.flac --language de --task translate
    """
    asked = TranscriptionParams(language=language, task=task, prompt=prompt, timestamps=output in _SUBTITLES)
    sounds = [_read(name) for name in files]
    sampling = SAMPLING.clone(temperature=temperature)
    # all at once: windows of several files are written in one batch
    llm = LLM(model, **engine)
    if output == "json":
        asked = dataclasses.replace(asked, timestamps=llm.tells_times, words=llm.tells_words)
    transcripts = llm.transcribe(sounds, asked, sampling)
    for name, found in zip(files, transcripts, strict=True):
        click.echo(_shown(found, output, name), nl=output in ("text", "json"))


def _read(name: str) -> Sound:
    """Raises: InvalidParams naming the file, before a model is loaded for nothing."""
    try:
        data = sys.stdin.buffer.read(MAX_SOUND_BYTES + 1) if name == STDIN else Path(name).read_bytes()
        return decoded(data)
    except OSError as error:
        raise InvalidParams(f"{name}: cannot be read: {error.strerror}") from None
    except InvalidParams as error:
        raise InvalidParams(f"{name}: {error}") from None


def _shown(found: Transcript, output: str, name: str) -> str:
    if output == "srt":
        return srt(found.segments)
    if output == "vtt":
        return vtt(found.segments)
    if output == "json":
        return json.dumps({"file": name, **dataclasses.asdict(found)}, ensure_ascii=False)
    return found.text
