"""Give calls the numbers that were measured for them.

Called by api/machine/tuning.py after compiling. Looks calls up by what they are (family, kernel, constant dims), so a
table serves every model with calls like these. Does not know files, machines or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from albireo.encodings import ENCODINGS
from albireo.graph.program import Call, Program
from albireo.graph.tuning import BUCKETS, ROW_CHUNK, SHAPES, CallKey, Entry, Tuning, TuningTable

_DEFAULTS = (Tuning(),) * len(BUCKETS)
#: Few rows of a model whose weights stay in a cache: a tall tile is as many chains of dots as it has rows, and waits
#: for each; a wide one is four times as many. From memory a tall tile is faster, since one stream is, and so it is from
#: the last cache of a processor of many cores, which is hundreds of MiB and no faster than memory: 100 MiB of a
#: Xeon's 480 took 1.1 times as long in wide tiles.
_CACHED = (replace(Tuning(), tall_rows=0),) * 3 + _DEFAULTS[3:]
_NEAR_BYTES = 32 << 20
#: Kernels that copy activations to float32, a chunk of rows at a time. An item of one chunk keeps its copy for all
#: panels; one of more copies every chunk for every panel: prompts of a 0.5B model took 1.13 times as long, on two
#: threads.
_COPYING = (".bfloat16.avx2", ".bfloat16.neon")
#: Weights are read for each 48 rows then, 48 operations a byte: on so many threads about 20 GB/s.
_FEW_THREADS = 8


@dataclass(frozen=True, slots=True)
class TableUse:
    """What came of one table.

    Fields:
        used: entries that a call runs with; of these, `changed` differ from the defaults.
        outdated: entries for these calls that were measured with another revision of their kernels, and are ignored.
    """

    used: tuple[Entry, ...]
    outdated: int

    @property
    def changed(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.used if entry.tuning != Tuning())


def call_key(program: Program, call: Call) -> CallKey | None:
    """What kind of call this is; None for families without anything to tune."""
    names = SHAPES.get(call.family)
    if names is None:
        return None
    values = dict(call.attrs)
    if "k" not in values and "k" in names:
        values["k"] = program.buffers[call.args["x"]].cols
    # no window is 0 or None, after the model
    return CallKey(call.family, call.kernel, tuple((name, values[name] or 0) for name in names))


def attach(
    program: Program,
    tables: Sequence[TuningTable],
    revision: Callable[[str], int],
    cache_bytes: int = 0,
    num_threads: int = 0,
) -> tuple[Program, tuple[TableUse, ...]]:
    """The program with tuned calls; what no table knows has the defaults, which depend on where weights are read from,
    and on whether activations are copied.

    Args:
        tables: the first that knows a call and bucket is believed.
        revision: of a family's kernels here.
        cache_bytes: of the largest cache. num_threads: that compute it; 0: not known.
    Returns: the program, and what was used of each table.
    """
    valid = [{(e.key, e.bucket): e for e in table.entries if e.revision == revision(e.key.family)} for table in tables]
    used: list[dict[tuple[CallKey, int], Entry]] = [{} for _ in tables]
    tuned: dict[CallKey, tuple[Tuning, ...]] = {}
    keys = [call_key(program, call) for call in program.calls]
    is_near = program.weight_bytes <= min(cache_bytes, _NEAR_BYTES)
    for key in dict.fromkeys(keys):
        if key is None:
            continue
        choices = list(_CACHED if is_near and _lies_as_multiplied(key.kernel) else _DEFAULTS)
        if key.family != "attention" and key.kernel.endswith(_COPYING) and 0 < num_threads <= _FEW_THREADS:
            choices = [replace(each, slab_rows=ROW_CHUNK) for each in choices]
        for bucket in range(len(BUCKETS)):
            for entries, mine in zip(valid, used, strict=True):
                entry = entries.get((key, bucket))
                if entry is not None:
                    choices[bucket], mine[key, bucket] = entry.tuning, entry
                    break
        if tuple(choices) != _DEFAULTS:
            tuned[key] = tuple(choices)
    calls = tuple(
        replace(call, tuning=tuned[key]) if key in tuned else call
        for call, key in zip(program.calls, keys, strict=True)
    )
    known = set(keys)
    uses = tuple(
        TableUse(
            tuple(mine.values()),
            sum(e.key in known and e.revision != revision(e.key.family) for e in table.entries),
        )
        for table, mine in zip(tables, used, strict=True)
    )
    return (replace(program, calls=calls) if tuned else program), uses


def _lies_as_multiplied(kernel: str) -> bool:
    """Whether a kernel's weights are numbers or bytes. Wide tiles have those of fewer bits made to bytes first, a panel
    at a time, which takes longer than few rows of a tall tile: one stream of a 0.5B model in int4, read from a large
    cache, 16.4 ms a step for 11.0; the bundled model, from a small one, 1.17 times as long."""
    weight = ENCODINGS.get(kernel.partition(".")[2].rpartition(".")[0])
    return weight is None or (weight.bits == 8 and weight.kind != "float")
