"""What the measurements inside this process share: options, and where the figures go.

Used by latency.py and throughput.py, and by startup.py as far as it runs no requests of its own. Does not know what is
measured.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from albireo.bench.timed import Sampling
from albireo.cli.options import apply, engine_options
from albireo.config import EngineConfig
from albireo.errors import ConfigError

_SAMPLING_OPTIONS = (
    click.option("--n", default=1, show_default=True, help="Continuations of each prompt."),
    click.option("--temperature", default=1.0, show_default=True, help="0 takes the likeliest token."),
    click.option("--disable-detokenize", is_flag=True, help="Leave text out of the time."),
)


def _with_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """What cannot be written is found before the run, not after it."""
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.BadParameter(f"{path.parent} cannot be made a folder: {error.strerror}") from None
    return path


OUTPUT_OPTIONS = (
    click.option(
        "--output-json",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        callback=_with_folder,
        help="Write all figures to this file.",
    ),
    click.argument("directory", metavar="[MODEL]", required=False),
    click.option("--model", help="The same as MODEL, as vLLM has it."),
)


@dataclass(frozen=True, slots=True)
class Offline:
    """What the shared options of a measurement say: the engine, how tokens are drawn, where the figures go."""

    config: EngineConfig
    sampling: Sampling
    output_json: Path | None


def offline_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a measurement that runs requests; the command gets them as `offline`."""

    @functools.wraps(command)
    def run(
        *,
        n: int,
        temperature: float,
        disable_detokenize: bool,
        output_json: Path | None,
        directory: str | None,
        model: str | None,
        engine: dict[str, Any],
        **own: Any,
    ) -> None:
        config = EngineConfig.from_kwargs(model=one_model(directory, model), **engine)
        has_text = not (disable_detokenize or config.skip_tokenizer_init)
        sampling = Sampling(n=n, temperature=temperature, seed=config.seed, detokenize=has_text)
        command(offline=Offline(config, sampling, output_json), **own)

    return apply([*_SAMPLING_OPTIONS, *OUTPUT_OPTIONS, engine_options()])(run)


def one_model(directory: str | None, model: str | None) -> str | None:
    """The model, however it was named."""
    if directory is not None and model is not None:
        raise ConfigError(f"MODEL {directory} and --model {model} are both given; keep one")
    return directory if model is None else model


def report(figures: dict[str, Any], lines: list[str], output_json: Path | None) -> None:
    """Print the lines; write the figures where a file is named."""
    click.echo("\n".join(lines))
    if output_json is not None:
        output_json.write_text(json.dumps(figures, indent=2) + "\n")
