"""Buckets of rows, and what a table may say."""

from __future__ import annotations

import dataclasses

import pytest

from albireo.graph.tuning import (
    ALLOWED,
    BUCKET_NAMES,
    BUCKETS,
    SHAPES,
    CallKey,
    Entry,
    Fingerprint,
    Tuning,
    TuningTable,
    bucket_of,
)


def test_buckets_cover_every_number_of_rows_once() -> None:
    for rows in range(1, 3000):
        assert [least <= rows and (most is None or rows <= most) for least, most in BUCKETS].count(True) == 1
        least, most = BUCKETS[bucket_of(rows)]
        assert least <= rows and (most is None or rows <= most)


def test_buckets_are_called_after_their_rows() -> None:
    for name, (least, most) in zip(BUCKET_NAMES, BUCKETS, strict=True):
        assert name == (f"{least}+" if most is None else str(least) if least == most else f"{least}-{most}")


def test_the_defaults_are_values_a_table_may_hold() -> None:
    assert {field.name for field in dataclasses.fields(Tuning)} == set(ALLOWED)
    for name, values in ALLOWED.items():
        assert getattr(Tuning(), name) in values
        assert list(values) == sorted(set(values))


def test_changes() -> None:
    assert Tuning().changes() == {}
    changed = Tuning(claims=16, tall_rows=12)
    assert changed.changes() == {"tall_rows": (28, 12), "claims": (4, 16)}
    assert Tuning().changes(changed) == {"tall_rows": (12, 28), "claims": (16, 4)}


@pytest.mark.parametrize(
    ("family", "values", "text"),
    [
        ("linear", (96, 64, "silu_mul"), "linear 96 x 64 silu_mul"),
        ("linear", (96, 64, "none"), "linear 96 x 64"),
        ("head_top", (96, 64), "head_top 96 x 64"),
        ("qkv_rope_kv", (4, 2, 16, 64), "qkv_rope_kv 4/2 heads of 16"),
        ("attention", (4, 2, 16, 128), "attention 4/2 heads of 16 window 128"),
        ("attention", (4, 2, 16, 0), "attention 4/2 heads of 16"),
    ],
)
def test_a_kind_of_call_has_a_name(family: str, values: tuple[int | str, ...], text: str) -> None:
    assert str(CallKey(family, f"{family}.float32.avx2", tuple(zip(SHAPES[family], values, strict=True)))) == text


def test_differences_between_machines_are_named() -> None:
    here = Fingerprint("0.1.0", "EPYC", "L2 1M", "avx2 scalar", 2)
    there = dataclasses.replace(here, threads=8, cpu="Xeon")
    assert there.differences(here) == "cpu Xeon there and EPYC here, threads 8 there and 2 here"
    assert here.differences(here) == ""


def test_the_newer_of_two_measurements_counts() -> None:
    here = Fingerprint("0.1.0", "EPYC", "L2 1M", "avx2 scalar", 2)
    key, other = (CallKey("head_top", "head_top.float32.avx2", (("n", n), ("k", 64))) for n in (128, 256))

    def entry(key: CallKey, claims: int, bucket: int = 0) -> Entry:
        return Entry(key, 1, bucket, Tuning(claims=claims), 1.0, 0.9, 0.01, 5)

    old = TuningTable(here, (entry(key, 4), entry(other, 4), entry(key, 4, bucket=2)))
    merged = old.merged(TuningTable(here, (entry(key, 16),)))
    assert {(e.key, e.bucket, e.tuning.claims) for e in merged.entries} == {(key, 0, 16), (other, 0, 4), (key, 2, 4)}
