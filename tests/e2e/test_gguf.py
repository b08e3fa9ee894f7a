"""A GGUF file from the front door: found, told from others, run, and equal to the same model in a directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from albireo import LLM, BuildConfig, SamplingParams, build
from albireo.api.sources.checkpoint_source import CheckpointSource
from albireo.api.sources.locate import locate_model
from albireo.cli.main import main
from albireo.errors import ConfigError, ModelError, VersionMismatch
from albireo.text.tokenizer import Tokenizer
from albireo.verify.subject import open_subject
from models.gguf.writer import LLAMA, write_gguf
from tiny_gguf import write_with_tokenizer
from tiny_models import make_checkpoint

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=0)
PROMPTS = [[1, 5, 9], [1, 40, 41, 42, 43, 7, 8]]
SMALL = {"max_model_len": 64, "num_threads": 1, "max_num_seqs": 2}


def answers(model: Path, **options: Any) -> list[tuple[list[int], float]]:
    llm = LLM(str(model), skip_tokenizer_init=True, **SMALL, **options)
    outputs = [output.outputs[0] for output in llm.generate(PROMPTS, GREEDY)]
    return [(list(output.token_ids), output.cumulative_logprob or 0.0) for output in outputs]


def test_numbers_run_as_they_do_from_a_directory(tmp_path: Path) -> None:
    """The same bits: the weights are the same, and so is what is compiled of them. In F32: a file of 16 bits has its
    norms in 32, a directory has not."""
    write_gguf(tmp_path / "m.gguf", LLAMA, "F32", seed=7)
    eps = {"rms_norm_eps": 9.999999747378752e-06}  # as float32 has it, which GGUF stores
    make_checkpoint(tmp_path / "directory", LLAMA | eps, seed=7, dtype="float32")
    assert answers(tmp_path / "m.gguf") == answers(tmp_path / "directory")


def test_text_in_and_out(tmp_path: Path) -> None:
    """With its own tokenizer, its template and its end of text."""
    directory = write_with_tokenizer(tmp_path / "m.gguf", "F32")
    llm = LLM(str(tmp_path), **SMALL)
    output = llm.generate("Hello, world!", SamplingParams(temperature=0.0, max_tokens=4))[0]
    theirs = Tokenizer.from_directory(directory)
    assert output.prompt_token_ids == theirs.encode("Hello, world!")
    whole = theirs.decode([*output.prompt_token_ids, *output.outputs[0].token_ids])
    assert whole == "Hello, world!" + output.outputs[0].text
    chat = llm.chat([{"role": "user", "content": "hi"}], SamplingParams(temperature=0.0, max_tokens=2))[0]
    assert chat.prompt_token_ids == theirs.encode("<s> [INST] hi [/INST]", add_special_tokens=False)


def test_a_chat_in_the_terminal(tmp_path: Path) -> None:
    write_with_tokenizer(tmp_path / "m.gguf", "F32")
    flags = ["--temperature", "0", "--max-tokens", "2", "--max-model-len", "64"]
    asked = LLM(str(tmp_path), **SMALL).chat(
        [{"role": "user", "content": "hi"}], SamplingParams(temperature=0.0, max_tokens=2)
    )
    for model in (tmp_path / "m.gguf", tmp_path):
        told = CliRunner().invoke(main, ["chat", str(model), *flags], input="hi\n")
        assert told.exit_code == 0, told.stderr
        assert told.stdout.strip() == asked[0].outputs[0].text.strip()


def test_pictures_of_its_layers_and_their_tuning(tmp_path: Path) -> None:
    """Of one layer, so that all its rows are those that leave the model."""
    write_with_tokenizer(tmp_path / "m.gguf", "Q8_0")
    drawn = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.gguf"), "--graph", str(tmp_path / "x.svg")])
    assert drawn.exit_code == 0, drawn.output
    assert "linear" in (tmp_path / "x.svg").read_text()
    tuned = CliRunner().invoke(main, ["tune", str(tmp_path / "m.gguf"), "--budget", "0.3", "--dry-run"])
    assert tuned.exit_code == 0 and "choices measured" in tuned.stdout, tuned.output


def test_an_engine_directory_of_it_needs_it_no_more(tmp_path: Path) -> None:
    write_with_tokenizer(tmp_path / "m.gguf", "Q8_0")
    wanted = LLM(str(tmp_path / "m.gguf"), dtype="bfloat16", **SMALL)
    build(tmp_path / "m.gguf", tmp_path / "engine", BuildConfig(dtype="bfloat16", max_model_len=64, max_num_seqs=2))
    (tmp_path / "m.gguf").unlink()
    built = LLM(str(tmp_path / "engine"), **SMALL)
    text = "Once upon a time, a fox"
    ours, theirs = (llm.generate(text, GREEDY)[0] for llm in (built, wanted))
    assert ours.prompt_token_ids == theirs.prompt_token_ids
    assert (ours.outputs[0].token_ids, ours.outputs[0].text) == (theirs.outputs[0].token_ids, theirs.outputs[0].text)
    messages = [{"role": "user", "content": "hi"}]
    assert built.chat(messages, GREEDY)[0].prompt_token_ids == wanted.chat(messages, GREEDY)[0].prompt_token_ids


def test_parts_run_as_the_whole_does(tmp_path: Path) -> None:
    """By the first, the last and the directory; and an engine directory of them, held against its files."""
    (tmp_path / "parts").mkdir()
    write_gguf(tmp_path / "m.gguf", LLAMA, "preset Q2_K", seed=7)
    write_gguf(tmp_path / "parts" / "m.gguf", LLAMA, "preset Q2_K", seed=7, split={"split_max_tensors": 8})
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == 3
    wanted = answers(tmp_path / "m.gguf")
    for place in (parts[0], parts[2], tmp_path / "parts"):
        assert answers(place) == wanted
    result = CliRunner().invoke(main, ["inspect", str(parts[1])])
    assert "in 3 files: 21 tensors of float32, q2_k, q3_k, q4_k, q6_k" in result.output, result.output


def test_k_types_in_the_order_of_before_are_refused(tmp_path: Path) -> None:
    """Q4_K's would be as many bytes, and other numbers."""
    write_with_tokenizer(tmp_path / "m.gguf", "preset Q2_K", width=256)
    build(tmp_path / "m.gguf", tmp_path / "engine", BuildConfig(dtype="bfloat16", max_model_len=64, max_num_seqs=2))
    path = tmp_path / "engine" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["format"]["minor"] = 26
    path.write_text(json.dumps(manifest))
    with pytest.raises(VersionMismatch, match=r"p64\.q[2346]_k in format 2\.26; .*albireo build MODEL"):
        LLM(str(tmp_path / "engine"))


def test_an_engine_directory_of_parts_is_verified(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write_with_tokenizer(tmp_path / "parts" / "m.gguf", "Q8_0", split={"split_max_tensors": 6})
    options = BuildConfig(dtype="bfloat16", max_model_len=64, max_num_seqs=2)
    build(tmp_path / "parts", tmp_path / "engine", options)
    first, second = sorted((tmp_path / "parts").iterdir())
    manifest = json.loads((tmp_path / "engine" / "manifest.json").read_text())
    assert sorted(manifest["source"]) == [first.name, second.name]
    looked_at: list[str] = []
    subject = open_subject(tmp_path / "engine", str(second), looked_at.append)
    assert (subject.checkpoint, set(looked_at)) == (first, {first.name, second.name})
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    with pytest.raises(ConfigError, match=f"was not built from.*{second.name} has sha256"):
        open_subject(tmp_path / "engine", str(first), looked_at.append)
    write_with_tokenizer(tmp_path / "whole.gguf", "Q8_0")
    with pytest.raises(ConfigError, match=r"lists 2 GGUF files, and there are 1\."):
        open_subject(tmp_path / "engine", str(tmp_path / "whole.gguf"), looked_at.append)


def test_what_inspect_says_of_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", LLAMA, "mixed")
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.gguf")])
    assert result.exit_code == 0, result.output
    assert "tensors of float16, float32, int4.g32, int4.g32.affine, int8.g32" in result.output


def test_where_it_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    assert locate_model(str(file)) == file
    assert locate_model(str(tmp_path)) == file
    (tmp_path / "b.GGUF").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files; give one of them: a\.gguf, b\.GGUF"):
        locate_model(str(tmp_path))
    (tmp_path / "b.GGUF").unlink()
    for number in (2, 3):  # of a model whose first part is not there: whoever opens it says so
        (tmp_path / f"c-0000{number}-of-00003.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"2 models in GGUF files; give one of them: a\.gguf, c-00002-of-00003\.gguf"):
        locate_model(str(tmp_path))
    file.unlink()
    assert locate_model(str(tmp_path)) == tmp_path / "c-00002-of-00003.gguf"
    (tmp_path / "c-00001-of-00003.gguf").write_bytes(b"GGUF")
    assert locate_model(str(tmp_path / "c-00003-of-00003.gguf")) == tmp_path / "c-00001-of-00003.gguf"
    file.write_bytes(b"GGUF")
    (tmp_path / "config.json").write_text(json.dumps({}))
    assert locate_model(str(tmp_path)) == tmp_path, "a directory that is a model is one, whatever lies beside it"
    shutil.copy(file, tmp_path / "model.bin")
    with pytest.raises(ModelError, match="is a file; give the directory that holds"):
        locate_model(str(tmp_path / "model.bin"))
    with pytest.raises(ModelError, match="there is no directory"):
        locate_model(str(tmp_path / "none.gguf"))


@pytest.mark.parametrize(("kind", "held"), [("preset TQ1_0", "q4_k"), ("Q8_0", "int8.g32"), ("F16", "bfloat16")])
def test_a_table_of_embeddings_is_held_as_it_lies(kind: str, held: str, tmp_path: Path) -> None:
    """A quarter of it: a file of 4 bits with a large vocabulary took a seventh more room than it has."""
    write_gguf(tmp_path / "m.gguf", LLAMA, kind, seed=3)
    source = CheckpointSource(tmp_path / "m.gguf", "bfloat16")
    assert source.graph(64).constants["model.embed_tokens.weight"].type.dtype == held
    assert answers(tmp_path / "m.gguf")
