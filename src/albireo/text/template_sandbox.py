"""A jinja2 sandbox whose templates cannot run long or grow large: every step spends from a meter.

Called by chat_template.py. Does not know chats, tokens or tokenizers; no clock is read and no signal used, so it
works in any thread, and a template that passes on one machine passes on every machine.

A chat template is a program from a stranger. Two budgets bound it: work (a unit is about a microsecond at worst)
and characters created. Three places spend:
- the syntax tree: _Instrument puts a charge into every loop body, before every piece of literal text, and around
  operands whose comparison or concatenation takes time in their size;
- the environment: arithmetic, calls and attribute access are intercepted, and what could grow is measured first;
- the filters and tests: each is wrapped, arguments are checked before it runs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, MappingView
from types import CodeType
from typing import Any, cast

import jinja2
from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, _PassArg
from jinja2.visitor import NodeTransformer

from albireo.text.template_meter import (
    CHARS_PER_UNIT,
    LimitExceeded,
    Meter,
    charge_result,
    charged_items,
    check_attribute,
    check_filter,
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

# Filters of jinja2 that no chat needs and whose cost is hard to bound.
_REMOVED_FILTERS = _names("filesizeformat pprint random striptags urlize wordwrap xmlattr")
# Filters that look at their input's head or length only.
_FREE_FILTERS = _names("attr count d default first last length map reject rejectattr select selectattr")


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
            finalize=_charge_text,
            # Constants are not folded: folding runs the template's operations when it is compiled, unmetered.
            optimized=False,
        )
        for name in _REMOVED_FILTERS:
            del self.filters[name]
        self.filters["tojson"] = _tojson
        self.filters = {name: _metered(name, function) for name, function in self.filters.items()}
        self.filters.update(_spend=_spend, _shallow=_charge_slice, _weigh=_charge_size, _text=_charge_text)
        self.tests = {name: _metered_test(cast(Callable[..., Any], test)) for name, test in self.tests.items()}
        del self.globals["lipsum"]
        self.globals["dict"] = _TemplateDict()
        self.globals["namespace"] = _TemplateNamespace
        self.globals["raise_exception"] = _raise_exception

    def compile_metered(self, tree: nodes.Template) -> CodeType:
        """Code of a parsed template with the charges built in."""
        tree = _Instrument().visit(tree)
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
        elif not isinstance(__obj, (Macro, LoopContext)):
            # What a macro does with its arguments is metered inside it; any other callee may print, compare or hash.
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


# -- charges that _Instrument writes into templates: filters, because filters are called without any look-up -----


def _meter(context: Context) -> Meter:
    meter: Meter = context.environment.meter  # type: ignore[attr-defined]
    return meter


@pass_context
def _spend(context: Context, chars: int) -> bool:
    _meter(context).spend(1 + chars // CHARS_PER_UNIT, chars)
    return True


@pass_context
def _charge_size(context: Context, value: Any) -> Any:
    _meter(context).weigh(value)
    return value


@pass_context
def _charge_slice(context: Context, value: Any) -> Any:
    charge_result(_meter(context), value)
    return value


@pass_context
def _charge_text(context: Context, value: Any) -> Any:
    meter = _meter(context)
    meter.spend(0, meter.weigh(value))
    return value


class _Instrument(NodeTransformer):
    """Writes charges into a syntax tree."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_charge(0, node.lineno), lineno=node.lineno))
        if node.test is not None:
            # A loop whose condition is false runs no body: the condition pays.
            node.test = nodes.And(_charge(0, node.lineno), node.test, lineno=node.lineno)
        return node

    def visit_Output(self, node: nodes.Output) -> list[nodes.Node]:
        self.generic_visit(node)
        literal = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        if not literal:
            return [node]
        return [nodes.ExprStmt(_charge(literal, node.lineno), lineno=node.lineno), node]

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_through("_text", part) for part in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        # Comparing with a constant takes no longer than the constant is; searching takes what is searched.
        constant = isinstance(node.expr, nodes.Const)
        for operand in node.ops:
            searches = operand.op in ("in", "notin")
            if searches or not (constant or isinstance(operand.expr, nodes.Const)):
                operand.expr = _through("_weigh", operand.expr)
            if searches:
                # It is hashed when a dictionary is searched.
                node.expr = _through("_weigh", node.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = _through("_weigh", node.key)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _through("_shallow", node)
        node.arg = _through("_weigh", node.arg)
        return node


def _charge(chars: int, lineno: int) -> nodes.Expr:
    return nodes.Filter(nodes.Const(chars, lineno=lineno), "_spend", [], [], None, None, lineno=lineno)


def _through(name: str, node: nodes.Expr) -> nodes.Expr:
    if isinstance(node, nodes.Const):
        return node
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


# -- filters and tests ------------------------------------------------------------------------------------------


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that weighs its input, checks what could grow, and charges its result."""
    wants = _PassArg.from_obj(function)

    @pass_context
    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        meter.spend(2)
        if args or kwargs:
            meter.weigh([args, kwargs])
            check_attribute(name, args, kwargs)
        if name not in _FREE_FILTERS:
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
        meter = _meter(context)
        meter.spend(1)
        if args or kwargs:
            meter.weigh([value, args, kwargs])
        first = (context.environment,) if wants is _PassArg.environment else ()
        return function(*first, value, *args, **kwargs)

    return metered
