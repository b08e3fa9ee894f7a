"""For all rooms: an example that hypothesis makes may take as long as it takes, on a machine however slow; what was
imported is not looked through for garbage; and what is marked `thorough` runs where it is asked for."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# others are drawn in each run, so few are enough for one
settings.register_profile("few", _UNTIMED, max_examples=40)
settings.register_profile("thorough", _UNTIMED, max_examples=300)
# until all is imported and collected: looking for garbage is a sixth of the time that torch and transformers take
gc.disable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="also tests marked `thorough`: whole matrices")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("thorough" if config.getoption("--thorough") else "few")


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


def pytest_unconfigure() -> None:
    """What is never collected looks like a leak to those who count at the end, as Triton's bindings do."""
    gc.unfreeze()
