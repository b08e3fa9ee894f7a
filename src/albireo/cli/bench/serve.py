"""Send load to an OpenAI-compatible server, and report how it answers.

The flags and the JSON keys of `vllm bench serve`, where the meaning is the same. Works against any such server.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from albireo.cli.bench.lists import ListCommand
from albireo.cli.bench.serve_dataset import dataset_of
from albireo.cli.bench.serve_options import DATASET_OPTIONS, RESULT_OPTIONS, SERVER_OPTIONS, TRAFFIC_OPTIONS
from albireo.cli.options import apply
from albireo.cli.terminal import Bar
from albireo.errors import ConfigError, ResourceError


@click.command(cls=ListCommand)
@apply(SERVER_OPTIONS)
@apply(DATASET_OPTIONS)
@apply(TRAFFIC_OPTIONS)
@apply(RESULT_OPTIONS)
def command(**given: Any) -> None:
    """Send load to an OpenAI-compatible server, and report how it answers.

    Requests are sent at their times whether or not earlier ones were answered. The environment's OPENAI_API_KEY is sent
    as the key. Exit code 1 when no request succeeded.
    """
    if find_spec("aiohttp") is None:
        raise ConfigError("bench serve needs aiohttp; install it with  pip install 'albireo[bench]'")
    from albireo.bench.serving.client import ServedModel
    from albireo.bench.serving.page import page
    from albireo.bench.serving.result import check_metadata, result_lines, result_of, warning_lines, without_details
    from albireo.bench.serving.session import measure, served_model
    from albireo.cli.bench.serve_setup import facts_of, server_of, setup_of, tokenizer_of, traffic_of, wanted_of

    wanted, dataset, server, traffic = wanted_of(given), dataset_of(given), server_of(given), traffic_of(given)
    name = given["model"]
    model = ServedModel(name, None) if name else served_model(server, traffic.ready_timeout_s)
    tokenizer_id, tokenizer = tokenizer_of(given, model)
    requests = dataset.requests(given["num_prompts"], given["seed"], tokenizer)
    setup = setup_of(given, traffic, model.model_id, tokenizer_id, len(requests))
    # What can be wrong with the output is found before the run, not after it.
    check_metadata(setup, wanted)
    now = datetime.now()
    json_path = (given["result_dir"] or Path()) / (given["result_filename"] or setup.file_name(now))
    for path in [*([json_path] if given["save_result"] else []), *([given["html"]] if given["html"] else [])]:
        _make_folder(path)
    with _Bars(is_shown=not given["disable_tqdm"]) as bars:
        run = measure(server, given["served_model_name"] or model.model_id, requests, traffic, bars.stage)
    result = result_of(run, setup, wanted, now)
    click.echo("\n".join(result_lines(result, wanted)))
    for line in warning_lines(result):
        click.echo(f"warning: {line}", err=True)
    if given["save_result"]:
        saved = result if given["save_detailed"] else without_details(result)
        json_path.write_text(json.dumps(saved) + "\n", "utf-8")
    if given["html"]:
        given["html"].write_text(page(run, result, setup, wanted, facts_of(given, server)), "utf-8")
    if not result["completed"]:
        raise ResourceError(f"none of {len(requests)} requests succeeded")


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from None


class _Bars:
    """A progress bar for each stage, one after another; meanwhile the collector leaves alone what is alive already."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar: Bar | None = None

    def __enter__(self) -> _Bars:
        gc.collect()
        gc.freeze()
        return self

    def __exit__(self, *error: object) -> None:
        gc.unfreeze()
        self._close()

    def stage(self, what: str, total: int) -> Callable[[], None]:
        """Begin a stage; gives what to call as each of its requests is done."""
        self._close()
        self._bar = Bar(total if self._is_shown else 0, what)
        return self._bar.advance

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None
