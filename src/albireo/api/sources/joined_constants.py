"""Constants that lie behind each other in one that is stored: experts, and one that all rows have
(compiler/passes/join_shared_experts.py), for a program that keeps them apart.

Called by engine_source.py. Does not know how rows are packed, only that each is by itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import permutations

from albireo.artifact.program_json import StoredConstant, rows_digest
from albireo.backends.stored_weights import RowsOf
from albireo.compiler.rewrite import merged_name
from albireo.graph.node import ConstantDef, RowSegment
from albireo.graph.program import PackedConstant

_NUMBER = re.compile(r"\.(\d+)\.")


def rows_of_joined(constants: Iterable[PackedConstant], stored: Mapping[str, StoredConstant]) -> Mapping[str, RowsOf]:
    """Of constants that are not stored, those that are rows of one which is; by name. Made of the same rows of the
    checkpoint, in the same order, or they are not among them. Cost: O(layers), of so many constants each."""
    of_layer: dict[str, list[PackedConstant]] = defaultdict(list)
    for constant in constants:
        if constant.name not in stored and constant.definition is not None:
            number = _NUMBER.search(constant.name)
            of_layer[number[1] if number else ""].append(constant)
    found: dict[str, RowsOf] = {}
    for missing in of_layer.values():
        for first, second in permutations(missing, 2):
            whole = stored.get(merged_name([first.name, second.name]))
            if whole is not None and _is_made_of(whole, first, second):
                found[first.name] = RowsOf(whole.constant.name, 0)
                found[second.name] = RowsOf(whole.constant.name, first.rows)
    return found


def _is_made_of(whole: StoredConstant, first: PackedConstant, second: PackedConstant) -> bool:
    """Rows of zeros may be behind both."""
    stored, definitions = whole.constant, (first.definition, second.definition)
    padding = stored.rows - first.rows - second.rows
    alike = {(each.packing, each.cols) for each in (stored, first, second)}
    if None in definitions or padding < 0 or len(alike) > 1:
        return False
    segments = [segment for each in definitions if each is not None for segment in each.segments]
    segments += [RowSegment(None, 0, padding)] if padding else []
    joined = replace(first, rows=stored.rows, definition=ConstantDef(tuple(segments)))
    return whole.made_of == rows_digest(joined)
