"""What is no text in a prompt -> what stands for it there, and what a tower reads: of pictures, sounds and videos.

Called by media.py; what each becomes is a Place's, images.py, sound_places.py and video_places.py. Where a prompt has
places for them is its token ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from albireo.errors import InvalidParams
from albireo.image_input import ImageInput, MediaKind, Tile, key_of, seen_both_ways
from albireo.text.tokenizer import Tokenizer

#: A prompt with all in place.
Placed = tuple[list[int], tuple[ImageInput, ...]]


class Standing(NamedTuple):
    """What stands for one in a prompt. Fields: text: row tokens, one a row of the tiles, and marks between them. grid,
    times: see ImageInput. numbered: see PreparedImage. is_beside: see PreparedSound. is_prose: it begins and ends with
    words, which are one text with those around it. shared_mark: see SharesMarks; empty: there is none."""

    text: str
    tiles: tuple[Tile, ...]
    grid: tuple[int, int] | None = None
    times: tuple[int, ...] = ()
    numbered: tuple[str, str] | None = None
    is_beside: bool = False
    is_prose: bool = False
    shared_mark: str = ""


class Place(ABC):
    """What becomes of one kind. Threads may share it.

    Fields: mark: the token that a prompt has where one is. row_token: that becomes a row of the tower; row_marks:
    others that do. most: of a prompt; None: any number. written: letters that chat templates write in place of the
    mark; None: they write the mark. opening: what stands before all that they write. around: tokens that go with the
    mark where they stand before and behind it. sees_prompt: of a prompt that has some each token sees all others.
    without_pictures: why a prompt that has some has no pictures, as the end of a sentence; empty: it may.
    chat_template: by which chats that have some are written, where callers name no other; None: the model's.
    """

    kind: MediaKind
    written: str | None = None
    opening: str = ""
    around: tuple[str, str] | None = None
    sees_prompt: bool = False
    without_pictures: str = ""
    chat_template: str | None = None
    row_marks: tuple[str, ...] = ()

    def __init__(self, mark: str, row_token: str, most: int | None) -> None:
        self.mark, self.row_token, self.most = mark, row_token, most

    @property
    def several(self) -> str:
        return f"{self.kind}s"

    @property
    def tokens(self) -> tuple[str, ...]:
        """All that a tokenizer has to have."""
        return self.mark, self.row_token, *self.row_marks, *(self.around or ())

    def marked(self, text: str) -> str:
        """A prompt of text with marks where letters spell one. Raises: InvalidParams."""
        return text

    def arranged(self, token_ids: Sequence[int], tokenizer: Tokenizer) -> Sequence[int]:
        """A prompt that has marks, with the tokens that the model wants around them."""
        return token_ids

    @abstractmethod
    def standing(self, given: Any) -> Standing:
        """What stands for what a caller gave. Raises: InvalidParams when it cannot be read."""


class Places:
    """Puts what callers give in its places. Threads may share it.

    Fields: kinds: that it has places for. problems: of others of the model why there are none, as the end of a
        sentence: its tokenizer has no tokens for them.
    """

    def __init__(self, tokenizer: Tokenizer, *kinds: Place) -> None:
        self._tokenizer = tokenizer
        found = {place.kind: _missing(place, tokenizer) for place in kinds}
        self.problems: Mapping[MediaKind, str] = {kind: problem for kind, problem in found.items() if problem}
        kinds = tuple(place for place in kinds if place.kind not in self.problems)
        self.kinds: Mapping[MediaKind, Place] = {place.kind: place for place in kinds}
        tokens = dict.fromkeys(token for place in kinds for token in place.tokens)
        ids = {token: at for token in tokens if (at := tokenizer.token_to_id(token)) is not None}
        self._marks = {place.kind: ids[place.mark] for place in kinds}
        self._rows = {place.kind: {ids[token] for token in (place.row_token, *place.row_marks)} for place in kinds}
        self._around = {
            place.kind: tuple(ids[token] for token in place.around) for place in kinds if place.around is not None
        }

    def placed(self, token_ids: Sequence[int], media: Mapping[MediaKind, Sequence[Any]]) -> Placed:
        """The prompt with what stands for each in place of its mark. Where none of a kind are given, marks of it are
        tokens like others.

        Raises: InvalidParams when there are more of the one than of the other, or one cannot be read.
        """
        for kind, given in media.items():
            if given:
                if media.get("image") and self.kinds[kind].without_pictures:
                    told = self.kinds[kind].without_pictures
                    raise InvalidParams(f"the prompt has pictures and {kind}s, and of this model either alone: {told}")
                token_ids = self.kinds[kind].arranged(token_ids, self._tokenizer)
        marked = sorted(
            (at, kind, number)
            for kind, given in media.items()
            if given
            for number, at in enumerate(self._marked(token_ids, kind, len(given)))
        )
        ids: list[int] = []
        found: list[ImageInput] = []
        start = 0
        for at, kind, number in marked:
            first, last = self._with_around(token_ids, at, kind)
            ids += token_ids[start : max(start, first)]
            place, given = self.kinds[kind], media[kind]
            try:
                standing = _numbered(place.standing(given[number]), number)
                found.append(self._put(ids, place, standing, token_ids[last : last + 1]))
                if standing.shared_mark:
                    blank, last = self._with_blank(token_ids, last)
                    ids += blank
            except InvalidParams as error:
                raise InvalidParams(f"the prompt's {kind} {number + 1} of {len(given)}: {error}") from None
            start = last
        ids += token_ids[start:]
        if any(self.kinds[kind].sees_prompt for _, kind, _ in marked):
            return ids, seen_both_ways(found, ids)
        return ids, tuple(found)

    def _marked(self, token_ids: Sequence[int], kind: MediaKind, count: int) -> list[int]:
        """Where a prompt has places for as many of a kind. Raises: InvalidParams where it has more, or fewer."""
        place = self.kinds[kind]
        if place.most is not None and count > place.most:
            raise InvalidParams(
                f"the prompt has {count} {place.several}; limit_mm_per_prompt allows {place.most}; give fewer, or "
                "raise it"
            )
        places = [at for at, token in enumerate(token_ids) if token == self._marks[kind]]
        if len(places) != count:
            raise InvalidParams(
                f"the prompt has {len(places)} places for {place.several} ({place.mark}) and {count} "
                f"{place.several}; give one each"
            )
        return places

    def _with_around(self, token_ids: Sequence[int], at: int, kind: MediaKind) -> tuple[int, int]:
        """Where a mark begins and ends, with what goes with it."""
        around = self._around.get(kind)
        if around is None or at == 0 or tuple(token_ids[at - 1 : at + 2 : 2]) != around:
            return at, at + 1
        return at - 1, at + 2

    def _put(self, ids: list[int], place: Place, standing: Standing, behind: Sequence[int]) -> ImageInput:
        """At the end of ids. Args: behind: the token that comes next, or none."""
        text = standing.text
        while ids and (standing.is_prose or text[:1].isspace()) and (before := self._blank(ids[-1])):
            text = before + text  # blanks side by side are one token, as where a text is encoded whole
            ids.pop()
        if standing.shared_mark and ids[-1:] == [self._tokenizer.token_to_id(standing.shared_mark)]:
            text = text.removeprefix(standing.shared_mark)
        first = len(ids)
        ids += self._encoded(text, behind if standing.is_prose else ())
        if standing.is_beside:
            return _from_the_start(place, standing, first)
        spans, tiles = _runs(ids, first, self._rows[place.kind]), standing.tiles
        there, wanted = sum(end - start for start, end in spans), sum(tile.num_rows for tile in tiles)
        if there != wanted:
            raise InvalidParams(
                f"the tokenizer writes {there} tokens {place.row_token} for it, the tower gives {wanted} rows: "
                "tokenizer and processor are of different models"
            )
        return ImageInput(key_of(tiles, standing.times), tiles, spans, standing.grid, place.kind, standing.times)

    def _with_blank(self, token_ids: Sequence[int], start: int) -> tuple[list[int], int]:
        """Ids of the word that stands there, with a blank before it, and where it ends; none where there is no word, or
        where it would become a special token, which texts have none of."""
        end = start
        while end < len(token_ids) and token_ids[end] not in self._tokenizer.special_ids:
            text = self._text(token_ids, start, end + 1)
            if any(letter.isspace() or letter == "<" for letter in text):
                while end > start and self._text(token_ids, start, end).endswith("\ufffd"):
                    end -= 1  # the first bytes of a blank of several
                break
            end += 1
        if end == start:
            return [], start
        word = self._tokenizer.decode(list(token_ids[start:end]), skip_special_tokens=False)
        found = self._tokenizer.encode(f" {word}", add_special_tokens=False)
        return ([], start) if self._tokenizer.special_ids.intersection(found) else (found, end)

    def _text(self, token_ids: Sequence[int], start: int, end: int) -> str:
        """The last of a text whose tokens begin at start: a letter is of four at most, and words may be endless."""
        return self._tokenizer.decode(list(token_ids[max(start, end - 4) : end]), skip_special_tokens=False)

    def _encoded(self, text: str, behind: Sequence[int]) -> list[int]:
        """Ids of a text as it is written before such a token."""
        if behind and behind[0] not in self._tokenizer.special_ids:
            more = self._tokenizer.decode(list(behind), skip_special_tokens=False)
            found = self._tokenizer.encode(text + more, add_special_tokens=False)
            if found[-1] == behind[0]:
                return found[:-1]
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _blank(self, token_id: int) -> str:
        """The text of a token that is nothing but blanks; empty for any other."""
        if token_id in self._tokenizer.special_ids:
            return ""
        text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text if text.isspace() else ""


def _missing(place: Place, tokenizer: Tokenizer) -> str:
    """Why a tokenizer has no place for some, as the end of a sentence; empty: it has."""
    for token in place.tokens:
        if tokenizer.token_to_id(token) is None:
            return (
                f"the tokenizer has no token {token!r}, which stands for {place.several} in this model; take the "
                "tokenizer's files from where the checkpoint is from"
            )
    return ""


def _from_the_start(place: Place, standing: Standing, first: int) -> ImageInput:
    """Args: first: where the tokens begin that stand for it. Raises: InvalidParams where there is more before them."""
    if first > 1:
        raise InvalidParams(
            f"there are {first} tokens before it, and this model writes down one {place.kind}, behind the token that "
            "begins a text: have it transcribed (albireo transcribe, LLM.transcribe)"
        )
    tiles = standing.tiles
    spans = ((0, sum(tile.num_rows for tile in tiles)),)
    return ImageInput(key_of(tiles), tiles, spans, kind=place.kind, is_beside=True)


def _numbered(standing: Standing, number: int) -> Standing:
    """With its number in front, where it has one."""
    if standing.numbered is None:
        return standing
    before, behind = standing.numbered
    return standing._replace(text=f"{before}{number}{behind}{standing.text}")


def _runs(ids: Sequence[int], first: int, rows: Container[int]) -> tuple[tuple[int, int], ...]:
    """Positions, from first on, at which some tokens stand, as runs."""
    found: list[tuple[int, int]] = []
    for at in range(first, len(ids)):
        if ids[at] not in rows:
            continue
        if found and found[-1][1] == at:
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
    return tuple(found)
