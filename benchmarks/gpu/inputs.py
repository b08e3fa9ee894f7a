"""Random inputs of linears in the type that a weight wants, and matrices as the numbers they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from setup import Setup


def activations(
    setup: Setup, dtype: str, tokens: int, cols: int, kind: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """x as a linear with such a weight reads it; and the numbers that it stands for, float64.

    kind: another type, where the weight's codes are multiplied with that, too.
    """
    from albireo.encodings import encoding, is_encoding

    x = setup.random(tokens, cols, seed=3)
    kind = kind or (encoding(dtype).activation if is_encoding(dtype) else dtype)
    if not kind.endswith(".token"):
        rounded = x.to(getattr(torch, kind))
        return rounded, rounded.double()
    from albireo.backends.cuda.kernels.elementwise import elementwise

    rows = empty_rows(setup, tokens, cols, kind)
    elementwise("cast", x, None, rows, cols)
    return rows, values_of(rows, cols)


def empty_rows(setup: Setup, tokens: int, cols: int, kind: str) -> torch.Tensor:
    """Zeros, as many as rows of a compute type, or of codes, are."""
    from albireo.dtypes import FP8_TOKEN, natural_stride

    if not kind.endswith(".token"):
        return torch.zeros((tokens, cols), dtype=getattr(torch, kind), device=setup.device)
    rows = torch.zeros((tokens, natural_stride(kind, cols)), dtype=torch.uint8, device=setup.device)
    return rows.view(torch.float8_e4m3fn) if kind == FP8_TOKEN else rows


def values_of(rows: torch.Tensor, cols: int) -> torch.Tensor:
    """[T, cols] float64: what rows stand for."""
    from albireo.backends.cuda.tokens import numbers_of as numbers_of_rows

    return (numbers_of_rows(rows, cols) if rows.element_size() == 1 else rows).double()


def staged_tasks(setup: Setup, tasks: list[Any], vocab: int) -> tuple[Any, Any]:
    """Tasks on the device, each on the row of its own place; and what is known of them on the host."""
    from albireo.backends.cuda.drawing import tail_words
    from albireo.backends.cuda.sampling import TASK_COLUMNS, SamplingTensors
    from albireo.backends.cuda.staging import Staging
    from albireo.backends.cuda.task_arrays import TaskArrays
    from albireo.backends.step_inputs import StepInputs

    sizes = {"T": 0, "B": 0, "R": 0, "G": 0, "S": 0, "D": len(tasks), "L": 0}
    staging = Staging(sizes, 0, 16, setup.device, TASK_COLUMNS, tail_words(len(tasks), vocab))
    none, arrays = np.zeros(0, np.int32), TaskArrays(vocab)
    nothing = StepInputs(none, none, none, np.zeros(1, np.int32), none, np.zeros((0, 1), np.int32), none, none)
    arrays.set(tasks)
    rows = range(len(tasks))
    staging.fill(nothing, sizes, write=lambda columns, tail: arrays.write(columns, tail, rows, ahead=0))
    return SamplingTensors.of(staging.tensors(sizes, TASK_COLUMNS), staging.words), arrays


def numbers_of(matrix: Any) -> torch.Tensor:
    """[rows, cols] float64."""
    from albireo.encodings import encoding, is_encoding
    from albireo.quantization.encoded import E2M1_VALUES, gamma_values

    if is_encoding(matrix.dtype) and encoding(matrix.dtype).is_nested:
        return _numbers_of_nests(matrix)
    codes = matrix.codes
    if codes.dtype == torch.uint8:
        # a word has an input of each of eight planes, see DeviceMatrix
        words = codes.view(torch.int32).view(len(codes), -1, 1, 32)
        shifts = torch.arange(0, 32, 4, device=codes.device)[:, None]
        codes = ((words >> shifts) & 15).flatten(1)[:, : matrix.cols]
    elif codes.dtype == torch.float8_e4m3fn:
        codes = codes.view(torch.uint8).view(len(codes), -1, 32, 4).transpose(2, 3).flatten(1)[:, : matrix.cols]
        codes = codes.view(torch.float8_e4m3fn)
    values = codes.double()
    if matrix.scale is None:
        return values

    def spread(array: torch.Tensor) -> torch.Tensor:
        group = encoding(matrix.dtype).group if len(array) > 1 else matrix.cols
        return array.double().T.repeat_interleave(group, dim=1)[:, : matrix.cols]

    e = encoding(matrix.dtype)
    if e.kind == "microscaled":
        numbers, scales = (
            torch.from_numpy(table).double().to(codes.device) for table in (E2M1_VALUES, gamma_values(e))
        )
        values = numbers[codes.long()] * scales[spread(matrix.gamma).long()]
    elif matrix.gamma is not None:
        values = (values - spread(matrix.zero)) * spread(matrix.gamma)
    elif matrix.zero is not None:
        values = values - spread(matrix.zero)
    values = values * spread(matrix.scale)
    return values if matrix.offset is None else values + spread(matrix.offset)


def _numbers_of_nests(matrix: Any) -> torch.Tensor:
    """See DeviceMatrix: codes by their planes, groups' scales eight at a time, a float16 a nest."""
    from albireo.backends.cuda.matrix import high_bits, low_bits
    from albireo.encodings import NEST, encoding
    from albireo.quantization.encoded import NUMBERS, nested_zero

    e, rows = encoding(matrix.dtype), matrix.rows
    low, high = low_bits(e), high_bits(e)
    nests = matrix.codes.view(rows, -1, 32 * e.bits)

    def planes(data: torch.Tensor, bits: int) -> torch.Tensor:
        elements = data.contiguous().view({1: torch.int8, 2: torch.int16, 4: torch.int32}[bits])
        shifts = torch.arange(0, 8 * bits, bits, dtype=torch.int32, device=data.device)[:, None]
        return ((elements.int()[:, :, None] >> shifts) & ((1 << bits) - 1)).view(rows, -1)

    codes = planes(nests[:, :, : 32 * low], low)
    if high:
        codes |= planes(nests[:, :, 32 * low :], high) << low

    def of_groups(array: torch.Tensor) -> torch.Tensor:
        return array.transpose(0, 1).reshape(rows, -1).double().repeat_interleave(e.group, dim=1)

    def of_nests(array: torch.Tensor) -> torch.Tensor:
        return array.T.double().repeat_interleave(NEST, dim=1)

    if e.kind == "nested table":
        table, unit = NUMBERS[e.name]
        values = torch.from_numpy(table).to(codes.device)[codes].double() * unit
    else:
        values = codes.double() - (nested_zero(e) if e.kind == "nested" else 0)
    values.mul_(of_groups(matrix.gamma)).mul_(of_nests(matrix.scale))
    if matrix.offset is not None:
        values += of_groups(matrix.zero) * of_nests(matrix.offset)
    return values[:, : matrix.cols]
