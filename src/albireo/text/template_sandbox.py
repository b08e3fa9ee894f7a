"""A jinja2 sandbox whose templates cannot run long or grow large: every step spends from a meter.

Called by chat_template.py. Does not know chats, tokens or tokenizers; no clock is read and no signal used, so it
works in any thread, and a template that passes on one machine passes on every machine.

A chat template is a program from a stranger. Two budgets bound it: work (a unit is about a microsecond at worst)
and characters created. Three places spend:
- the syntax tree, before it is compiled (template_charges.py);
- the environment, here: arithmetic, calls and attribute access are intercepted, and what could grow is measured first;
- the filters and tests: each is wrapped, arguments are checked before it runs (template_filters.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, MappingView
from types import CodeType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from albireo.text.template_charges import FILTERS, Instrument, charge_text
from albireo.text.template_filters import metered_filters, metered_tests
from albireo.text.template_meter import (
    MACRO_WORK,
    Meter,
    charge_result,
    check_format,
    check_int,
    check_method,
    check_power,
    check_product,
    listed,
)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What a template may call on plain data: everything real templates use, and nothing that grows unmeasured.
_METHODS: dict[type, frozenset[str]] = {
    str: _names(
        "capitalize casefold center count endswith find format format_map index isalnum isalpha isascii isdecimal "
        "isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition "
        "removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith "
        "strip swapcase title unescape upper zfill"
    ),
    dict: _names("copy get items keys values"),
    list: _names("copy count index"),
    tuple: _names("count index"),
    bytes: _names(""),
    int: _names("bit_length conjugate is_integer"),
    float: _names("is_integer"),
    range: _names(""),
    MappingView: _names(""),
}


class _GenerationTag(Extension):
    """{% generation %}…{% endgeneration %}: marks what the model wrote; to a prompt it is only a scope."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=lineno)


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """The environment of chat templates, as transformers sets it up, plus the meter.

    Compiling needs no meter; rendering runs the code against a copy of the environment that carries its own, so
    one compiled template serves many threads.
    """

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))
    meter: Meter

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=(_GenerationTag, LoopControlExtension),
            finalize=charge_text,
            # Constants are not folded: folding runs the template's operations when it is compiled, unmetered.
            optimized=False,
        )
        self.filters = {**metered_filters(self.filters), **FILTERS}
        self.tests = metered_tests(self.tests)
        del self.globals["lipsum"]
        self.globals["dict"] = _TemplateDict()
        self.globals["namespace"] = _TemplateNamespace
        self.globals["raise_exception"] = _raise_exception

    def compile_metered(self, tree: nodes.Template) -> CodeType:
        """Code of a parsed template with the charges built in."""
        tree = Instrument().visit(tree)
        tree.set_environment(self)
        code: CodeType = self.compile(tree, filename="<chat template>")
        return code

    def run(self, code: CodeType, variables: dict[str, Any], meter: Meter) -> str:
        """Render code under meter.

        Raises: LimitExceeded, jinja2.TemplateError, and whatever Python error the template runs into.
        """
        environment = copy.copy(self)
        environment.meter = meter
        template = jinja2.Template.from_code(environment, code, self.globals)
        return "".join(template.root_render_func(template.new_context(variables)))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        return True

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapper = super().wrap_str_format(value)
        if wrapper is None:
            return None

        def metered(*args: Any, **kwargs: Any) -> str:
            check_format(self.meter, value.__self__, "{", (*args, kwargs))
            return wrapper(*args, **kwargs)

        return metered

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = self.meter
        meter.spend(1)
        check_int(left)
        check_int(right)
        if operator == "*":
            check_product(meter, left, right)
        elif operator == "**":
            check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            check_format(meter, left, "%", right)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            meter.afford(len(left) + len(right))
        result = super().call_binop(context, operator, left, right)
        charge_result(meter, result)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        meter = __self.meter
        meter.spend(2)
        owner = getattr(__obj, "__self__", None)
        # jinja2 passes the variables of a loop or block along; they are no arguments.
        given = {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}
        if isinstance(owner, (str, list, tuple, dict)):
            args = check_method(meter, owner, __obj.__name__, args, given)
        elif isinstance(__obj, (Macro, LoopContext)):
            # What a macro does with its arguments is metered inside it.
            meter.spend(MACRO_WORK)
        else:
            # Any other callee may print, compare or hash.
            args = tuple(listed(meter, value) for value in args)
            meter.weigh([args, given])
        result = super().call(__context, __obj, *args, **kwargs)
        charge_result(meter, result)
        return result


class _TemplateDict:
    """dict() for templates, without the class behind it."""

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _TemplateNamespace(Namespace):
    """namespace() that takes no private names."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        # Namespaces may hold each other: what they hold is not printed.
        return "<Namespace>"


def _check_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold the private name {name!r}")


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(str(message))
