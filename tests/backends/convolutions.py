"""What a causal_conv may have, as tests of its kernels go through it."""

from __future__ import annotations

from typing import Any, NamedTuple

from backends.cpu.harness import F32, normal


class Conv(NamedTuple):
    activation: str = "silu"
    bias: bool = False
    gated: bool = False

    @property
    def attrs(self) -> dict[str, Any]:
        return {"activation": self.activation, "gated": self.gated}

    @property
    def parts(self) -> int:
        """Of a row of x."""
        return 3 if self.gated else 1

    def weights(self, channels: int, width: int) -> dict[str, F32]:
        bias = {"bias": normal(channels, seed=10)} if self.bias else {}
        return {"weight": normal(channels, width, seed=9)} | bias


SILU, PLAIN, GATED = Conv(), Conv("none", bias=True), Conv("none", gated=True)
