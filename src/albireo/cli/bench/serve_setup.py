"""Flags of serve.py -> the server, the traffic, the tokenizer, and what to report.

Used by serve.py. Imports the HTTP client, so it is imported when the command runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albireo.api.sources.locate import BUNDLED, locate_model
from albireo.api.tokenizer import open_tokenizer
from albireo.artifact.reader import tokenizer_directory
from albireo.bench.machine import machine_facts
from albireo.bench.serving.client import ServedModel, Server
from albireo.bench.serving.metrics import Wanted
from albireo.bench.serving.result import Setup
from albireo.bench.serving.session import Traffic
from albireo.cli.bench.lists import pairs
from albireo.cli.bench.serve_dataset import EXACT_LEN
from albireo.cli.bench.serve_options import SAMPLING_FLAGS
from albireo.devflags import openai_api_key
from albireo.errors import ConfigError, ModelError
from albireo.models.gguf.files import is_gguf
from albireo.text.tokenizer import Tokenizer


def wanted_of(given: Mapping[str, Any]) -> Wanted:
    """What to report."""
    return Wanted(
        metrics=tuple(given["percentile_metrics"].split(",")),
        percentiles=tuple(_number(text, "--metric-percentiles") for text in given["metric_percentiles"].split(",")),
        goodput={key: _number(ms, "--goodput") for key, ms in pairs(given["goodput"], "--goodput", ":").items()},
    )


def server_of(given: Mapping[str, Any]) -> Server:
    """Where requests go."""
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


def traffic_of(given: Mapping[str, Any]) -> Traffic:
    """How they are sent."""
    return Traffic(
        request_rate=given["request_rate"],
        burstiness=given["burstiness"],
        max_concurrency=given["max_concurrency"],
        num_warmups=given["num_warmups"],
        ready_timeout_s=given["ready_check_timeout_sec"],
        seed=given["seed"],
        body=_body(given),
        request_id_prefix=given["request_id_prefix"],
    )


def tokenizer_of(given: Mapping[str, Any], model: ServedModel) -> tuple[str | None, Tokenizer | None]:
    """The tokenizer named, or the model's where its name or root is a directory or can be fetched; and its name."""
    if given["skip_tokenizer_init"]:
        return None, None
    if given["tokenizer"]:
        return given["tokenizer"], _load(locate_model(given["tokenizer"]))
    names = [model.model_id, *([model.root] if model.root else [])]
    for name in names:
        if Path(name).is_dir() or (is_gguf(Path(name)) and Path(name).exists()):
            return name, _load(locate_model(name))
        if name.rpartition("/")[2] == BUNDLED.name:
            return name, _load(BUNDLED)
    try:
        return names[-1], _load(locate_model(names[-1]))
    except ModelError as error:
        raise ConfigError(f"prompts need the model's tokenizer; give --tokenizer DIR: {error}") from None


def setup_of(given: Mapping[str, Any], traffic: Traffic, model: str, tokenizer: str | None, num_prompts: int) -> Setup:
    """What goes into the result."""
    return Setup(
        backend=given["backend"],
        model_id=model,
        num_prompts=num_prompts,
        label=given["label"],
        tokenizer_id=tokenizer,
        request_rate=traffic.request_rate,
        burstiness=traffic.burstiness,
        max_concurrency=traffic.max_concurrency,
        is_exact_len=bool(traffic.body.get("ignore_eos")),
        metadata=pairs(given["metadata"], "--metadata"),
    )


def facts_of(given: Mapping[str, Any], server: Server) -> dict[str, str]:
    """What the page says of the load and of where the client ran; nothing that is secret."""
    facts = machine_facts()
    return {
        "server": server.shown_url,
        "data set": given["dataset_name"] + (f", {given['dataset_path'].name}" if given["dataset_path"] else ""),
        "seed": str(given["seed"]),
        "client's machine": f"{facts.cpu}, {facts.num_cpus} logical processors, {facts.system}",
    }


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


def _load(directory: Path) -> Tokenizer:
    return open_tokenizer(tokenizer_directory(directory))


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} holds {text!r}, which is no number") from None
