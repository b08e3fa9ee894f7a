"""The texts the bundled story teller learns from: read, cleaned and cut into documents.

Called by train_story_model.py. Knows the files of the text folder (see the model card for sources and licences), no
tokens and no model.
"""

from __future__ import annotations

import lzma
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

END = "<|endoftext|>"
#: Every so many stories of the natural-case sample, one is held out and never trained on.
HELD_OUT_EVERY = 50
_OPENINGS = re.compile(r"\s*(once upon a time|one day|once there|there was once|one sunny|one night)")


@dataclass(frozen=True)
class Texts:
    """Documents by kind: tiny (TinyStories), books (picture books), chilit (old novels); and the held-out ones."""

    train: dict[str, list[str]]
    held_out: list[str]


def read_texts(folder: Path) -> Texts:
    """Read every text of the folder. Raises: OSError when one is missing."""
    natural = _documents(_read(folder / "tinystories-sample.txt.xz"))
    lower = _lower_case_stories(_read(folder / "tinystories-lowercase.txt.xz"), natural)
    kept = [story for i, story in enumerate(natural) if i % HELD_OUT_EVERY]
    train = {
        "tiny": kept + lower,
        "books": _documents(_read(folder / "storybooks-en.txt.xz")),
        "chilit": list(_novels(folder / "chilit.tar.xz")),
    }
    return Texts(train, natural[::HELD_OUT_EVERY])


def _read(path: Path) -> str:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def _documents(text: str) -> list[str]:
    return [document.strip() for document in text.split(END) if document.strip()]


def _novels(path: Path) -> Iterator[str]:
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member) if member.isfile() and member.name.endswith(".txt") else None
            if file is not None:
                yield _unwrap(file.read().decode("utf-8", "replace"))


def _unwrap(text: str) -> str:
    """Lines are wrapped at 70 columns: one line a paragraph, verse (indented) kept as it is."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.split("\n")
        is_verse = any(line.startswith("    ") for line in lines)
        paragraphs.append(("\n" if is_verse else " ").join(line.strip() for line in lines))
    return "\n".join(p for p in paragraphs if p.strip()).replace("--", " - ").replace("_", "")


def _lower_case_stories(lower: str, natural: list[str]) -> list[str]:
    """The stories of the lower-case file that come after those of the natural-case sample, capitals restored."""
    tail = re.sub(r"\s+", " ", natural[-1].lower())[-40:]
    flat = re.sub(r"[ \t]+", " ", lower)
    found = flat.find(tail)
    stories: list[list[str]] = []
    for paragraph in re.split(r"\n\s*\n", flat[found + len(tail) :] if found >= 0 else ""):
        if _OPENINGS.match(paragraph) or not stories:
            stories.append([])
        stories[-1].append(" ".join(paragraph.split()))
    names = _names("\n".join(natural))
    return [_with_capitals("\n".join(story), names) for story in stories if sum(map(len, story)) > 200]


def _names(text: str) -> set[str]:
    """Words that stand capitalized within a sentence at least 5 times, and at most a quarter as often in lower case."""
    capital = Counter(re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", text))
    small = Counter(re.findall(r"\b[a-z]{2,}\b", text))
    return {word.lower() for word, count in capital.items() if count >= 5 and small[word.lower()] < count / 4}


def _with_capitals(lower: str, names: set[str]) -> str:
    text = re.sub(r"\bi\b", "I", lower)
    text = re.sub(r"(^|[.!?]\s+|[\n\"]\s*)([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)
    return re.sub(r"\b[a-z]{2,}\b", lambda m: m.group(0).capitalize() if m.group(0) in names else m.group(0), text)
