"""What the meter counts, and what it refuses before it happens."""

from __future__ import annotations

import pytest

from albireo.text.template_meter import (
    LimitExceeded,
    Meter,
    charged_items,
    check_format,
    check_int,
    check_power,
    check_product,
    listed,
)


def test_meter_weighs_shared_parts_as_often_as_they_appear():
    meter = Meter(work=10_000, chars=10_000)
    item = "x" * 10
    assert meter.weigh([item, [item, {"k": item}]]) >= 30
    assert meter.work < 10_000
    nested = item
    for _ in range(60):
        nested = [nested, nested]
    with pytest.raises(LimitExceeded):
        meter.weigh(nested)
    with pytest.raises(LimitExceeded, match="too much text"):
        Meter(work=10, chars=10).spend(1, 11)


def test_lazy_sequences_pay_an_item_at_a_time():
    meter = Meter(work=10, chars=10)
    assert listed(meter, iter("abc")) == ["a", "b", "c"]
    assert meter.work == 7
    with pytest.raises(LimitExceeded, match="too many steps"):
        list(charged_items(meter, range(100)))
    plain = [1, 2]
    assert listed(meter, plain) is plain


@pytest.mark.parametrize(
    ("text", "mark", "values"),
    [
        ("%s and %5.2f%%", "%", ("a", 1.5)),
        ("%(a)s 20240101", "%", {"a": 1}),
        ("{} {0} {a:>10}", "{", (1, 2)),
        ("{{}} 20240101", "{", ()),
    ],
)
def test_ordinary_formatting_is_affordable(text, mark, values):
    check_format(Meter(work=1000, chars=1000), text, mark, values)


def test_numbers_within_bounds():
    meter = Meter(work=1000, chars=1000)
    check_int(2**4000)
    check_product(meter, 2**2000, 2**2000)
    check_product(meter, "ab", 500)
    check_power(2, 1000)
    check_power(2.0, 10**9)  # a float overflows by itself
    for refused in (
        lambda: check_int(2**5000),
        lambda: check_product(meter, 2**3000, 2**3000),
        lambda: check_product(meter, 501, "ab"),
        lambda: check_product(meter, [0], 10**9),
        lambda: check_power(10, 10**9),
        lambda: check_power(10, -(10**9)),
    ):
        with pytest.raises(LimitExceeded):
            refused()


def test_a_long_run_of_zeros_is_looked_at_once():
    """Each may be a flag or a digit of a width: tried in all ways, a million would take a day."""
    for mark in ("%" + "0" * 10**6, "%(" + "a" * 10**6, "%" * 10**6 + "s", "%.".ljust(10**6, "0")):
        with pytest.raises(LimitExceeded):
            check_format(Meter(work=10**6, chars=10**6), mark, "%", ())
