"""The filters and tests of chat templates: which there are, each behind a check of what could grow and a charge.

Used by template_sandbox.py. Does not know what a charge costs (template_meter.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from jinja2 import pass_context
from jinja2.runtime import Context
from jinja2.utils import _PassArg

from albireo.text.template_charges import meter_of
from albireo.text.template_meter import (
    LimitExceeded,
    charge_result,
    charged_items,
    check_attribute,
    check_filter,
    listed,
)

# Filters of jinja2 that no chat needs and whose cost is hard to bound.
_REMOVED = frozenset(["filesizeformat", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"])
# Filters that look at their input's head or length only.
_FREE = frozenset(
    ["attr", "count", "d", "default", "first", "last", "length", "map", "reject", "rejectattr", "select", "selectattr"]
)


def metered_filters(filters: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Those of jinja2's filters that templates may use, metered; tojson is our own."""
    kept = {name: function for name, function in filters.items() if name not in _REMOVED} | {"tojson": _tojson}
    return {name: _metered(name, function) for name, function in kept.items()}


def metered_tests(tests: Mapping[str, Any]) -> dict[str, Any]:
    """jinja2's tests, metered."""
    return {name: _metered_test(cast(Callable[..., Any], test)) for name, test in tests.items()}


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes for HTML; a prompt is not HTML.
    for part in (indent, *(separators or ())):
        if isinstance(part, str) and len(part) > 16:
            raise LimitExceeded("tojson is asked to indent by too much")
    if isinstance(indent, int) and indent > 16:
        raise LimitExceeded(f"tojson is asked to indent by {indent}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that weighs its input, checks what could grow, and charges its result."""
    wants = _PassArg.from_obj(function)

    @pass_context
    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = meter_of(context)
        meter.spend(2)
        if args or kwargs:
            meter.weigh([args, kwargs])
            check_attribute(name, args, kwargs)
        if name not in _FREE:
            value = listed(meter, value)
            size = meter.weigh(value)
            check_filter(meter, name, value, size, args, kwargs)
        if wants is _PassArg.context:
            result = function(context, value, *args, **kwargs)
        elif wants is _PassArg.eval_context:
            result = function(context.eval_ctx, value, *args, **kwargs)
        elif wants is _PassArg.environment:
            result = function(context.environment, value, *args, **kwargs)
        else:
            result = function(value, *args, **kwargs)
        charge_result(meter, result)
        return charged_items(meter, result) if isinstance(result, Iterator) else result

    return metered


def _metered_test(function: Callable[..., Any]) -> Callable[..., Any]:
    wants = _PassArg.from_obj(function)

    @pass_context
    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = meter_of(context)
        meter.spend(1)
        if args or kwargs:
            meter.weigh([value, args, kwargs])
        first = (context.environment,) if wants is _PassArg.environment else ()
        return function(*first, value, *args, **kwargs)

    return metered
