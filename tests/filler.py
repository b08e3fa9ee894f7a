"""The bundled model with marks of gaps, for tests of infilling."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from albireo.api.sources.locate import BUNDLED


def save_filler(folder: Path, marks: Sequence[str]) -> Path:
    """The bundled model, whose last tokens are marks."""
    shutil.copytree(BUNDLED, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    model = tokenizer["model"]
    size = len(model["vocab"])
    gone = {text for text, number in model["vocab"].items() if number >= size - len(marks)}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) not in gone]
    model["vocab"] = {text: number for text, number in model["vocab"].items() if text not in gone}
    (end,) = tokenizer["added_tokens"]
    for number, text in enumerate(marks, size - len(marks)):
        tokenizer["added_tokens"].append({**end, "id": number, "content": text})
    path.write_text(json.dumps(tokenizer))
    return folder
