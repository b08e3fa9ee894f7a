"""Serve a model over HTTP, as OpenAI's clients expect it.

Ends with 0 after SIGTERM or Ctrl-C, with 1 when the engine cannot run any more.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from albireo.api.locate import locate_model
from albireo.cli.options import engine_options, server_options
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.server.settings import ServerSettings

if TYPE_CHECKING:
    from albireo.replicas.place import Place


class _Command(click.Command):
    """Takes several adapters behind one --lora-modules, as vLLM does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flag, is_behind = "--lora-modules", False
        found: list[str] = []
        for arg in args:
            is_module = is_behind and ("=" in arg or arg.startswith("{")) and not arg.startswith("-")
            if is_module and found[-1] != flag:
                found.append(flag)
            is_behind = is_module or arg == flag
            found.append(arg)
        return super().parse_args(ctx, found)


@click.command(cls=_Command)
@click.argument("model", required=False)
@server_options()
@engine_options(without=("skip_tokenizer_init",))
def command(model: str | None, server: dict[str, Any], engine: dict[str, Any]) -> None:
    """Serve a model over HTTP, as OpenAI's clients expect it.

    MODEL is a directory or a hub name; the bundled model when left out.
    """
    try:
        from albireo.replicas.place import local_places
        from albireo.server.run import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("albireo"):
            raise
        raise ConfigError(
            f"albireo serve needs the extra 'serve' ({error.name} is missing): pip install 'albireo[serve]'"
        ) from None
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in server.items()}
    if model is not None:
        engine["model"] = str(locate_model(model))
        given.setdefault("served_model_name", (Path(model).name if Path(model).is_dir() else model,))
    given["api_key"] = tuple(key for text in given.get("api_key", ()) for key in _keys(text))
    if given.get("lora_modules") and not engine.get("enable_lora"):
        raise ConfigError("lora_modules needs enable_lora; give --enable-lora, too")
    settings = ServerSettings(**given)
    if settings.batch_dir is not None and engine.setdefault("scheduling_policy", "priority") != "priority":
        raise ConfigError(
            f"batch_dir needs scheduling_policy=priority, not {engine['scheduling_policy']}: batches run behind all "
            "whose readers wait; leave the policy out"
        )
    config = EngineConfig.from_kwargs(**engine)
    if settings.distributed_executor_backend == "ray":
        places = _ray_places(config)
    else:
        places = local_places(config.data_parallel_size)
    serve(settings, engine, places=places, say=lambda line: click.echo(line, err=True))


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
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key={text}: the file cannot be read ({type(error).__name__})") from None
    if not keys:
        raise ConfigError(f"api_key={text}: the file holds no key")
    return keys
