"""Attention of decoding steps, made and cut in other ways: which of them launch_of() should name, and SPLIT be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from report import Row, verdict
from setup import Setup, attempt

from parts.attention import measure


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.kernels.attention  # noqa: F401 - where it is missing the part is skipped

    shapes = setup.pick(((1, 32768), (64, 2048), (256, 1024)), ((2, 70),))
    for dtype in setup.pick(("fp8", "bfloat16", "int8"), ("bfloat16",)):
        for sequences, context in shapes:
            if setup.seconds_left > 5:
                args = (setup, dtype, sequences, context)
                yield from attempt(f"{dtype} {sequences} x {context}", lambda args=args: _launches(*args))
                yield from attempt(f"{dtype} {sequences} x {context}, splits", lambda args=args: _splits(*args))


def _launches(setup: Setup, dtype: str, sequences: int, context: int) -> Iterator[Row]:
    """By how programs of a decoding step are made."""
    from albireo.backends.cuda.attention_plan import AttentionShape, Launch, launch_of

    heads = setup.pick((32, 8, 128), (4, 2, 16))
    now = launch_of(AttentionShape(*heads, context, 0, "bfloat16", dtype, setup.chip), 16)  # type: ignore[call-arg]
    tried = (now, Launch(8, 4, 2, 128), Launch(4, 4, 3, 168), Launch(4, 4, 2), Launch(4, 3, 3, 168))
    # three programs of four stages of bfloat16 are more than the memory there is
    fits = [each for each in tried if dtype != "bfloat16" or each.programs * each.stages < 12]
    options = {_text(launch): {"launch": launch} for launch in fits}
    yield from _tried(setup, dtype, sequences, context, options, _text(now), "attention_plan.launch_of")


def _splits(setup: Setup, dtype: str, sequences: int, context: int) -> Iterator[Row]:
    """By how contexts are cut, which bits of results depend on."""
    from albireo.backends.cuda.attention_plan import SPLIT

    options = {f"{split} positions": {"split": split} for split in (SPLIT, SPLIT // 2, SPLIT * 2)}
    yield from _tried(setup, dtype, sequences, context, options, f"{SPLIT} positions", "attention_plan.SPLIT")


def _tried(
    setup: Setup,
    dtype: str,
    sequences: int,
    context: int,
    options: dict[str, dict[str, Any]],
    now: str,
    constant: str,
) -> Iterator[Row]:
    found = {}
    for name, more in list(options.items())[: setup.pick(99, 2)]:
        try:
            read, seconds, _ = measure(setup, dtype, sequences, context, **more)
        except Exception as error:
            yield Row(f"{dtype} {sequences} x {context}, {name}", note=f"{type(error).__name__}: {str(error)[:100]}")
            continue
        found[name] = seconds
        note = f"{seconds * 1e6:.0f} us, {read / seconds / setup.bandwidth:.2f} of the bandwidth"
        yield Row(f"{dtype} {sequences} x {context}, {name}", read / seconds / 1e9, "GB/s", note)
    yield verdict(f"{dtype} {sequences} x {context} by {constant}", constant, now, found)


def _text(launch: Any) -> str:
    held = "" if launch.registers is None else f", {launch.registers} registers"
    return f"{launch.warps} warps, {launch.stages} stages, {launch.programs} programs{held}"
