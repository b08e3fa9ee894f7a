"""Serve a model over HTTP, as OpenAI's clients expect it.

Ends with 0 after SIGTERM or Ctrl-C, with 1 when the engine cannot run any more. The engine process begins before what a
server is made of is imported here, so that a start takes as long as the slower of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from albireo import devflags
from albireo.cli import environment
from albireo.cli.folder import uncollected
from albireo.cli.options import engine_options, server_options
from albireo.cli.served import ServedCommand, needs_serve, other_models, server_settings
from albireo.config import EngineConfig
from albireo.engine_process.spawned import Spawned
from albireo.errors import ConfigError

if TYPE_CHECKING:
    from albireo.replicas.place import Place
    from albireo.server.settings import ServerSettings


@click.command(cls=ServedCommand)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@server_options()
@engine_options(without=("skip_tokenizer_init",))
def command(models: tuple[str, ...], server: dict[str, Any], engine: dict[str, Any]) -> None:
    """Serve a model over HTTP, as OpenAI's clients expect it.

    MODEL is a directory, a GGUF file or a hub name, or ollama:NAME, a model that Ollama has fetched; the bundled model
    when left out. NAME=MODEL names what it answers to. Of several, a request's field model chooses; each is loaded when
    it is first asked for, and sleeps when another one needs the memory (--max-awake-models):

    \b
      albireo serve small=./qwen-0.5b big=./qwen-7b
    """
    server["api_key"] = [key for text in server.get("api_key", ()) for key in _keys(text)]
    for note in environment.notes(devflags.variables()):
        click.echo(f"note: {note}", err=True)
    if not server["api_key"] and (found := environment.keys_of(devflags.variables())) is not None:
        server["api_key"] = found[1]
        click.echo(f"note: requests need the key of {found[0]}; --api-key names others", err=True)
    others = other_models(models, server)
    settings = server_settings(models[0] if models else None, server, engine)
    if settings.batch_dir is not None and engine.setdefault("scheduling_policy", "priority") != "priority":
        raise ConfigError(
            f"batch_dir needs scheduling_policy=priority, not {engine['scheduling_policy']}: batches run behind all "
            "whose readers wait; leave the policy out"
        )
    config = EngineConfig.from_kwargs(**engine)
    # Of several models none is loaded before it is asked for, and Ray's engines run elsewhere.
    is_alone = not others and settings.distributed_executor_backend != "ray"
    with _spawned(config.data_parallel_size if is_alone else 0) as spawned:
        _serve(settings, engine, config, others, spawned)


@contextmanager
def _spawned(num: int) -> Iterator[list[Spawned]]:
    """Engine processes that import what they need, until a server takes them over; none is left at the end."""
    begun: list[Spawned] = []
    try:
        with suppress(OSError):  # whoever starts them later meets it again, and tells
            begun.extend(Spawned() for _ in range(num))
        yield begun
    finally:
        for each in begun:
            each.end()


def _serve(
    settings: ServerSettings,
    engine: dict[str, Any],
    config: EngineConfig,
    others: dict[str, str],
    spawned: list[Spawned],
) -> None:
    with needs_serve("serve"), uncollected():
        from albireo.replicas.place import local_places
        from albireo.server.run import serve

    def say(line: str) -> None:
        click.echo(line, err=True)

    if others:
        from albireo.server.several import check_several

        check_several(settings, engine)
        num_awake = min(settings.max_awake_models, 1 + len(others))
        if num_awake > 1:
            engine["memory_utilization"] = config.memory_utilization / num_awake
        serve(settings, engine, places=local_places(config.data_parallel_size), say=say, others=others)
        return
    if settings.distributed_executor_backend == "ray":
        places = _ray_places(config)
    else:
        places = local_places(config.data_parallel_size, spawned=spawned)
    serve(settings, engine, places=places, say=say)


def _ray_places(config: EngineConfig) -> list[Place]:
    """Raises: ConfigError, also without the extra."""
    try:
        from albireo.distributed.places import ray_places
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ConfigError(
            "distributed_executor_backend=ray needs the extra 'ray': pip install 'albireo[ray]'; mp runs engines on "
            "this machine without it"
        ) from None
    return ray_places(config)


def _keys(text: str) -> list[str]:
    """One key, or those of a file, which other users do not see in the list of processes."""
    if not text.startswith("@"):
        return [text]
    try:
        keys = [line.strip() for line in Path(text[1:]).read_text("ascii").splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"api_key={text}: the file cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"api_key={text}: the file holds what is not ASCII, and keys are") from None
    if not keys:
        raise ConfigError(f"api_key={text}: the file holds no key")
    return keys
