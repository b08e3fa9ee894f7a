"""Where tokens come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.errors import ConfigError
from albireo.verify.text import NUM_DRAWN, SAMPLE, token_text


def test_the_sample_is_cut_where_asked() -> None:
    whole = token_text(BUNDLED, 4096, None, 10_000)
    assert 500 < len(whole.token_ids) < 2000
    assert whole.is_text and whole.num_left_out == 0
    part = token_text(BUNDLED, 4096, None, 20)
    assert (list(part.token_ids), part.num_left_out) == (list(whole.token_ids[:20]), len(whole.token_ids) - 20)
    assert SAMPLE.stat().st_size < 10_000


def test_a_file_is_called_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The cat sat on the mat.")
    assert token_text(BUNDLED, 4096, tmp_path / "text.txt", 100).name == "text.txt"


def test_without_a_tokenizer_tokens_are_drawn(tmp_path: Path) -> None:
    drawn = token_text(tmp_path, 7, None, 10_000)
    assert len(drawn.token_ids) == NUM_DRAWN
    assert set(drawn.token_ids) == set(range(7))
    assert not drawn.is_text
    assert list(token_text(tmp_path, 7, None, 30).token_ids) == list(drawn.token_ids[:30])
    with pytest.raises(ConfigError, match=r"the model has no tokenizer, so no text"):
        token_text(tmp_path, 7, SAMPLE, 100)


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "empty").write_text("")
    for name, said in (("bytes", "not UTF-8"), ("empty", "at least 2 are needed"), ("none", "No such file")):
        with pytest.raises(ConfigError, match=said):
            token_text(BUNDLED, 4096, tmp_path / name, 100)
    with pytest.raises(ConfigError, match="they do not belong together"):
        token_text(BUNDLED, 10, None, 100)
