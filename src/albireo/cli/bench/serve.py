"""Send load to an OpenAI-compatible server, and report how it answers.

The flags and the JSON keys of `vllm bench serve`, where the meaning is the same. Works against any such server.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from albireo.api.locate import BUNDLED, locate_model
from albireo.artifact.reader import tokenizer_directory
from albireo.bench.machine import machine_facts
from albireo.cli.bench.lists import ListCommand, pairs
from albireo.cli.bench.serve_dataset import EXACT_LEN, dataset_of
from albireo.cli.bench.serve_options import (
    DATASET_OPTIONS,
    RESULT_OPTIONS,
    SAMPLING_FLAGS,
    SERVER_OPTIONS,
    TRAFFIC_OPTIONS,
)
from albireo.cli.options import apply
from albireo.cli.terminal import Bar
from albireo.devflags import openai_api_key
from albireo.errors import ConfigError, ModelError, ResourceError
from albireo.text.tokenizer import Tokenizer


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
    from albireo.bench.serving.metrics import Wanted
    from albireo.bench.serving.page import page
    from albireo.bench.serving.result import Setup, result_lines, result_of, warning_lines
    from albireo.bench.serving.session import Traffic, measure, served_model

    wanted = Wanted(
        metrics=tuple(given["percentile_metrics"].split(",")),
        percentiles=tuple(_number(text, "--metric-percentiles") for text in given["metric_percentiles"].split(",")),
        goodput={key: _number(ms, "--goodput") for key, ms in pairs(given["goodput"], "--goodput", ":").items()},
    )
    metadata = pairs(given["metadata"], "--metadata")
    dataset = dataset_of(given)
    server = _server(given)
    traffic = Traffic(
        request_rate=given["request_rate"],
        burstiness=given["burstiness"],
        max_concurrency=given["max_concurrency"],
        num_warmups=given["num_warmups"],
        ready_timeout_s=given["ready_check_timeout_sec"],
        seed=given["seed"],
        body=_body(given),
        request_id_prefix=given["request_id_prefix"],
    )
    served = None if given["model"] else served_model(server, traffic.ready_timeout_s)
    model = given["model"] or (served.model_id if served else "")
    tokenizer_id, tokenizer = _tokenizer(given, [model, *([served.root] if served and served.root else [])])
    requests = dataset.requests(given["num_prompts"], given["seed"], tokenizer)
    # What is alive now stays: collections during the run need not look at it.
    gc.collect()
    gc.freeze()
    bars = _Bars(is_shown=not given["disable_tqdm"])
    try:
        run = measure(server, given["served_model_name"] or model, requests, traffic, bars.stage)
    finally:
        gc.unfreeze()
        bars.close()
    setup = Setup(
        backend=given["backend"],
        model_id=model,
        num_prompts=len(requests),
        label=given["label"],
        tokenizer_id=tokenizer_id,
        request_rate=traffic.request_rate,
        burstiness=traffic.burstiness,
        max_concurrency=traffic.max_concurrency,
        is_exact_len=bool(traffic.body.get("ignore_eos")),
        metadata=metadata,
    )
    now = datetime.now()
    result = result_of(run, setup, wanted, now)
    click.echo("\n".join(result_lines(result, wanted)))
    for line in warning_lines(result):
        click.echo(f"warning: {line}", err=True)
    if given["save_result"]:
        name = given["result_filename"] or setup.file_name(now)
        _save(result, (given["result_dir"] or Path()) / name, is_detailed=given["save_detailed"])
    if given["html"] is not None:
        given["html"].write_text(page(run, result, setup, wanted, _facts(given, server)), "utf-8")
    if not result["completed"]:
        raise ResourceError(f"none of {len(requests)} requests succeeded")


def _server(given: Mapping[str, Any]) -> Any:
    from albireo.bench.serving.client import Server

    headers = pairs(given["headers"], "--header")
    key = openai_api_key()
    if key and "authorization" not in map(str.lower, headers):
        headers["Authorization"] = f"Bearer {key}"
    host = f"[{given['host']}]" if ":" in given["host"] else given["host"]
    return Server(
        base_url=given["base_url"] or f"http://{host}:{given['port']}",
        backend=given["backend"],
        endpoint=given["endpoint"] or "",
        headers=headers,
        is_verified=not given["insecure"],
    )


def _body(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that every request has beside the usual."""
    body = {name: given[name] for name in SAMPLING_FLAGS if given[name] is not None}
    if given["dataset_name"] in EXACT_LEN if given["ignore_eos"] is None else given["ignore_eos"]:
        body["ignore_eos"] = True
    if given["extra_body"] is None:
        return body
    try:
        extra = json.loads(given["extra_body"])
    except ValueError as error:
        raise ConfigError(f"--extra-body is not JSON: {error}") from None
    if not isinstance(extra, dict):
        raise ConfigError(f"--extra-body is {type(extra).__name__}; give a JSON object")
    return {**body, **extra}


def _tokenizer(given: Mapping[str, Any], names: list[str]) -> tuple[str | None, Tokenizer | None]:
    """The tokenizer of the first of these names that is a directory here, or can be fetched; and its name."""
    if given["skip_tokenizer_init"]:
        return None, None
    if given["tokenizer"]:
        return given["tokenizer"], _load(locate_model(given["tokenizer"]))
    for name in names:
        if Path(name).is_dir():
            return name, _load(Path(name))
        if name.rpartition("/")[2] == BUNDLED.name:
            return name, _load(BUNDLED)
    try:
        return names[-1], _load(locate_model(names[-1]))
    except ModelError as error:
        raise ConfigError(f"prompts need the model's tokenizer; give --tokenizer DIR: {error}") from None


def _load(directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(tokenizer_directory(directory))


def _save(result: Mapping[str, Any], path: Path, *, is_detailed: bool) -> None:
    from albireo.bench.serving.result import without_details

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result if is_detailed else without_details(result)) + "\n", "utf-8")


def _facts(given: Mapping[str, Any], server: Any) -> dict[str, str]:
    """What the page says of the load and of where the client ran; nothing that is secret."""
    facts = machine_facts()
    return {
        "server": server.shown_url,
        "data set": given["dataset_name"] + (f", {given['dataset_path'].name}" if given["dataset_path"] else ""),
        "seed": str(given["seed"]),
        "client's machine": f"{facts.cpu}, {facts.num_cpus} logical processors, {facts.system}",
    }


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} holds {text!r}, which is no number") from None


class _Bars:
    """A progress bar for each stage, one after another."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar: Bar | None = None

    def stage(self, what: str, total: int) -> Callable[[], None]:
        """Begin a stage; gives what to call as each of its requests is done."""
        self.close()
        self._bar = Bar(total if self._is_shown else 0, what)
        return self._bar.advance

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None
