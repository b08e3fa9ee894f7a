"""PreparedSound and SoundProcessor: what all families of processors give, and how they are asked.

Called by the front doors and by every family.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from albireo.errors import InvalidParams
from albireo.sounds.features import F32, LogMel


@dataclass(frozen=True, slots=True)
class PreparedSound:
    """One sound of a prompt.

    Fields:
        tiles: each [frames, bands] as the tower hears it. Not to be written to.
        text: what stands for the sound in a prompt, in place of the placeholder: row tokens, one for each row that the
            tower gives of the tiles, in their order.
        is_beside: rows are added to the embeddings of tokens instead, of the whole sequence from its first on; text is
            what stands behind that in a prompt.
    """

    tiles: tuple[F32, ...]
    text: str
    is_beside: bool = False


@runtime_checkable
class SoundProcessor(Protocol):
    """Prepares sounds for one model. May be used by many threads.

    Fields:
        rate: samples a second that it is given. longest_s: seconds of the longest sound; infinite: there is no longest.
        row_token: the token that becomes a row of the tower; row_marks: others that do. placeholder: what the model's
            chat template writes for a sound; around it the template may write more, which stays.
    """

    @property
    def rate(self) -> int: ...

    @property
    def longest_s(self) -> float: ...

    @property
    def rows_per_s(self) -> float:
        """Of a sound that is long."""
        ...

    @property
    def row_token(self) -> str: ...

    @property
    def row_marks(self) -> tuple[str, ...]: ...

    @property
    def placeholder(self) -> str: ...

    def prepare(self, samples: F32) -> PreparedSound:
        """Of samples [n], n > 0. Raises: InvalidParams when they are too few, or too many."""
        ...

    def rows(self, frames: int, bands: int) -> int:
        """Rows that the tower gives of such a tile."""
        ...

    def largest_tile(self) -> tuple[int, int]:
        """Most frames that a tile may have, and how many bands."""
        ...


@runtime_checkable
class HearsWithoutPictures(Protocol):
    """A processor of sounds of which others are heard beside pictures than without. Fields: without_pictures: why a
    prompt has not both, as the end of a sentence."""

    @property
    def without_pictures(self) -> str: ...


class HasSpectra:
    """Of a processor that cuts spectra of logarithms into tiles; see SoundProcessor."""

    __slots__ = ()
    spectra: LogMel

    @property
    def rate(self) -> int:
        return self.spectra.rate

    @property
    def rows_per_s(self) -> float:
        frames, bands = self.largest_tile()
        return self.rows(frames, bands) * self.spectra.rate / (frames * self.spectra.hop)

    @abstractmethod
    def rows(self, frames: int, bands: int) -> int:
        """See SoundProcessor."""

    @abstractmethod
    def largest_tile(self) -> tuple[int, int]:
        """See SoundProcessor."""


def nothing_heard(samples: F32, fewest: int) -> InvalidParams:
    """What is wrong with a sound that is too short."""
    return InvalidParams(f"the sound has {len(samples)} samples; of fewer than {fewest} nothing is heard")


def refuse_longer(samples: F32, rate: int, longest_s: float) -> None:
    """Raises: InvalidParams for samples of more seconds than a model hears."""
    seconds = len(samples) / rate
    if seconds > longest_s:
        raise InvalidParams(
            f"the sound takes {seconds:.2f} s, and this model hears up to {longest_s:g} s; cut it, or give its parts "
            "one by one"
        )
