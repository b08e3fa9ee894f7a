"""How often hypothesis draws where few draws show anything: a multiple of what is usual, see conftest.py."""

from __future__ import annotations

from hypothesis import settings


def more_examples(factor: int) -> settings:
    """For tests of few milliseconds an example; a thorough run draws as many times more as everywhere."""
    return settings(max_examples=factor * settings().max_examples)
