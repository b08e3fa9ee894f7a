"""What a template may spend, and what its operations would cost: measured before they happen.

Called by template_sandbox.py. Does not know jinja2: values are plain data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from string import Formatter
from typing import Any

#: Characters handled for one unit of work: copying or searching them takes well under a microsecond.
CHARS_PER_UNIT = 256
#: Items of a list copied for one unit of work; it bounds memory more than time.
ITEMS_PER_UNIT = 4
#: Largest number that may act as a width, count or precision. Real templates indent by 4.
MAX_WIDTH = 10_000
#: Largest product or power, in bits: beyond any count, small enough to compute at once.
MAX_INT_BITS = 4_096

# Filters whose numbers say how much to produce.
_WIDTH_FILTERS = frozenset({"batch", "center", "indent", "round", "slice"})
_NUMBERS = re.compile(r"\d+")
# A conversion of %-formatting: key, then flags, width and precision (kept), then the letter.
_PERCENT_SPEC = re.compile(r"%(?:\([^()]*\))?([#0\- +]*\d*(?:\.\d*)?)[hlL]?[a-zA-Z%]")


class LimitExceeded(Exception):
    """A template spent its budget. Not a ValueError: jinja2's own filters must not swallow it."""


class Meter:
    """Invariant: work and chars only fall; below zero the render ends with LimitExceeded."""

    __slots__ = ("chars", "work")

    def __init__(self, work: int, chars: int) -> None:
        self.work = work
        self.chars = chars

    def spend(self, work: int, chars: int = 0) -> None:
        """Pay for work done and characters created."""
        self.work -= work
        self.chars -= chars
        if self.work < 0:
            raise LimitExceeded("it takes too many steps")
        if self.chars < 0:
            raise LimitExceeded("it creates too much text")

    def afford(self, chars: int) -> None:
        """Refuse characters that the budget does not hold, before they are created; spends nothing."""
        if chars > self.chars:
            raise LimitExceeded("it creates too much text")

    def weigh(self, value: Any) -> int:
        """Pay a unit for every item inside value, through all nesting.

        Returns: the characters of a text made of it, roughly.
        """
        if isinstance(value, str):
            self.spend(1 + len(value) // CHARS_PER_UNIT)
            return len(value)
        total, stack = 0, [value]
        while stack:
            item = stack.pop()
            self.spend(1)
            if isinstance(item, str):
                self.spend(len(item) // CHARS_PER_UNIT)
                total += len(item) + 4
            elif isinstance(item, dict):
                self.spend(len(item))
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, (list, tuple, set, frozenset)):
                self.spend(len(item))
                stack.extend(item)
            elif isinstance(item, int):
                total += item.bit_length() // 3 + 4
            else:
                total += 24
            # Shared parts count as often as they appear: that is how often a text made of them repeats them.
            self.afford(total)
        return total


def charged_items(meter: Meter, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        meter.spend(1)
        yield item


def listed(meter: Meter, value: Any) -> Any:
    """A lazy sequence made whole, a charge an item; anything else as it is."""
    return list(charged_items(meter, value)) if isinstance(value, Iterator) else value


def charge_result(meter: Meter, result: Any) -> None:
    if isinstance(result, str):
        meter.spend(len(result) // CHARS_PER_UNIT, len(result))
    elif isinstance(result, (list, tuple, dict)):
        meter.spend(len(result) // ITEMS_PER_UNIT)
    else:
        check_int(result)


# -- growth, measured before it happens ---------------------------------------------------------------------------


def check_method(meter: Meter, owner: Any, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check a call of a method of plain data; returns the arguments, lazy ones made whole."""
    if not isinstance(owner, str):
        if name in ("count", "index"):
            meter.weigh(owner)
        elif name != "get":
            meter.spend(len(owner) // ITEMS_PER_UNIT)
        # They are compared, or hashed.
        for argument in args:
            meter.weigh(argument)
        return args
    meter.spend(len(owner) // CHARS_PER_UNIT)
    if name == "join" and args:
        items = listed(meter, args[0])
        meter.afford(meter.weigh(items) + len(owner) * _length(items))
        return (items, *args[1:])
    if name == "replace" and len(args) >= 2:
        _check_replace(meter, owner, str(args[0]), str(args[1]))
    elif name in ("center", "ljust", "rjust", "zfill"):
        for argument in args:
            _check_width(name, argument)
    elif name in ("split", "rsplit", "splitlines"):
        meter.spend(len(owner) // 16)
    return args


def _check_width(what: str, argument: Any) -> None:
    if isinstance(argument, int) and abs(argument) > MAX_WIDTH:
        raise LimitExceeded(f"{what} is asked for {argument}, more than {MAX_WIDTH}")


def _check_replace(meter: Meter, text: str, old: str, new: str) -> None:
    if len(new) > len(old):
        meter.afford(len(text) + text.count(old) * (len(new) - len(old)))


def check_int(value: Any) -> None:
    if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        raise LimitExceeded("it computes with a number too large")


def check_product(meter: Meter, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > MAX_INT_BITS:
            raise LimitExceeded("it multiplies numbers too large")
        return
    for sequence, times in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(sequence, str):
            meter.afford(len(sequence) * times)
        elif isinstance(times, int) and isinstance(sequence, (list, tuple)):
            meter.spend(len(sequence) * max(times, 0))


def check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_INT_BITS:
        raise LimitExceeded("it raises a number to too large a power")


def check_format(meter: Meter, text: str, mark: str, values: Any) -> None:
    """Bound what formatting text can give: its own widths, and every field filled with the longest value."""
    specs = _percent_specs(text) if mark == "%" else _brace_specs(text)
    widths = [number for spec in specs for number in _NUMBERS.findall(spec)]
    if any(len(number) > 5 for number in widths):
        raise LimitExceeded(f"it formats to a width of {max(widths, key=len)[:20]}")
    meter.afford(len(text) + sum(map(int, widths)) + text.count(mark) * meter.weigh(values))


def _percent_specs(text: str) -> list[str]:
    specs = _PERCENT_SPEC.findall(text)
    if "%" in _PERCENT_SPEC.sub("", text):
        raise LimitExceeded("it formats with a width taken from the data, or in a way that cannot be measured")
    return [str(spec) for spec in specs]


def _brace_specs(text: str) -> list[str]:
    specs = [spec or "" for _, _, spec, _ in Formatter().parse(text)]
    if any("{" in spec for spec in specs):
        raise LimitExceeded("it formats with a width taken from the data")
    return specs


def _length(value: Any) -> int:
    if isinstance(value, Undefined):
        return 0
    return len(value) if hasattr(value, "__len__") else 0


def check_filter(meter: Meter, name: str, value: Any, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    values = (*args, *kwargs.values())
    if name in _WIDTH_FILTERS:
        for argument in values:
            _check_width(f"the filter {name}", argument)
    texts = [len(argument) for argument in values if isinstance(argument, str)]
    if name == "replace":
        old, new, *_ = (*args, *(kwargs[key] for key in ("old", "new") if key in kwargs), "", "")
        _check_replace(meter, str(value), str(old), str(new))
    elif name == "join":
        meter.afford(size + _length(value) * sum(texts))
    elif name == "format":
        check_format(meter, str(value), "%", values)
    elif name in ("indent", "wordwrap"):
        widths = [argument for argument in values if isinstance(argument, int)]
        lines = size + 1 if name == "wordwrap" else str(value).count("\n") + 1
        meter.afford(size + lines * (sum(texts) + (sum(widths) if name == "indent" else 0) + 4))
