"""A model in a GGUF file that sees with the projector beside it, against the checkpoint that both are made of."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, BuildConfig, SamplingParams, build
from albireo.errors import ConfigError, ModelError, TemplateError, UnsupportedModel
from models.gguf.writer import gguf
from tiny_hearers import RATE, sound
from tiny_projectors import PROJECTIONS, save_both
from tiny_sights import picture

GREEDY = SamplingParams(temperature=0.0, max_tokens=6, logprobs=0, ignore_eos=True)


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def asked(*parts: Any) -> list[dict[str, Any]]:
    kinds = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return [{"role": "user", "content": kinds}]


CHATS = [asked(picture(48, 32), "What is it?"), asked("Look: ", picture(31, 44, 1), "!"), asked("Hello")]


def answers(model: Path, **settings: Any) -> list[tuple[Any, ...]]:
    """Prompts, answers and how likely each token is."""
    with LLM(str(model), dtype="float32", num_threads=1, block_size=8, **settings) as llm:
        found = llm.chat(CHATS, GREEDY, use_tqdm=False)
    return [
        (
            each.prompt_token_ids,
            each.outputs[0].token_ids,
            [next(iter(token.values())).logprob for token in each.outputs[0].logprobs or ()],
        )
        for each in found
    ]


@pytest.mark.parametrize("name", PROJECTIONS)
def test_answers_are_those_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    checkpoint, file = save_both(tmp_path, name)
    theirs, mine = answers(checkpoint), answers(file)
    for (prompt, tokens, values), (wanted, given, likely) in zip(mine, theirs, strict=True):
        assert (prompt, tokens) == (wanted, given)
        # norms of some text parts have 1 added and taken away, in float32
        assert values == pytest.approx(likely, abs=2e-5)


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_towers_in_few_bits_are_the_numbers_that_stand_there(kind: str, tmp_path: Path) -> None:
    """Against llama.cpp's own reading of blocks, in the gguf package: a checkpoint of these numbers."""
    checkpoint, file = save_both(tmp_path, "qwen2_5_vl", kind)
    tower = stored(file.with_name("mmproj-model.gguf"))
    found = answers(file)
    (tmp_path / "mmproj-model.gguf").rename(tmp_path / "few.bits")
    write_again(tmp_path / "few.bits", tmp_path / "mmproj-plain.gguf", tower)
    assert answers(file) == found != answers(checkpoint)


def stored(path: Path) -> dict[str, np.ndarray]:
    """Numbers of each tensor of a file, as the gguf package reads them."""
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        for tensor in gguf.GGUFReader(path).tensors
    }


def write_again(
    source: Path, path: Path, tensors: Mapping[str, np.ndarray], changes: Mapping[str, Any] | None = None
) -> None:
    """The same settings but for changes, and other tensors, as float32."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(str(path), "clip")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind, of = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, {**(changes or {})}.get(field.name, field.contents()), kind, of)
    for name, array in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_it_is_kept_by_a_build_and_named_by_a_flag(tmp_path: Path) -> None:
    _, file = save_both(tmp_path, "mistral3")
    (tmp_path / "mmproj-model.gguf").rename(tmp_path / "sees.gguf")
    projector = str(tmp_path / "sees.gguf")
    found = answers(file, mmproj=projector)
    built = build(file, tmp_path / "engine", BuildConfig(dtype="float32", mmproj=projector)).directory
    (tmp_path / "sees.gguf").unlink()
    assert answers(built) == found
    with pytest.raises(ConfigError, match=r"mmproj=sees.gguf: .*engine is an engine directory, which is built with it"):
        LLM(str(built), mmproj=projector)


def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path) -> None:
    _, file = save_both(tmp_path, "mistral3")
    own = tmp_path / "mmproj-model.gguf"
    shutil.copy(own, tmp_path / "mmproj-again.gguf")
    picture_asked = [asked(picture(16, 16), "?")]
    with LLM(str(file), dtype="float32", num_threads=1) as llm:
        assert len(llm.chat([asked("Hello")], GREEDY, use_tqdm=False)) == 1
        with pytest.raises(
            TemplateError, match=r"2 projectors beside model.gguf: mmproj-again.gguf, mmproj-model.gguf"
        ):
            llm.chat(picture_asked, GREEDY, use_tqdm=False)
    with LLM(str(file), dtype="float32", num_threads=1, mmproj=str(own)) as llm:
        assert llm.chat(picture_asked, GREEDY, use_tqdm=False)

    for change, error, told in (
        ({"clip.projector_type": "ldpv2"}, UnsupportedModel, r"projector_type='ldpv2' is not read; .*pixtral"),
        ({"clip.projector_type": "gemma3"}, UnsupportedModel, r"for a model whose text part is one of gemma3_text"),
        ({"clip.vision.projection_dim": 64}, ModelError, r"rows have 64 numbers .* embeddings of model.gguf have 48"),
        ({"clip.has_vision_encoder": False}, ModelError, r"holds nothing that sees"),
    ):
        with pytest.raises(error, match=told):
            write_again(own, tmp_path / "other.gguf", stored(own), change)
            LLM(str(file), mmproj=str(tmp_path / "other.gguf"))
    with pytest.raises(ModelError, match=r"general.architecture='mistral3': it is a model, and no projector"):
        LLM(str(file), mmproj=str(file))
    with pytest.raises(ModelError, match=r"there is no file .*missing.gguf"):
        LLM(str(file), mmproj=str(tmp_path / "missing.gguf"))


def test_what_hears_beside_is_heard(tmp_path: Path) -> None:
    """Bounds and factors that files have otherwise come back in float32."""
    checkpoint, file = save_both(tmp_path, "gemma4, embeddings of layers")
    both = {"audio": [(sound(0.8), RATE)], "image": [picture(16, 24)]}
    prompt = {"prompt": "<|audio|>Hm<|image|>?", "multi_modal_data": both}
    found = []
    for model in (checkpoint, file):
        with LLM(str(model), dtype="float32", num_threads=1) as llm:
            (answer,) = llm.generate([prompt], GREEDY, use_tqdm=False)
        found.append((answer.prompt_token_ids, answer.outputs[0].token_ids, answer.outputs[0].cumulative_logprob))
    assert found[0][:2] == found[1][:2]
    assert found[0][2] == pytest.approx(found[1][2], abs=1e-4)
    assert len(found[0][0]) > 20
