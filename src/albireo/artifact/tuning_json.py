"""A tuning table as JSON and back: every key known, every value one that a table may have.

Called by tuning_files.py. Does not open files. A table of another machine or version is recognised and not read
further, since only the version that wrote it knows what its entries mean.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from albireo.artifact.record import Record, number, read_version
from albireo.graph.tuning import ALLOWED, BUCKET_NAMES, SHAPES, CallKey, Entry, Fingerprint, Tuning, TuningTable

FORMAT = "albireo-tuning"
MAJOR, MINOR = 1, 0
#: A second is long for what is measured at once; a day is no measurement.
_MAX_SECONDS = 86400.0


def table_to_json(table: TuningTable) -> dict[str, Any]:
    entries = [_entry(entry) for entry in table.entries]
    entries.sort(key=lambda e: (e["family"], e["kernel"], str(e["shape"]), BUCKET_NAMES.index(e["bucket"])))
    return {
        "format": {"name": FORMAT, "major": MAJOR, "minor": MINOR},
        "fingerprint": asdict(table.fingerprint),
        "entries": entries,
    }


def table_from_json(data: Any, where: str, here: Fingerprint) -> TuningTable:
    """The table; without its entries when its fingerprint is not `here`.

    Raises: Corrupt naming the key and the value; VersionMismatch for another format.
    """
    top = Record(data, where)
    read_version(top.record("format"), FORMAT, MAJOR, MINOR, "file")
    found = top.record("fingerprint")
    fingerprint = Fingerprint(
        albireo=found.text("albireo"),
        cpu=found.text("cpu"),
        caches=found.text("caches"),
        isa_levels=found.text("isa_levels"),
        threads=found.count("threads", 1),
    )
    found.done()
    if fingerprint != here:
        return TuningTable(fingerprint)
    entries: dict[tuple[CallKey, int], Entry] = {}
    for record in top.records("entries"):
        entry = _read_entry(record)
        if (entry.key, entry.bucket) in entries:
            record.fail("bucket", BUCKET_NAMES[entry.bucket], "appears twice for this call")
        entries[entry.key, entry.bucket] = entry
    top.done()
    return TuningTable(fingerprint, tuple(entries.values()))


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "family": entry.key.family,
        "kernel": entry.key.kernel,
        "revision": entry.revision,
        "shape": dict(entry.key.shape),
        "bucket": BUCKET_NAMES[entry.bucket],
        "params": asdict(entry.tuning),
        "before_s": entry.before_s,
        "after_s": entry.after_s,
        "spread": entry.spread,
        "rounds": entry.rounds,
    }


def _read_entry(record: Record) -> Entry:
    family = record.choice("family", tuple(SHAPES))
    shape = record.record("shape")
    values = [(name, shape.text(name) if name == "act" else shape.count(name)) for name in SHAPES[family]]
    shape.done()
    params = record.record("params")
    tuning = Tuning(**{name: _param(params, name) for name in ALLOWED})
    params.done()
    entry = Entry(
        key=CallKey(family, record.text("kernel"), tuple(values)),
        revision=record.count("revision", 1),
        bucket=BUCKET_NAMES.index(record.choice("bucket", BUCKET_NAMES)),
        tuning=tuning,
        before_s=_seconds(record, "before_s"),
        after_s=_seconds(record, "after_s"),
        spread=_seconds(record, "spread"),
        rounds=record.count("rounds", 1),
    )
    record.done()
    return entry


def _param(record: Record, name: str) -> int:
    value = record.count(name)
    if value not in ALLOWED[name]:
        record.fail(name, value, f"must be one of {', '.join(map(str, ALLOWED[name]))}")
    return value


def _seconds(record: Record, name: str) -> float:
    value = float(number(record.raw(name), f"{record.where}: {name}"))
    if not 0 <= value <= _MAX_SECONDS or math.isnan(value):
        record.fail(name, value, f"must be a number from 0 to {_MAX_SECONDS:.0f}")
    return value
