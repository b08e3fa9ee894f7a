"""Rotary frequencies: RopeSettings -> RopeSpec, for every scaling scheme.

Called by the architecture files. Each scheme is computed in float32 and in the order of operations of
transformers, so that the numbers are the ones the checkpoints are published with. Does not know positions.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError, UnsupportedModel
from albireo.graph.ops import Growth, RopeSpec
from albireo.models.config import ModelConfig
from albireo.models.settings.rope_settings import RopeSettings

Frequencies = NDArray[np.float32]
_ONE = np.float32(1.0)


def rope_spec(config: ModelConfig, max_model_len: int, *, is_local: bool = False) -> RopeSpec:
    """The rotary embedding of a model that serves sequences up to max_model_len tokens.

    Args: is_local: that of layers with a window, where those have one of their own.

    Frequencies behind those of config.rotary_dim channels are 0: layers.py puts channels that are not rotated there.

    The dynamic scheme stretches the frequencies with the length of the sequence at hand. Here it is evaluated once,
    at max(max_model_len, original context): keys in the cache were rotated with the frequencies of their step, and a
    frequency that followed the longest sequence of a batch would make one request's tokens depend on the others.
    For the same reason longrope takes its long factors wherever max_model_len is above the original context.

    It is that of queries; keys rotate by its of_keys.

    Raises: UnsupportedModel for dynamic scaling of a head of two channels, whose exponent is undefined; ModelError for
    too many or too few factors.
    """
    rope = config.local_rope if is_local and config.local_rope is not None else config.rope
    spec = _rotation(rope, config.rotary_dim, max_model_len)
    still = (config.head_dim - config.rotary_dim) // 2
    return RopeSpec((*spec.inv_freq, *(0.0,) * still), spec.attention_factor, _growth(rope, max_model_len))


def latent_rope_spec(config: ModelConfig, max_model_len: int, *, is_local: bool = False) -> RopeSpec:
    """That of latent attention: of the channels that are rotated alone. Args, raises: as rope_spec()."""
    latent = config.blocks.local_latent if is_local else None
    latent = latent or config.blocks.latent
    assert latent is not None, "the architecture's rules read its keys"
    rope = config.local_rope if is_local and config.local_rope is not None else config.rope
    spec = _rotation(rope, latent.rotary, max_model_len)
    return replace(spec, growth=_growth(rope, max_model_len))


def pooled_rope_spec(rope: RopeSettings, rotary: int, head_dim: int, max_model_len: int) -> RopeSpec:
    """Of heads whose last channels are rotated, in pairs of neighbours. Raises: as rope_spec()."""
    spec = _rotation(rope, rotary, max_model_len)
    return RopeSpec((*(0.0,) * ((head_dim - rotary) // 2), *spec.inv_freq), spec.attention_factor)


def _growth(rope: RopeSettings, max_model_len: int) -> Growth | None:
    """None, too, where no position is so far behind."""
    period = rope.original_max_position_embeddings
    return Growth(rope.query_growth, period) if rope.query_growth and max_model_len > period else None


def no_rotation(config: ModelConfig, max_model_len: int = 0) -> RopeSpec:
    """Of layers that do not rotate: every frequency is 0. Args: max_model_len: where their queries may grow."""
    blocks, growth = config.blocks, None
    if blocks.still_growth and max_model_len >= blocks.still_period:
        growth = Growth(blocks.still_growth, blocks.still_period, 1)
    return RopeSpec((0.0,) * (config.head_dim // 2), growth=growth)


def layer_ropes(config: ModelConfig, max_model_len: int) -> tuple[RopeSpec, ...]:
    """That of each layer: by a base of its own, where those are said layer by layer; else by those that layers with a
    window have, or the others; or none. Raises: as rope_spec()."""
    still, thetas = no_rotation(config, max_model_len), config.blocks.layer_thetas
    if thetas:
        ropes = {theta: replace(config.rope, theta=theta) for theta in {*thetas} - {0.0}}
        found = {theta: rope_spec(replace(config, rope=rope), max_model_len) for theta, rope in ropes.items()}
        return tuple(found[theta] if theta else still for theta in thetas)
    kinds = [rope_spec(config, max_model_len, is_local=is_local) for is_local in (False, True)]
    layers = zip(config.rotates, config.windows, strict=True)
    return tuple(kinds[window is not None] if rotates else still for rotates, window in layers)


def _rotation(rope: RopeSettings, dim: int, max_model_len: int) -> RopeSpec:
    spec = _scheme(rope, dim, max_model_len)
    if not rope.log_factors:
        return spec
    logarithms = _factors(rope.log_factors, dim, "log_factors")
    factors = np.array([math.exp(each) for each in logarithms.tolist()], np.float32)
    return _spec(np.asarray(spec.inv_freq, np.float32) * factors, spec.attention_factor)


def _scheme(rope: RopeSettings, dim: int, max_model_len: int) -> RopeSpec:
    if rope.rope_type == "linear":
        return _spec(base_frequencies(rope.theta, dim) / np.float32(rope.factor))
    if rope.rope_type == "dynamic":
        return _spec(base_frequencies(_dynamic_theta(rope, dim, max_model_len), dim))
    if rope.rope_type == "llama3":
        return _spec(_llama3(rope, base_frequencies(rope.theta, dim)))
    if rope.rope_type == "freq_factors":
        return _spec(base_frequencies(rope.theta, dim) / _factors(rope.freq_factors, dim, "freq_factors"))
    if rope.rope_type == "longrope":
        return _spec(_longrope(rope, dim, max_model_len), _longrope_attention_factor(rope, max_model_len))
    if rope.rope_type == "proportional":
        return _spec(_proportional(rope, dim))
    if rope.rope_type == "yarn":
        return _spec(_yarn(rope, dim), _yarn_attention_factor(rope))
    return _spec(base_frequencies(rope.theta, dim))


def _spec(inv_freq: Frequencies, attention_factor: float = 1.0) -> RopeSpec:
    return RopeSpec(tuple(float(f) for f in inv_freq), attention_factor)


def _position_frequencies(theta: float, dim: int) -> Frequencies:
    """theta^(2i/D): radians are position divided by this."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    # numpy's powers of float32 are off by a bit on processors with AVX-512: a model would compute other bits there
    base = float(np.float32(theta))
    return np.array([base**exponent for exponent in exponents.tolist()], np.float32)


def base_frequencies(theta: float, dim: int) -> Frequencies:
    """[dim / 2] radians a position: theta^(-2i / dim). Source: Su et al. 2021, RoFormer, section 3.3."""
    return _ONE / _position_frequencies(theta, dim)


def _proportional(rope: RopeSettings, dim: int) -> Frequencies:
    """Frequencies of all pairs, of which the first turn and the others stay. Source: Gemma 4."""
    turning = int(rope.turning_part * dim // 2)
    frequencies = base_frequencies(rope.theta, dim)
    frequencies[turning:] = 0.0
    return frequencies / np.float32(rope.factor)


def _factors(factors: tuple[float, ...], dim: int, name: str) -> Frequencies:
    if len(factors) != dim // 2:
        raise ModelError(f"{name} has {len(factors)} numbers; heads of {dim} need {dim // 2}")
    return np.asarray(factors, np.float32)


def _longrope(rope: RopeSettings, dim: int, max_model_len: int) -> Frequencies:
    """Source: Ding et al. 2024, LongRoPE."""
    short = _factors(rope.short_factors, dim, "short_factor")
    long = _factors(rope.long_factors, dim, "long_factor")
    is_long = max_model_len > rope.original_max_position_embeddings
    return _ONE / ((long if is_long else short) * _position_frequencies(rope.theta, dim))


def _longrope_attention_factor(rope: RopeSettings, max_model_len: int) -> float:
    is_long = max_model_len > rope.original_max_position_embeddings
    if (given := rope.long_mscale if is_long else rope.short_mscale) is not None:
        return given
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_max_position_embeddings))


def _dynamic_theta(rope: RopeSettings, dim: int, max_model_len: int) -> float:
    """NTK-aware base for a context of max_model_len."""
    if dim == 2:
        raise UnsupportedModel("head_dim=2 with rope_type=dynamic: the exponent D / (D - 2) is undefined")
    original = rope.original_max_position_embeddings
    length = max(max_model_len, original)
    stretch = rope.factor * length / original - (rope.factor - 1)
    return float(rope.theta * stretch ** (dim / (dim - 2)))


def _llama3(rope: RopeSettings, inv_freq: Frequencies) -> Frequencies:
    """Long wavelengths are divided by factor, short ones kept, a smooth ramp between. Source: Llama 3.1."""
    original = rope.original_max_position_embeddings
    low, high = rope.low_freq_factor, rope.high_freq_factor
    wavelength = np.float32(2 * math.pi) / inv_freq
    scaled = np.where(wavelength > np.float32(original / low), inv_freq / np.float32(rope.factor), inv_freq)
    if low == high:  # as of Llama 4: there is no ramp
        return np.asarray(scaled, np.float32)
    smooth = (np.float32(original) / wavelength - np.float32(low)) / np.float32(high - low)
    mixed = (_ONE - smooth) * scaled / np.float32(rope.factor) + smooth * scaled
    between = (wavelength >= np.float32(original / high)) & (wavelength <= np.float32(original / low))
    return np.where(between, mixed, scaled).astype(np.float32)


def _yarn(rope: RopeSettings, dim: int) -> Frequencies:
    """Channels that turn often are kept, those that turn seldom interpolated. Source: Peng et al. 2023, YaRN."""
    frequencies = _position_frequencies(rope.theta, dim)
    kept, interpolated = _ONE / frequencies, _ONE / (np.float32(rope.factor) * frequencies)
    low, high = _yarn_range(rope, dim)
    ramp = (np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    keep = _ONE - np.clip(ramp, np.float32(0.0), _ONE)
    return np.asarray(interpolated * (_ONE - keep) + kept * keep, np.float32)


def _yarn_range(rope: RopeSettings, dim: int) -> tuple[float, float]:
    """First and last channel pair of the ramp."""

    def pair_that_turns(rotations: float) -> float:
        ratio = rope.original_max_position_embeddings / (rotations * 2 * math.pi)
        return dim * math.log(ratio) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    # A ramp of no width would divide by zero; the width is transformers'.
    return low, high + 0.001 if low == high else high


def _yarn_attention_factor(rope: RopeSettings) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return rope.growth(rope.mscale) / rope.growth(rope.mscale_all_dim)
    return rope.growth(1.0)
