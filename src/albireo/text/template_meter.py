"""What a template may spend, and what its operations would cost: measured before they happen.

Called by template_sandbox.py. Does not know jinja2: values are plain data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MappingView
from string import Formatter
from typing import Any, cast

#: Characters handled for one unit of work: copying or searching them takes well under a microsecond.
CHARS_PER_UNIT = 256
#: Characters for one unit where each is looked at by itself.
SLOW_CHARS_PER_UNIT = 32
#: Characters for one unit where each word is taken out and put back: a word may be one letter, and takes Python code.
WORD_CHARS_PER_UNIT = 4
#: A call of a macro, beside what its body does.
MACRO_WORK = 20
#: Items of a list copied for one unit of work; it bounds memory more than time.
ITEMS_PER_UNIT = 4
#: Largest number that may act as a width, count or precision. Real templates indent by 4.
MAX_WIDTH = 10_000
#: Largest product or power, in bits: beyond any count, small enough to compute at once.
MAX_INT_BITS = 4_096

# Filters whose numbers say how much to produce.
_WIDTH_FILTERS = frozenset({"batch", "center", "indent", "round", "slice"})
# Filters that look at each word.
_WORD_FILTERS = frozenset({"title", "wordcount"})
# Where filters take a path of attributes ("function.name"), beside the keyword attribute.
_PATHS = {
    "groupby": slice(0, None),
    "join": slice(1, None),
    "map": slice(0, 1),
    "max": slice(0, None),
    "min": slice(0, None),
    "rejectattr": slice(0, 1),
    "selectattr": slice(0, 1),
    "sort": slice(0, None),
    "sum": slice(0, None),
    "unique": slice(0, None),
}
#: Steps of such a path.
MAX_PATH = 8
_NUMBERS = re.compile(r"\d+")
# A conversion of %-formatting: key, then flags, width and precision (kept), then the letter. Nothing is given back: of
# zeros that are flags some could be a width, and a long run of them would be cut in all ways.
_PERCENT_SPEC = re.compile(r"%(?:\([^()]*+\))?+([#0\- +]*+\d*+(?:\.\d*+)?+)[hlL]?[a-zA-Z%]")


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
        # Of what a render does this is done most often: the budget is held here, and asked about once an item.
        work, total = self.work, 0
        stack: list[Any] = [value]
        # Shared parts count as often as they appear: that is how often a text made of them repeats them.
        while stack and work >= 0 and total <= self.chars:
            item = stack.pop()
            work -= 1
            if isinstance(item, str):
                work -= len(item) // CHARS_PER_UNIT
                total += len(item) + 4
            elif isinstance(item, int):
                total += item.bit_length() // 3 + 4
            elif isinstance(item, dict):
                work -= len(item)
                if work >= 0:
                    stack.extend(item.keys())
                    stack.extend(item.values())
            elif isinstance(item, range):
                # Printed it is short, searched it may be long.
                work -= len(item) // ITEMS_PER_UNIT
            elif isinstance(item, (list, tuple, MappingView)):
                work -= len(item)
                if work >= 0:
                    stack.extend(cast(Iterable[Any], item))
            else:
                total += 24
        self.spend(self.work - work)
        self.afford(total)
        return total


def charged_items(meter: Meter, items: Iterable[Any]) -> Iterator[Any]:
    """The items, a charge for each."""
    for item in items:
        meter.spend(1)
        yield item


def listed(meter: Meter, value: Any) -> Any:
    """A lazy sequence made whole, a charge an item; anything else as it is."""
    return list(charged_items(meter, value)) if isinstance(value, Iterator) else value


def charge_result(meter: Meter, result: Any) -> None:
    """Pay for what an operation made."""
    if isinstance(result, str):
        meter.spend(len(result) // CHARS_PER_UNIT, len(result))
    elif isinstance(result, (list, tuple, dict)):
        meter.spend(len(result) // ITEMS_PER_UNIT)
    else:
        check_int(result)


# -- growth, measured before it happens ---------------------------------------------------------------------------


def check_method(meter: Meter, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Check a call of a method of plain data; returns the arguments, lazy ones made whole."""
    args = tuple(listed(meter, argument) for argument in args)
    # They are compared, hashed or put together.
    size = meter.weigh([args, kwargs])
    if not isinstance(owner, str):
        if name in ("count", "index"):
            meter.weigh(owner)
        elif name != "get":
            meter.spend(len(owner) // ITEMS_PER_UNIT)
        return args
    meter.spend(len(owner) // CHARS_PER_UNIT)
    if name == "join" and len(args) == 1 and hasattr(args[0], "__len__"):
        meter.afford(size + len(owner) * len(args[0]))
    elif name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        _check_replace(meter, owner, args[0], args[1])
    elif name in ("center", "ljust", "rjust", "zfill"):
        for argument in (*args, *kwargs.values()):
            _check_width(name, argument)
    elif name in ("split", "rsplit", "splitlines"):
        meter.spend(len(owner) // SLOW_CHARS_PER_UNIT)
    if name in ("join", "replace") and kwargs:
        raise TypeError(f"{name}() takes no keyword arguments")
    return args


def _check_width(what: str, argument: Any) -> None:
    if isinstance(argument, int) and abs(argument) > MAX_WIDTH:
        raise LimitExceeded(f"{what} is asked for {argument}, more than {MAX_WIDTH}")


def _check_replace(meter: Meter, text: str, old: str, new: str) -> None:
    if len(new) > len(old):
        meter.afford(len(text) + text.count(old) * (len(new) - len(old)))


def check_int(value: Any) -> None:
    """Refuse a number too large to compute with at once."""
    if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        raise LimitExceeded("it computes with a number too large")


def check_product(meter: Meter, left: Any, right: Any) -> None:
    """Bound left * right: numbers, or a sequence repeated."""
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
    """Bound left ** right."""
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


def check_attribute(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a filter a long path of attributes: it is walked for every item."""
    paths = [*args[_PATHS[name]], kwargs.get("attribute")] if name in _PATHS else []
    if any(isinstance(path, str) and path.count(".") > MAX_PATH for path in paths):
        raise LimitExceeded(f"the filter {name} is given a path of more than {MAX_PATH} steps")


def check_filter(meter: Meter, name: str, value: Any, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Pay for the work of a filter on value, of size characters, and refuse what would grow too large."""
    meter.spend(size // (WORD_CHARS_PER_UNIT if name in _WORD_FILTERS else SLOW_CHARS_PER_UNIT))
    values = (*args, *kwargs.values())
    if name in _WIDTH_FILTERS:
        for argument in values:
            _check_width(f"the filter {name}", argument)
    texts = [len(argument) for argument in values if isinstance(argument, str)]
    if name == "replace":
        old, new, *_ = (*args, *(kwargs[key] for key in ("old", "new") if key in kwargs), "", "")
        _check_replace(meter, str(value), str(old), str(new))
    elif name == "join":
        meter.afford(size + (len(value) if hasattr(value, "__len__") else 0) * sum(texts))
    elif name == "format":
        check_format(meter, str(value), "%", values)
    elif name == "indent":
        widths = [argument for argument in values if isinstance(argument, int)]
        meter.afford(size + (str(value).count("\n") + 1) * (sum(texts) + sum(widths) + 4))
