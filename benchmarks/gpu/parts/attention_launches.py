"""Attention of decoding steps, made and cut in other ways: which of them launch_of() should name, and SPLIT be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from report import Row
from setup import Setup, attempt

from parts.attention import measure


def run(setup: Setup) -> Iterator[Row]:
    from albireo.backends.cuda.attention_plan import SPLIT, Launch

    wide = (Launch(8, 4, 2, 128), Launch(4, 4, 3, 168), Launch(4, 4, 2), Launch(4, 3, 3, 168))
    tried: list[tuple[str, dict[str, Any]]] = []
    for dtype in ("fp8", "bfloat16", "int8"):
        # three programs of four stages of bfloat16 are more than the memory there is
        launches = [each for each in wide if dtype != "bfloat16" or each.programs * each.stages < 12]
        tried += [(dtype, {"launch": launch}) for launch in launches]
    tried += [("bfloat16", {"split": split}) for split in (SPLIT // 2, SPLIT * 2)]
    shapes = setup.pick(((1, 32768), (64, 2048)), ((2, 70),))
    for dtype, options in setup.pick(tried, tried[:1]):
        if setup.seconds_left > 5:
            args = (setup, dtype, options, shapes)
            yield from attempt(f"{dtype} {options}", lambda args=args: _all(*args))


def _all(setup: Setup, dtype: str, options: dict[str, Any], shapes: tuple[tuple[int, int], ...]) -> Iterator[Row]:
    what = ", ".join(f"{value}" if name == "launch" else f"{name} {value}" for name, value in options.items())
    for sequences, context in shapes:
        read, seconds, _ = measure(setup, dtype, sequences, context, **options)
        note = f"{seconds * 1e6:.0f} us, {read / seconds / setup.bandwidth:.2f} of the bandwidth"
        yield Row(f"{dtype} {sequences} x {context}, {what}", read / seconds / 1e9, "GB/s", note)
