"""The counter-based generator against its published vectors, and the properties the sampler leans on."""

from __future__ import annotations

import pytest

from albireo.sampling.rng import philox4x32, uniform

# Known-answer vectors of the Random123 distribution (kat_vectors, "philox4x32 10"): counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: str, key: str, result: str) -> None:
    assert philox4x32(words(counter), words(key)) == words(result)  # type: ignore[arg-type]


def test_uniform_is_the_53_leading_bits_of_two_words() -> None:
    # From the first vector: counter 0, key 0.
    assert uniform(0, 0) == ((0x6627E8D5 >> 5) * 2**26 + (0xE169C58D >> 6)) / 2**53


def test_uniform_uses_all_bits_of_seed_and_position() -> None:
    numbers = {uniform(seed, 0) for seed in [0, *(1 << bit for bit in range(64))]}
    numbers |= {uniform(0, 1 << bit) for bit in range(40)}
    assert len(numbers) == 65 + 40
    assert uniform(-1, 3) == uniform(2**64 - 1, 3)


def test_uniform_is_in_range_and_even() -> None:
    num, bins = 20_000, 100
    numbers = [uniform(seed, position) for seed in range(20) for position in range(num // 20)]
    assert all(0.0 <= x < 1.0 and (x * 2**53).is_integer() for x in numbers)
    counts = [0] * bins
    for x in numbers:
        counts[int(x * bins)] += 1
    chi_square = sum((count - num / bins) ** 2 / (num / bins) for count in counts)
    # 99 degrees of freedom: mean 99, standard deviation 14; the seeds are fixed, so this cannot flake.
    assert 50 < chi_square < 160


def test_neighbouring_streams_and_positions_are_not_correlated() -> None:
    num = 5_000
    here = [uniform(1, position) - 0.5 for position in range(num)]
    for other in ([uniform(2, p) - 0.5 for p in range(num)], [uniform(1, p + 1) - 0.5 for p in range(num)]):
        correlation = 12 * sum(a * b for a, b in zip(here, other, strict=True)) / num
        assert abs(correlation) < 4 / num**0.5
