"""Orders: what rank 0 of several does with its model, for the others to do the same.

Told by model.py of rank 0, obeyed by model.py of the others; carried by whoever starts them, as plain data. A step is
the words that its staging sent: they decide all that a step computes, and are the same on every rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from typing import Any, Protocol

from albireo.backends.cuda.buckets import Bucket, Ending

#: Methods of a CudaModel that a rank may be told to call.
OBEYED = frozenset(("follow", "record", "copy_blocks", "copy_states", "swap_out", "swap_in"))


@dataclass(frozen=True, slots=True)
class StagedStep:
    """A step as rank 0 launches it.

    Fields: sizes: padding included. bucket: None: call by call. feeds: tokens of the step before are among its own.
        words: int32, what was copied to the device.
    """

    sizes: Mapping[str, int]
    bucket: Bucket | None
    ending: Ending
    feeds: bool
    words: bytes


def plain(name: str, arg: Any) -> tuple[Any, bytes]:
    """The argument of a method of OBEYED as JSON may have it, and as bytes what is too much for that."""
    if isinstance(arg, StagedStep):
        bucket = None if arg.bucket is None else plain("record", arg.bucket)[0]
        return [dict(arg.sizes), bucket, astuple(arg.ending), arg.feeds], arg.words
    if isinstance(arg, Bucket):
        return [arg.size, arg.is_top, astuple(arg.ending), arg.tokens], b""
    return [list(pair) for pair in arg], b""


def argument(name: str, data: Any, words: bytes) -> Any:
    """What plain() was given."""
    if name == "follow":
        sizes, bucket, ending, feeds = data
        return StagedStep(
            sizes, None if bucket is None else argument("record", bucket, b""), Ending(*ending), feeds, words
        )
    if name == "record":
        size, is_top, ending, tokens = data
        return Bucket(size, is_top, Ending(*ending), tokens)
    return [tuple(pair) for pair in data]


class Leader(Protocol):
    """Of rank 0: how the others are told."""

    def together(self, number: int, name: str, arg: Any) -> AbstractContextManager[None]:
        """Have every other rank call a method of a model, while this one does the same inside.

        Args: number: of the model, 0 being the first. name: of OBEYED. arg: of that method.
        Raises: RankLost when one is gone, or when this one fails inside: the others wait for what never comes, and are
            ended.
        """
        ...

    def check(self) -> None:
        """Raises: RankLost when one is gone."""
        ...

    def share(self) -> int:
        """Have every other rank make the model that gives hidden states, see CudaModel.sharing(). Returns: its
        number."""
        ...
