"""What Granite Speech hears, and what its files may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, SamplingParams
from albireo.errors import InvalidParams, ModelError, TemplateError, UnsupportedModel
from albireo.models.vision.tower import open_ear
from albireo.sounds.processor import open_sound_processor
from hearers import GraniteExtractor
from tiny_hearers import save, sound

GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


def test_spectra_are_those_of_torch(tmp_path: Path) -> None:
    """With the bands of transformers; of a sound that is too short to be mirrored, silence is heard behind."""
    save(tmp_path, "granite_speech")
    processor = open_sound_processor(tmp_path, json.loads((tmp_path / "config.json").read_text()))
    for seconds in (0.9, 2.34567, 0.0201):
        (tile,) = processor.prepare(sound(seconds)).tiles
        np.testing.assert_allclose(tile, GraniteExtractor()(sound(seconds)).numpy(), atol=2e-5)
    assert processor.prepare(sound(0.001)).text == "<|audio|>" * 3
    assert processor.prepare(sound(180.0)).tiles[0].shape == processor.largest_tile()
    with pytest.raises(InvalidParams, match=r"takes 180.01 s, and this model hears up to 180 s"):
        processor.prepare(sound(180.01))


def test_an_adapter_that_sounds_need_is_refused_by_name(tmp_path: Path) -> None:
    """And text is served."""
    path = save(tmp_path, "granite_speech") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"has_lora_adapter": True}))
    with LLM(str(tmp_path), dtype="float32", num_threads=1) as llm:
        with pytest.raises(TemplateError, match=r"has_lora_adapter=True is not supported; .* merge it"):
            llm.chat([{"role": "user", "content": [{"type": "audio", "audio": (sound(0.5), 16000)}]}], GREEDY)
        chat = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
        assert len(llm.chat(chat, GREEDY, use_tqdm=False)[0].outputs[0].token_ids) == 4


@pytest.mark.parametrize(
    ("part", "changes", "error", "says"),
    [
        ("encoder_config", {"dim_head": 8}, UnsupportedModel, "dim_head=8"),
        ("encoder_config", {"conv_kernel_size": 4}, UnsupportedModel, "conv_kernel_size=4"),
        ("encoder_config", {"num_layers": 1}, UnsupportedModel, "num_layers=1"),
        ("encoder_config", {"context_size": 33}, ModelError, "context_size=33"),
        ("encoder_config", {"cat_hidden_layers": [4]}, ModelError, "must be numbers of the 4 layers"),
        ("encoder_config", {"cat_hidden_layers": [1]}, ModelError, "encoder_hidden_size=32 must be 64"),
        ("projector_config", {"use_qformer_text_input": True}, UnsupportedModel, "use_qformer_text_input"),
        (None, {"downsample_rate": 4}, ModelError, "downsample_rate=4 must cut window_size=15"),
    ],
)
def test_refused(part: str | None, changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, "granite_speech") / "config.json").read_text())
    data = data | (changes if part is None else {part: data[part] | changes})
    with pytest.raises(error, match=says):
        open_ear(data, "float32", "config.json")
