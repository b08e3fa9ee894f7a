"""A key that is there by two of its names: which one decides, as transformers' class says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import architectures, encoder_types, load_architecture, load_config, speech_types

#: Where published files have both, and mean the older: transformers reads the newer there.
_PUBLISHED = {("cohere", "model_max_length"), ("cohere2", "model_max_length")}
#: Not another name, but the part of a number that is meant here, or of a decoder beside an encoder; transformers has
#: both.
_PARTS = {("apertus1p5_text", "output_vocab_size")}
_PARTS |= {(kind, "decoder_hidden_size") for kind in ("parakeet_rnnt", "parakeet_tdt")}
_PARTS |= {(kind, "decoder_hidden_size") for kind in ("nemotron_asr_streaming", "nemotron3_5_asr")}
_RULES = {kind: load_architecture(kind) for kind in (*architectures(), *encoder_types(), *speech_types())}
PAIRS = [(kind, old, new) for kind, each in _RULES.items() for old, new in each.rules.older_names.items()]


def _other(value: Any) -> Any:
    return not value if isinstance(value, bool) else "relu" if isinstance(value, str) else value * 2


def _value(kind: str, old: str, new: str) -> Any:
    """What a tiny file says, or what is meant where it says nothing."""
    each = _RULES[kind]
    given = (each.tiny.get(new), each.tiny.get(old), each.rules.defaults.get(new))
    return next((value for value in given if value is not None), False)


@pytest.mark.parametrize(("kind", "old", "new"), PAIRS)
def test_names_that_contradict_are_refused_or_the_older_decides(kind: str, old: str, new: str, tmp_path: Path) -> None:
    value = _value(kind, old, new)
    names = {name for name, key in _RULES[kind].rules.older_names.items() if key == new}
    besides = {key: item for key, item in _RULES[kind].tiny.items() if key not in names}
    tiny = {**besides, new: value, old: _other(value)}
    if old in _RULES[kind].rules.deciding:
        wanted = _read(tmp_path, {key: item for key, item in tiny.items() if key != new})
        assert _read(tmp_path, tiny) == wanted
    else:
        with pytest.raises(ModelError, match=f"{old}=.* and .*=.* are two names of the same") as told:
            _read(tmp_path, tiny)
        assert repr(tiny[old])[:8] in str(told.value) and repr(value)[:8] in str(told.value)
    assert "two names" not in str(_read(tmp_path, {**tiny, old: value}))


def _read(directory: Path, data: dict[str, Any]) -> object:
    (directory / "config.json").write_text(json.dumps(data))
    try:
        return load_config(directory, "float32")
    except ModelError as error:
        if "two names" in str(error):
            raise
        return str(error)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [each for each in PAIRS if each[1] in _RULES[each[0]].rules.deciding and each[:2] not in _PARTS],
)
def test_it_decides_in_transformers_too(kind: str, old: str, new: str) -> None:
    transformers = pytest.importorskip("transformers")
    tiny, value = _RULES[kind].tiny, _value(kind, old, new)
    cls = type(transformers.AutoConfig.for_model(tiny["model_type"]))
    besides = {key: item for key, item in tiny.items() if key not in (old, new)}
    wanted = value if (kind, old) in _PUBLISHED else _other(value)
    for names in ({old: _other(value), new: value}, {new: value, old: _other(value)}):
        assert getattr(cls.from_dict({**besides, **names}), new) == wanted
