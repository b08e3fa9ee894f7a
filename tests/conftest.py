"""For all rooms: an example that hypothesis makes may take as long as it takes, on a machine however slow; what was
imported is not looked through for garbage; what is marked `thorough` runs where it is asked for; and Triton hears that
it interprets before anybody imports it."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# others are drawn in each run, so few are enough for one
settings.register_profile("few", _UNTIMED, max_examples=40)
settings.register_profile("thorough", _UNTIMED, max_examples=300)
# until all is imported and collected: looking for garbage is a sixth of the time that torch and transformers take
gc.disable()
_CUDA = Path(__file__).parent / "backends" / "cuda"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="also tests marked `thorough`: whole matrices")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("thorough" if config.getoption("--thorough") else "few")
    # Behind pytest's own end, which looks through everything twice. What is never collected looks like a leak to those
    # who count at the end, as Triton's bindings do.
    config.add_cleanup(gc.unfreeze)
    # Where there is a GPU, transformers imports Triton, and other rooms are collected first. Not where kernels are not
    # among what is collected: servers of a machine's tests may run on its GPU.
    if _is_in_run(_CUDA, config):
        os.environ["TRITON_INTERPRET"] = "1"


def _is_in_run(folder: Path, config: pytest.Config) -> bool:
    asked = [Path(word.partition("::")[0]).absolute() for word in config.args]
    ignored = [Path(word).absolute() for word in config.getoption("ignore") or ()]
    return not {folder, *folder.parents}.intersection(ignored) and any(
        folder in (path, *path.parents) or path in folder.parents for path in asked
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--thorough"):
        return
    left = [item for item in items if item.get_closest_marker("thorough")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def pytest_collection_finish() -> None:
    """Modules, torch's among them, and tests stay until the end: objects by the hundred thousand."""
    gc.collect()
    gc.freeze()
    gc.enable()
