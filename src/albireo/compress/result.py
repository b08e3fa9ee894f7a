"""What a quantization did and what that cost, as data.

Made by run.py; read by report.py, page.py and cli/quantize.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.verify.quality import Quality


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear.

    Fields:
        module: its name. shape: [N, K].
        encoding: what it became; the checkpoint's type where it stayed.
        num_bytes: in the checkpoint, scales included.
        error: of its outputs on calibration inputs, relative; 0 where it stayed.
        alpha: the power of the scales its inputs were divided by; None: they were not.
        note: what a reader should know.
    """

    module: str
    layer: int
    shape: tuple[int, int]
    encoding: str
    num_bytes: int
    error: float
    alpha: float | None
    note: str


@dataclass(frozen=True, slots=True)
class TextQuality:
    """The quantized model beside the original on one text."""

    text: str
    num_tokens: int
    quality: Quality

    @property
    def perplexity_change(self) -> float:
        """Relative."""
        return self.quality.perplexity / self.quality.oracle_perplexity - 1


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one request that had the machine alone. weight_bytes: as they are packed in memory."""

    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Speeds:
    """Both models with the same request, one after the other. num_prompt_tokens, num_output_tokens: of it."""

    original: Speed
    quantized: Speed
    num_prompt_tokens: int
    num_output_tokens: int
    num_threads: int

    @property
    def decode_ratio(self) -> float:
        return self.quantized.decode_tokens_per_s / self.original.decode_tokens_per_s

    @property
    def prefill_ratio(self) -> float:
        return self.quantized.prefill_tokens_per_s / self.original.prefill_tokens_per_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything.

    Fields:
        model: facts by name, for reading. recipe: what was asked, by name.
        bytes_before, bytes_after: of all tensors.
        drift: for each layer, and the head at the end, the relative distance of what its first linears read from what
            they read in the original, on the texts.
        is_untied: the head was the embedding table and is a matrix of its own now.
        speeds: None where they were not measured; speed_note then says why, unless nobody asked.
    """

    model: dict[str, str]
    recipe: dict[str, str]
    linears: tuple[Linear, ...]
    bytes_before: int
    bytes_after: int
    drift: tuple[float, ...]
    qualities: tuple[TextQuality, ...]
    is_untied: bool
    speeds: Speeds | None = None
    speed_note: str = ""

    @property
    def bits_per_weight(self) -> float:
        """Over all linears, those that stayed included."""
        weights = sum(linear.shape[0] * linear.shape[1] for linear in self.linears)
        return 8 * sum(linear.num_bytes for linear in self.linears) / max(1, weights)
