"""Orders: what rank 0 of several does with its model, for the others to do the same.

Told by model.py and adapters.py of rank 0, obeyed by those of the others; carried by whoever starts them, as plain
data. A step is the words that its staging sent, and up to where its rows see, where it says so: they decide all that a
step computes, and are the same on every rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.backends.cuda.buckets import Bucket, Ending

#: Methods of a CudaModel that a rank may be told to call.
OBEYED = frozenset(("follow", "record", "copy_blocks", "copy_states", "swap_out", "swap_in"))


@dataclass(frozen=True, slots=True)
class StagedStep:
    """A step as rank 0 launches it.

    Fields: sizes: padding included. bucket: None: call by call. feeds: tokens of the step before are among its own.
        words: int32, what was copied to the device. ends: int32 of each token, where the step says up to where rows see
            (StepInputs.row_ends); empty: it does not.
    """

    sizes: Mapping[str, int]
    bucket: Bucket | None
    ending: Ending
    feeds: bool
    words: bytes
    ends: bytes = b""


@dataclass(frozen=True, slots=True)
class SlotPart:
    """What a slot of adapters is to hold of modules that are multiplied together.

    Fields: matrices: whole A [rank, inputs] and B [outputs, rank] times the scale, of those that the adapter has.
    """

    slot: int
    names: tuple[str, ...]
    matrices: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


#: A further program of the same weights: of hidden states (CudaModel.sharing), or with adapters (with_adapters).
Further = Literal["share", "adapt"]


def plain(name: str, arg: Any) -> tuple[Any, bytes]:
    """The argument of a method of OBEYED, or of put, as JSON may have it, and as bytes what is too much for that."""
    if isinstance(arg, SlotPart):
        shapes = {name: (len(a), a.shape[1], len(b)) for name, (a, b) in arg.matrices.items()}
        words = b"".join(each.tobytes() for pair in arg.matrices.values() for each in pair)
        return [arg.slot, arg.names, shapes], words
    if isinstance(arg, StagedStep):
        bucket = None if arg.bucket is None else plain("record", arg.bucket)[0]
        return [dict(arg.sizes), bucket, astuple(arg.ending), arg.feeds, len(arg.words)], arg.words + arg.ends
    if isinstance(arg, Bucket):
        return [arg.size, arg.is_top, astuple(arg.ending), arg.tokens], b""
    return [list(pair) for pair in arg], b""


def argument(name: str, data: Any, words: bytes) -> Any:
    """What plain() was given."""
    if name == "follow":
        sizes, bucket, ending, feeds, count = data
        made = None if bucket is None else argument("record", bucket, b"")
        return StagedStep(sizes, made, Ending(*ending), feeds, words[:count], words[count:])
    if name == "record":
        size, is_top, ending, tokens = data
        return Bucket(size, is_top, Ending(*ending), tokens)
    if name == "put":
        slot, names, shapes = data
        return SlotPart(slot, tuple(names), _matrices(shapes, np.frombuffer(words, np.float32)))
    return [tuple(pair) for pair in data]


def _matrices(
    shapes: Mapping[str, tuple[int, int, int]], numbers: NDArray[np.float32]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    found, at = {}, 0
    for name, (rank, inputs, outputs) in shapes.items():
        between, end = at + rank * inputs, at + rank * (inputs + outputs)
        found[name] = numbers[at:between].reshape(rank, inputs), numbers[between:end].reshape(outputs, rank)
        at = end
    return found


class Leader(Protocol):
    """Of rank 0: how the others are told."""

    def together(self, number: int, name: str, arg: Any) -> AbstractContextManager[None]:
        """Have every other rank call a method of a model, while this one does the same inside.

        Args: number: of the model, 0 being the first. name: of OBEYED; or put, of slots of adapters, which all models
            share. arg: of that method.
        Raises: RankLost when one is gone, or when this one fails inside: the others wait for what never comes, and are
            ended.
        """
        ...

    def check(self) -> None:
        """Raises: RankLost when one is gone."""
        ...

    def share(self, what: Further) -> int:
        """Have every other rank make a further model. Returns: its number."""
        ...

    def making_slots(self) -> AbstractContextManager[None]:
        """Have every other rank make slots of adapters, while this one does inside; waits for them.

        Raises: RankLost; the error of a rank that has no room for them. All are ended then.
        """
        ...
