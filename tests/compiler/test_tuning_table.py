"""Calls get the numbers that were measured for calls like them, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.compiler import tuning_table
from albireo.compiler.pipeline import compile_graph
from albireo.compiler.tuning_table import attach, call_key
from albireo.errors import InvariantError
from albireo.graph.program import Program
from albireo.graph.program_checks import check_program
from albireo.graph.tuning import BUCKETS, SHAPES, CallKey, Entry, Tuning, TuningTable
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, Decoder, FakeCatalog
from tuning_tables import CHANGED, HERE

CLAIMS = Tuning(claims=16)


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_graph(
        Decoder(layers=2).graph(), FakeCatalog(), maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS
    )


def revision(family: str) -> int:
    return 3


def keys(program: Program) -> list[CallKey]:
    return list(dict.fromkeys(key for call in program.calls if (key := call_key(program, call)) is not None))


def table(*entries: tuple[CallKey, int, Tuning], measured_at: int = 3) -> TuningTable:
    return TuningTable(HERE, tuple(Entry(k, measured_at, bucket, t, 2.0, 1.0, 0.0, 5) for k, bucket, t in entries))


def test_kinds_of_calls_are_told_apart_by_what_they_compute(program: Program) -> None:
    found = keys(program)
    assert {key.family for key in found} == set(SHAPES)
    assert all([name for name, _ in key.shape] == list(SHAPES[key.family]) for key in found)
    assert all(key.kernel.startswith(key.family) for key in found)
    # two layers have the same kinds
    assert len(found) < sum(call.family in SHAPES for call in program.calls)
    assert all((call_key(program, call) is None) == (call.family not in SHAPES) for call in program.calls)


def test_every_call_of_a_kind_is_tuned_in_its_bucket_only(program: Program) -> None:
    key = next(key for key in keys(program) if key.family == "linear")
    tuned, (use,) = attach(program, [table((key, 2, CHANGED))], revision)
    check_program(tuned)
    for call in tuned.calls:
        expected = tuple(CHANGED if b == 2 else Tuning() for b in range(len(BUCKETS)))
        assert call.tuning == (expected if call_key(program, call) == key else ())
    assert [entry.key for entry in use.used] == [entry.key for entry in use.changed] == [key]
    assert replace(tuned, calls=tuple(replace(call, tuning=()) for call in tuned.calls)) == program


def test_the_first_table_that_knows_is_believed(program: Program) -> None:
    key = keys(program)[0]
    first, second = table((key, 0, CLAIMS)), table((key, 0, CHANGED), (key, 1, CHANGED))
    tuned, uses = attach(program, [first, second], revision)
    call = next(call for call in tuned.calls if call_key(program, call) == key)
    assert call.tuning[:3] == (CLAIMS, CHANGED, Tuning())
    assert [[(e.bucket, e.tuning) for e in use.used] for use in uses] == [[(0, CLAIMS)], [(1, CHANGED)]]


def test_a_measured_default_hides_what_a_later_table_says(program: Program) -> None:
    key = keys(program)[0]
    tuned, uses = attach(program, [table((key, 0, Tuning())), table((key, 0, CHANGED))], revision)
    assert tuned == program
    assert len(uses[0].used) == 1 and not uses[0].changed and not uses[1].used


def test_other_revisions_are_ignored_and_counted(program: Program) -> None:
    found = keys(program)
    old = table((found[0], 0, CHANGED), (found[1], 0, CHANGED), measured_at=2)
    tuned, (use,) = attach(program, [old], revision)
    assert tuned == program
    assert (use.used, use.outdated) == ((), 2)


def test_entries_for_other_calls_do_nothing(program: Program) -> None:
    key = keys(program)[0]
    others = [replace(key, kernel=key.kernel + "x"), replace(key, shape=tuple((n, 7) for n, _ in key.shape))]
    tuned, (use,) = attach(program, [table(*((other, 0, CHANGED) for other in others))], revision)
    assert tuned is program
    assert (use.used, use.outdated) == ((), 0)
    assert attach(program, [], revision) == (program, ())


def test_a_call_has_a_number_for_each_bucket_or_none(program: Program) -> None:
    call = replace(program.calls[0], tuning=(Tuning(),))
    with pytest.raises(InvariantError, match="has 1 tunings, wanted none or 7"):
        check_program(replace(program, calls=(call, *program.calls[1:])))


def test_copies_of_activations_stay_where_threads_are_few(program: Program) -> None:
    """Of kernels that make some, for any number of rows; unless it was measured otherwise."""
    calls = [replace(call, kernel=f"{call.family}.bfloat16.avx2") for call in program.calls]
    copying = replace(program, calls=tuple(calls))
    for threads, slab in ((8, 96), (9, 480), (0, 480)):
        found, _ = attach(copying, [], revision, num_threads=threads)
        check_program(found)
        for call in found.calls:
            is_product = call_key(copying, call) is not None and call.family != "attention"
            expected = {96} if slab == 96 and is_product else set()
            assert {tuning.slab_rows for tuning in call.tuning} == expected
    key = next(key for key in keys(copying) if key.family == "linear")
    measured, _ = attach(copying, [table((key, 5, Tuning()))], revision, num_threads=2)
    call = next(call for call in measured.calls if call_key(measured, call) == key)
    assert [tuning.slab_rows for tuning in call.tuning] == [96] * 5 + [480, 96]
    assert attach(program, [], revision, num_threads=2)[0] is program


def test_few_rows_of_weights_in_a_cache_take_wide_tiles(program: Program) -> None:
    """Unless it was measured otherwise."""
    size = program.weight_bytes
    assert attach(program, [], revision, size - 1)[0] is program
    cached, _ = attach(program, [], revision, size)
    check_program(cached)
    for call in cached.calls:
        tall = [tuning.tall_rows for tuning in call.tuning]
        assert tall == ([0, 0, 0] + [28] * (len(BUCKETS) - 3) if call_key(program, call) else [])
    key = keys(program)[0]
    measured, _ = attach(program, [table((key, 0, Tuning()))], revision, size)
    assert {call.tuning[0] for call in measured.calls if call_key(program, call) == key} == {Tuning()}


def test_a_large_cache_is_as_far_as_memory(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors of many cores say hundreds of MiB, which their memory controllers are as near as."""
    monkeypatch.setattr(tuning_table, "_NEAR_BYTES", program.weight_bytes - 1)
    assert attach(program, [], revision, 480 << 20)[0] is program


@pytest.mark.parametrize(
    "weight, is_wide",
    [
        ("bfloat16", True),
        ("float32", True),
        ("int8", True),
        ("int8.g128", True),
        ("int4.g128", False),
        ("int4p.g128", False),
        ("int4.g32.affine", False),
        ("q4_k", False),
        ("q6_k", False),
        ("iq2_s", False),
        ("fp4.g32", False),
        ("fp8", False),
        ("fp8.g128", False),
    ],
)
def test_weights_that_wide_tiles_unpack_keep_tall_ones(program: Program, weight: str, is_wide: bool) -> None:
    """Making a panel to bytes for one row takes longer than multiplying it as it lies."""
    calls = [replace(call, kernel=f"{call.family}.{weight}.amx") for call in program.calls]
    found, _ = attach(replace(program, calls=tuple(calls)), [], revision, program.weight_bytes)
    tunings = [call.tuning for call in found.calls if call.family == "linear"]
    assert tunings
    for tuning in tunings:
        assert [each.tall_rows for each in tuning[:3]] == ([0] * 3 if is_wide else []), weight
