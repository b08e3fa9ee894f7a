"""A table survives being written; what a table may not say is refused with the key and the value."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from albireo.artifact.layout import json_bytes
from albireo.artifact.tuning_json import table_from_json, table_to_json
from albireo.errors import Corrupt, VersionMismatch
from albireo.graph.tuning import SHAPES, CallKey, Entry, Tuning, TuningTable
from tuning_tables import CHANGED, HERE

KEYS = [
    CallKey("linear", "linear.bfloat16.avx2", (("n", 96), ("k", 64), ("act", "silu_mul"))),
    CallKey("head_top", "head_top.float32.avx2", (("n", 96), ("k", 64))),
    CallKey("attention", "attention.float32.avx2", tuple((name, 4) for name in SHAPES["attention"])),
]
TABLE = TuningTable(HERE, tuple(Entry(key, 1, i, CHANGED, 2e-3, 1e-3, 0.1, 5) for i, key in enumerate(KEYS)))


def written(table: TuningTable = TABLE) -> Any:
    return json.loads(json_bytes(table_to_json(table)))


def test_a_table_is_read_as_it_was_written() -> None:
    read = table_from_json(written(), "tuning.json", HERE)
    assert read.fingerprint == HERE
    assert set(read.entries) == set(TABLE.entries)
    assert json_bytes(table_to_json(read)) == json_bytes(table_to_json(TABLE))


def test_the_order_of_measuring_leaves_no_trace() -> None:
    backwards = replace(TABLE, entries=TABLE.entries[::-1])
    assert json_bytes(table_to_json(backwards)) == json_bytes(table_to_json(TABLE))


def test_a_table_of_another_machine_is_recognised_and_not_read_further() -> None:
    """Another version may have other parameters, so its entries are no concern of this one."""
    data = written()
    data["entries"][0]["params"]["a number of the future"] = 1
    there = table_from_json(data, "tuning.json", replace(HERE, albireo="0.2.0"))
    assert there == TuningTable(HERE)


EDITS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda d: d.update(more=1), "unknown key 'more'"),
    (lambda d: d.pop("entries"), "entries is missing"),
    (lambda d: d.update(entries={}), "entries=.* must be a list"),
    (lambda d: d["fingerprint"].update(threads=0), "threads=0 must be a whole number from 1"),
    (lambda d: d["fingerprint"].update(host="x"), "unknown key 'host'"),
    (lambda d: d["fingerprint"].pop("cpu"), "cpu is missing"),
    (lambda d: d["format"].update(name="albireo-engine"), "this is another kind of file"),
    (lambda d: d["entries"].append(d["entries"][0]), "appears twice"),
    (lambda d: d["entries"][0].update(family="norm"), "family='norm' must be one of linear"),
    (lambda d: d["entries"][0].update(bucket="3-4"), "bucket='3-4' must be one of 1, 2-8"),
    (lambda d: d["entries"][0].update(revision=0), "revision=0 must be"),
    (lambda d: d["entries"][0].update(rounds=True), "rounds=True must be"),
    (lambda d: d["entries"][0].update(before_s=-1), "before_s=-1.0 must be a number from 0"),
    (lambda d: d["entries"][0].update(after_s="fast"), "after_s: 'fast' must be a finite number"),
    (lambda d: d["entries"][0].update(spread=float("nan")), "must be a finite number"),
    (lambda d: d["entries"][0]["shape"].pop("num_heads"), "num_heads is missing"),
    (lambda d: d["entries"][0]["shape"].update(more=1), "unknown key 'more'"),
    (lambda d: d["entries"][0]["params"].update(claims=7), "claims=7 must be one of 4, 8, 16, 32"),
    (lambda d: d["entries"][0]["params"].update(claims=8.0), "claims=8.0 must be a whole number"),
    (lambda d: d["entries"][0]["params"].update(tall_rows=10**30), "must be a whole number"),
    (lambda d: d["entries"][0]["params"].pop("one_queue"), "one_queue is missing"),
    (lambda d: d["entries"][0]["params"].update(split_k=2), "unknown key 'split_k'"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS, ids=[message for _, message in EDITS])
def test_what_a_table_may_not_say(edit: Callable[[Any], Any], message: str) -> None:
    data = written()
    edit(data)
    with pytest.raises(Corrupt, match=message) as refusal:
        table_from_json(data, "DIR/tuning.json", HERE)
    assert str(refusal.value).startswith("DIR/tuning.json: ")


@pytest.mark.parametrize("version", [{"major": 2}, {"minor": 1}])
def test_another_format_is_refused(version: dict[str, int]) -> None:
    data = written()
    data["format"].update(version)
    with pytest.raises(VersionMismatch, match=r"this albireo reads 1.0 to 1.0"):
        table_from_json(data, "tuning.json", HERE)


def test_every_parameter_is_written() -> None:
    assert set(written()["entries"][0]["params"]) == {f for f in Tuning.__slots__}
