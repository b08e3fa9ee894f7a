"""Files of deploy/ say what the server takes: flags, routes without a key, extras, seconds to end in."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from albireo.cli.serve import command
from albireo.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def _container():
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    return deployment["spec"]["template"]["spec"], service["spec"]


def _entry_point():
    (line,) = re.findall(r"^ENTRYPOINT (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return json.loads(line)


def _unit():
    lines = (DEPLOY / "albireo.service").read_text().splitlines()
    return [line.partition("=")[::2] for line in lines if "=" in line and not line.startswith("#")]


def _serve_flags():
    """Of each way to start it, what stands behind `albireo serve`."""
    (container,) = _container()[0]["containers"]
    entry = _entry_point()
    assert entry[:2] == ["albireo", "serve"]
    examples = [[*entry[2:], *container["args"]]]
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if "docker run" in line:
            words = shlex.split(line.removeprefix("#"), comments=True)
            examples.append([*entry[2:], *words[words.index("albireo") + 1 :]])
    assert shlex.split(dict(_unit())["ExecStart"])[1:] == ["serve", "$SERVE"]
    (example,) = re.findall(r'SERVE="(.+?)"', (DEPLOY / "albireo.service").read_text())
    return [pytest.param(flags, id=" ".join(flags)) for flags in (*examples, shlex.split(example))]


@pytest.mark.parametrize("flags", _serve_flags())
def test_flags_are_those_of_serve(flags):
    assert command.make_context("serve", list(flags)).params


def test_probes_ask_what_needs_no_key_at_the_port_that_is_listened_at():
    pod, service = _container()
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == service["ports"][0]["port"] == ServerSettings().port
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": port["name"]}
    assert "tcpSocket" in container["livenessProbe"]  # an engine that is started again must not end the pod
    assert f"127.0.0.1:{ServerSettings().port}/health" in (DEPLOY / "Dockerfile").read_text()


def test_running_requests_have_their_time_to_end():
    pod, _ = _container()
    least = ServerSettings().shutdown_timeout
    assert pod["terminationGracePeriodSeconds"] > least
    assert int(dict(_unit())["TimeoutStopSec"]) > least


def test_extras_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [(DEPLOY / name).read_text() for name in ("Dockerfile", "albireo.service")]
    named = {each for text in texts for names in re.findall(r"\[(serve[\w,]*)\]", text) for each in names.split(",")}
    assert named == {"serve", "structured", "hub"} <= set(extras)
