"""Real tokenizers and templates: read once, from the data beside the repository; absent data skips, with the reason."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from real_tokenizers import tokenizer_in

_ROOT = Path(__file__).resolve().parents[2]
_DATA = _ROOT.parent / "shared" / "data"
BUNDLED = _ROOT / "src" / "albireo" / "models" / "bundled" / "story"


def directory_of(name: str) -> Path:
    """Directory of a real tokenizer ("qwen2.5", "stories260k", "story" for the bundled one)."""
    if name == "story":
        return BUNDLED
    places = [_DATA / "tokenizers" / name, _DATA / "models" / name]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        pytest.skip(f"the data of {name} is not beside the repository (../shared/data)")
    return found


@pytest.fixture(scope="session")
def tokenizer_directory():
    return directory_of


@pytest.fixture(scope="session")
def tokenizer_of():
    """name -> Tokenizer, loaded once."""
    return lambda name: tokenizer_in(directory_of(name))


@cache
def _reference(path: Path):
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast.from_pretrained(path)


@pytest.fixture(scope="session")
def reference_of():
    """name -> the tokenizer of transformers, loaded once."""
    return lambda name: _reference(directory_of(name))


@pytest.fixture(scope="session")
def template_files():
    """name -> source of every chat template in the data."""
    import json

    folder = _DATA / "tokenizers"
    if not folder.is_dir():
        pytest.skip("the templates are not beside the repository (../shared/data/tokenizers)")
    sources = {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.jinja")}
    for path in folder.rglob("tokenizer_config.json"):
        template = json.loads(path.read_text("utf-8")).get("chat_template")
        if isinstance(template, str):
            sources[str(path.relative_to(folder))] = template
    return sources
