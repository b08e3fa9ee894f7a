"""Calls of residual streams, and of rows looked at as a whole -> launches, as bind.py has them of other families."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from albireo.backends.cuda.call_args import CallArgs, Launch
from albireo.backends.cuda.kernels.add_streams import add_streams
from albireo.backends.cuda.kernels.balance import balance
from albireo.backends.cuda.kernels.join_sums import join_sums
from albireo.backends.cuda.kernels.mix_streams import mix_streams
from albireo.backends.cuda.kernels.read_streams import Reading, Shifts, read_streams
from albireo.backends.cuda.kernels.row_map import row_map


def _add_streams(args: CallArgs) -> Launch:
    x, y, out, coefs = args.buffer("x"), args.buffer("y"), args.buffer("out"), args.optional_buffer("coefs")
    parts, first, plus = args.number("num_parts"), args.number("first"), float(args.call.attrs["plus"])
    return lambda step: add_streams(x(step), y(step), coefs(step), out(step), parts, first, plus)


def _read_streams(args: CallArgs) -> Launch:
    x, y, out, coefs, matrix = (args.buffer(role) for role in ("x", "y", "out", "coefs", "matrix"))
    read, written, mixed = (
        Shifts(args.vector(f"{name}_scale"), args.vector(f"{name}_bias")) for name in ("read", "written", "mixed")
    )
    gain, attrs = args.optional_vector("gain"), args.call.attrs
    reading = Reading(attrs["eps"], attrs["plus"], attrs["rounds"], attrs["least"], attrs.get("norm_eps", 0.0))
    shifts = (read, written, mixed)
    return lambda step: read_streams(x(step), y(step), shifts, gain, out(step), coefs(step), matrix(step), reading)


def _mix_streams(args: CallArgs) -> Launch:
    x, y, coefs, matrix, out = (
        *(args.buffer(role) for role in ("x", "y", "coefs")),
        args.optional_buffer("matrix"),
        args.buffer("out"),
    )
    factor, plus = float(args.call.attrs["factor"]), float(args.call.attrs["plus"])
    return lambda step: mix_streams(x(step), y(step), coefs(step), matrix(step), out(step), factor, plus)


def _row_map(args: CallArgs) -> Launch:
    x, y, out = args.buffer("x"), args.optional_buffer("y"), args.buffer("out")
    kind, number = args.call.attrs["kind"], float(args.call.attrs["number"])
    return lambda step: row_map(kind, x(step), y(step), out(step), number)


def _join_sums(args: CallArgs) -> Launch:
    x, y, sinks, out = args.buffer("x"), args.buffer("y"), args.vector("sinks"), args.buffer("out")
    return lambda step: join_sums(x(step), y(step), sinks, out(step))


def _balance(args: CallArgs) -> Launch:
    x, out, rounds, eps = args.buffer("x"), args.buffer("out"), args.number("rounds"), float(args.call.attrs["eps"])
    return lambda step: balance(x(step), out(step), rounds, eps)


#: Families of graph.program_spec.OF_STREAMS and JOINED_STREAMS.
OF_STREAMS: Mapping[str, Callable[[CallArgs], Launch]] = {
    "add_parts": _add_streams,
    "read_streams": _read_streams,
    "mix_streams": _mix_streams,
    "row_map": _row_map,
    "join_sums": _join_sums,
    "balance": _balance,
}
