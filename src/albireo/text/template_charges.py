"""Charges in the syntax tree of a chat template: where its code pays for what it does.

Used by template_sandbox.py: a charge goes into every loop body, before every piece of literal text, and around operands
whose comparison or concatenation takes time in their size. Does not know what a charge costs (template_meter.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from albireo.text.template_meter import CHARS_PER_UNIT, Meter, charge_result


def meter_of(context: Context) -> Meter:
    """The meter of the render that a template's code runs in."""
    meter: Meter = context.environment.meter  # type: ignore[attr-defined]
    return meter


@pass_context
def _spend(context: Context, chars: int) -> bool:
    meter_of(context).spend(1 + chars // CHARS_PER_UNIT, chars)
    return True


@pass_context
def _charge_size(context: Context, value: Any) -> Any:
    meter_of(context).weigh(value)
    return value


@pass_context
def _charge_slice(context: Context, value: Any) -> Any:
    charge_result(meter_of(context), value)
    return value


@pass_context
def charge_text(context: Context, value: Any) -> Any:
    """A filter: the text of a value is created."""
    meter = meter_of(context)
    meter.spend(0, meter.weigh(value))
    return value


#: Charges by the name they have in a syntax tree. They are filters, because filters are called without any look-up.
FILTERS: dict[str, Callable[..., Any]] = {
    "_spend": _spend,
    "_shallow": _charge_slice,
    "_weigh": _charge_size,
    "_text": charge_text,
}


class Instrument(NodeTransformer):
    """Writes charges into a syntax tree; the environment that compiles it must have FILTERS."""

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
