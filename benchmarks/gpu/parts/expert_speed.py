"""A layer of experts in the shape of Qwen3-30B-A3B: its time, how fast experts are read, and products a second."""

from __future__ import annotations

from collections.abc import Iterator

from expert_layer import ExpertLayer
from report import Row
from setup import Setup, attempt


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.expert_linear  # noqa: F401 - where it is missing the part is skipped

    kinds = (("bfloat16", None), ("fp8", "fp8.g128.token"), ("int4.g128", "bfloat16"))
    for dtype, kind in setup.pick(kinds, kinds[:1]):
        yield from attempt(f"experts in {dtype}", lambda dtype=dtype, kind=kind: layer_of(setup, dtype, kind))


def layer_of(setup: Setup, dtype: str, kind: str | None) -> Iterator[Row]:
    counts = setup.pick((1, 8, 64, 256, 2048), (1, 9))
    layer = ExpertLayer.of(setup, dtype, counts[-1], kind)
    steps = [layer.step(count) for count in counts]
    setup.warm(step.whole for step in steps)
    for count, step in zip(counts, steps, strict=True):
        if setup.seconds_left < 2:
            return
        step.whole()
        size, flops = step.experts_read * layer.bytes_of_expert, step.flops
        whole = setup.seconds(step.whole, rounds=7)
        parts = {name: setup.seconds(getattr(step, name), rounds=7) for name in ("route", "gate_up", "down", "combine")}
        products = parts["gate_up"] + parts["down"]
        times = ", ".join(f"{name} {seconds * 1e6:.1f}" for name, seconds in parts.items())
        yield Row(
            f"experts in {dtype}, {count} tokens",
            whole * 1e6,
            "us",
            f"{times} us; products: {size / products / 1e9:.0f} GB/s of {step.experts_read} experts, "
            f"{size / products / setup.bandwidth:.2f} of the bandwidth, {flops / products / 1e12:.0f} TFLOP/s",
            data={"seconds": parts, "bytes": size, "flops": flops},
        )
