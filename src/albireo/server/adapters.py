"""The adapters (LoRA) that are served, by the names that requests choose them by.

Used by serving.py and the endpoints. Does not know how an adapter is read, nor what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.errors import ConfigError, EngineError, InvariantError
from albireo.json_file import parse_json
from albireo.replicas.replicas import Replicas
from albireo.server.errors import HttpError, busy


@dataclass(frozen=True, slots=True)
class Served:
    """One adapter. number: what the engine knows it by."""

    name: str
    path: str
    number: int


class ServedAdapters:
    """Invariant: a name that is given again stands for another number, so that nothing computed before is found."""

    def __init__(self, client: Replicas, taken: tuple[str, ...]) -> None:
        """Args: taken: names of the model itself."""
        self._client = client
        self._taken = taken
        self._served: dict[str, Served] = {}
        self._loading: set[str] = set()

    def all(self) -> list[Served]:
        """In the order in which they came."""
        return list(self._served.values())

    def find(self, name: str | None) -> Served | None:
        """The adapter of this name."""
        return None if name is None else self._served.get(name)

    def number(self, name: str | None) -> int | None:
        """What the engine knows it by; None: it is no adapter."""
        found = self.find(name)
        return None if found is None else found.number

    def names(self, numbers: list[int]) -> str:
        """Of adapters by their numbers, with commas; of those that were unloaded nothing is told."""
        if not numbers:
            return ""
        return ",".join(served.name for served in self._served.values() if served.number in numbers)

    async def load(self, name: str, path: str, *, in_place: bool = False) -> None:
        """Serve an adapter by a name. Args: in_place: in place of the one that has it.

        Raises: HttpError 400 for a name that is taken, or an adapter that does not fit.
        """
        known = self._served.get(name)
        if name in self._taken or name in self._loading or (known is not None and not in_place):
            raise HttpError(
                400,
                f"lora_name={name!r:.100} is in use; unload it first, or take another name",
                param="lora_name",
                code="lora_name_in_use",
            )
        self._loading.add(name)
        try:
            loaded = await self._client.load_adapter(path)
        except InvariantError:
            raise HttpError(500, "the adapter could not be read; the server's log has more", code="internal") from None
        except EngineError as error:
            if type(error) is EngineError:  # not of the adapter: there is no process, or it ended meanwhile
                raise busy(503, str(error), "restarting", 2) from None
            raise HttpError(400, str(error), param="lora_path", code="invalid_adapter") from None
        finally:
            self._loading.discard(name)
        if known is not None:
            self._client.drop_adapter(known.number)
        self._served[name] = Served(name, path, loaded.number)

    def unload(self, name: str) -> None:
        """Serve it no more; requests that run go on with it. Raises: HttpError 404."""
        found = self._served.pop(name, None)
        if found is None:
            raise HttpError(404, f"the adapter {name!r:.100} is not loaded", param="lora_name", code="lora_not_found")
        self._client.drop_adapter(found.number)

    async def load_all(self, modules: tuple[str, ...]) -> None:
        """Those that the command line names. Raises: ConfigError."""
        for text in modules:
            name, path = lora_module(text)
            try:
                await self.load(name, path)
            except HttpError as error:
                raise ConfigError(f"lora_modules={text!r:.200}: {error.message}") from None


def lora_module(text: str) -> tuple[str, str]:
    """name=path, or an object with name and path as vLLM takes it. Raises: ConfigError."""
    if text.startswith("{"):
        try:
            given = parse_json(text.encode(), "lora_modules")
        except EngineError as error:
            raise ConfigError(str(error)) from None
        extra = set(given) - {"name", "path", "base_model_name"}
        name, path = given.get("name"), given.get("path")
        if extra or not isinstance(name, str) or not isinstance(path, str):
            raise ConfigError(f"lora_modules={text!r:.200} must have name and path, and nothing else is read")
    else:
        name, _, path = text.partition("=")
    if not name or not path:
        raise ConfigError(f"lora_modules={text!r:.200} is not allowed; it must be name=path")
    return name, path
