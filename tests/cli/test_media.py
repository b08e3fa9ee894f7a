"""Pictures and sounds of a command line: generate and chat show them to a model, as the engine in Python does; what is
refused."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

import tiny_hearers
from albireo import LLM, SamplingParams
from albireo.cli.media import Shown, open_picture, open_sound, typed_name
from albireo.errors import InvalidParams
from tiny_films import save_model, video, webp
from tiny_sights import picture, save

NUM_TOKENS = 8
QUESTION = "What is it?"
#: Of the commands. The engine's answers are made in one thread, and do not depend on how many there are.
FLAGS = ("--dtype", "float32", "--temperature", "0", "--max-tokens", str(NUM_TOKENS), "--ignore-eos")
GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sight"), "idefics3")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cat.png, dog.png, and none.png, which is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed, name in enumerate(("cat.png", "dog.png"), 1):
        picture(50, 30, seed).save(folder / name)
    (folder / "none.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def llm(model: Path) -> Iterator[LLM]:
    with LLM(str(model), dtype="float32", num_threads=1) as llm:
        yield llm


def asked(text: str, *seeds: int) -> list[dict[str, Any]]:
    pictures = [{"type": "image", "image": picture(50, 30, seed)} for seed in seeds]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]


def answer(llm: LLM, messages: list[dict[str, Any]]) -> str:
    return str(llm.chat([messages], GREEDY, use_tqdm=False)[0].outputs[0].text)


def data_url(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


def test_generate_asks_about_pictures(albireo: Any, model: Path, files: Path, llm: LLM) -> None:
    cat, dog = str(files / "cat.png"), str(files / "dog.png")
    result = albireo("generate", model, "--image", cat, QUESTION, *FLAGS)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == answer(llm, asked(QUESTION, 1)) + "\n"
    assert albireo("generate", model, "--image", data_url(files / "cat.png"), QUESTION, *FLAGS).stdout == result.stdout
    two = albireo("generate", model, "--image", cat, "--image", dog, QUESTION, *FLAGS).stdout
    assert two == answer(llm, asked(QUESTION, 1, 2)) + "\n"
    assert two != result.stdout
    shown = albireo("generate", model, "--image", cat, QUESTION, *FLAGS, "--echo").stdout
    assert shown.endswith(result.stdout)
    assert shown.startswith("<|im_start|>user")


def test_a_prompt_with_the_mark_is_gone_on_with(albireo: Any, model: Path, files: Path, llm: LLM) -> None:
    prompt = "A cat: <image> and"
    result = albireo("generate", model, "--image", files / "cat.png", prompt, *FLAGS)
    given = {"prompt": prompt, "multi_modal_data": {"image": picture(50, 30, 1)}}
    assert result.stdout == prompt + llm.generate(given, GREEDY, use_tqdm=False)[0].outputs[0].text + "\n"
    more = albireo("generate", model, "--image", files / "cat.png", prompt + "<image>", *FLAGS)
    assert more.exit_code == 1
    assert "2 places for images (<image>) and 1 images" in more.stderr


def test_lines_of_jsonl_are_chats(albireo: Any, model: Path, files: Path, llm: LLM, tmp_path: Path) -> None:
    """Their pictures are the engine's to find: below the folder that a flag names, and nowhere else."""
    url = {"type": "image_url", "image_url": {"url": data_url(files / "cat.png")}}
    text = {"type": "text", "text": QUESTION}
    parts = [[url, text], [{"type": "image", "path": "cat.png"}, text], [{"type": "image", "path": "../x.png"}, text]]
    lines = [{"messages": [{"role": "user", "content": each}]} for each in parts]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ("generate", model, "--input-file", source, "--output", "jsonl", *FLAGS)
    wanted = answer(llm, asked(QUESTION, 1))

    def found(*more: Any) -> list[str]:
        result = albireo(*args, *more)
        assert result.exit_code == 1
        records = map(json.loads, result.stdout.splitlines())
        return [each["error"] if "error" in each else each["outputs"][0]["text"] for each in records]

    first, second, third = found()
    assert first == wanted
    assert "--allowed-local-media-path" in second and "--allowed-local-media-path" in third
    first, second, third = found("--allowed-local-media-path", files)
    assert first == second == wanted
    assert "is not below the folder" in third
    result = albireo(*args, "--image", files / "cat.png")
    assert result.exit_code == 1 and "line 1 of" in result.stderr and "leave --image out" in result.stderr


def test_run_batch_asks_about_pictures(albireo: Any, model: Path, files: Path, llm: LLM, tmp_path: Path) -> None:
    body = {"temperature": 0, "max_tokens": NUM_TOKENS, "ignore_eos": True}
    urls = {"data": data_url(files / "cat.png"), "file": f"file://{files}/cat.png", "web": "http://127.0.0.1:1/a.png"}
    lines = []
    for name, url in urls.items():
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
        asking = {**body, "messages": [{"role": "user", "content": parts}]}
        lines.append({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": asking})
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ("--dtype", "float32", "--num-threads", "1", "--allowed-local-media-path", files)
    result = albireo("run-batch", model, "-i", source, "-o", output, *args)
    assert "2 answers, 1 errors" in result.stderr
    found = {each["custom_id"]: each["response"]["body"] for each in map(json.loads, output.read_text().splitlines())}
    wanted = answer(llm, asked(QUESTION, 1))
    assert [found[name]["choices"][0]["message"]["content"] for name in ("data", "file")] == [wanted] * 2
    assert "--allowed-media-domains" in found["web"]["error"]["message"]


def test_chat_shows_pictures(albireo: Any, model: Path, files: Path, llm: LLM) -> None:
    result = albireo("chat", model, *FLAGS, "--image", files / "cat.png", stdin=f"{QUESTION}\nAnd now?\n")
    assert result.exit_code == 0, result.stderr
    first = answer(llm, asked(QUESTION, 1))
    kept = [*asked(QUESTION, 1), {"role": "assistant", "content": first}]
    second = answer(llm, [*kept, {"role": "user", "content": "And now?"}])
    assert result.stdout == f"{first}\n{second}\n"


def test_chat_has_a_command_for_pictures(albireo: Any, model: Path, files: Path, llm: LLM) -> None:
    lines = ["Hello", f"/image {files}/cat.png", f"/image '{files}/dog.png'", "Which?", "/reset", QUESTION]
    result = albireo("chat", model, *FLAGS, stdin="\n".join(lines) + "\n")
    assert result.exit_code == 0, result.stderr
    hello = [{"role": "user", "content": "Hello"}]
    first = answer(llm, hello)
    second = answer(llm, [*hello, {"role": "assistant", "content": first}, *asked("Which?", 1, 2)])
    assert result.stdout == f"{first}\n{second}\n{answer(llm, asked(QUESTION))}\n"
    assert "1 picture will go" in result.stderr and "2 pictures will go" in result.stderr


def test_reset_forgets_pictures_that_wait(albireo: Any, model: Path, files: Path, llm: LLM) -> None:
    result = albireo("chat", model, *FLAGS, "--image", files / "cat.png", stdin=f"/reset\n{QUESTION}\n")
    assert result.stdout == answer(llm, asked(QUESTION)) + "\n"


def test_chat_goes_on_after_what_is_refused(albireo: Any, model: Path, files: Path, llm: LLM) -> None:
    lines = [
        "/image",
        f"/image {files}/none.png",
        f"/image {files}/nowhere.png",
        "/image http://127.0.0.1:1/a.png",
        "Look",
        QUESTION,
    ]
    result = albireo("chat", model, *FLAGS, stdin="\n".join(lines) + "\n")
    assert result.exit_code == 1
    assert result.stdout == answer(llm, asked(QUESTION)) + "\n"
    problems = result.stderr.splitlines()
    assert "needs the name of a file" in problems[0]
    assert "no picture" in problems[1] and "No such file" in problems[2]
    assert "--allowed-media-domains" in problems[4] and problems[4].endswith("left out, with 1 picture")


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere.png", "No such file or directory"), ("none.png", "are no picture"), (".", "is not a regular file")],
)
def test_a_bad_file_is_named_before_anything_is_loaded(
    albireo: Any, model: Path, files: Path, tmp_path: Path, command: str, name: str, words: str
) -> None:
    empty = tmp_path / "model"  # a template, and no weights
    empty.mkdir()
    for each in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (empty / each).write_bytes((model / each).read_bytes())
    result = albireo(command, empty, "--image", files / name, *([QUESTION] if command == "generate" else []))
    assert result.exit_code == 1
    assert words in result.stderr and str(files) in result.stderr


def test_a_model_of_text_says_so(albireo: Any, files: Path) -> None:
    for command, args, stdin in (("generate", (QUESTION,), ""), ("chat", (), "hello\n")):
        result = albireo(command, "--image", files / "cat.png", *args, stdin=stdin)
        assert result.exit_code == 1 and result.stdout == ""
        assert "this model reads text only" in result.stderr


def test_hosts_are_asked_that_a_flag_names(albireo: Any, model: Path) -> None:
    result = albireo("generate", model, "--image", "http://127.0.0.1:1/a.png", QUESTION, *FLAGS)
    assert result.exit_code == 1
    assert "--allowed-media-domains names those that may be" in result.stderr


def test_files_have_names_as_people_type_them(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [typed_name(words) for words in ("a b.png", "'a b.png'", r"a\ b.png", "it's", "https://h/a b")] == [
        "a b.png", "a b.png", "a b.png", "it's", "https://h/a b",
    ]  # fmt: skip
    monkeypatch.setenv("HOME", str(files))
    monkeypatch.chdir(tmp_path)
    os.symlink(files / "cat.png", tmp_path / "link.png")
    for name in ("~/cat.png", "link.png", str(files / "cat.png")):
        found = open_picture(name)
        assert not isinstance(found, str) and found.tobytes() == picture(50, 30, 1).tobytes()
    with pytest.raises(InvalidParams, match="no path of a file"):
        open_picture("a\0b")
    assert open_picture("HTTPS://host/a.png") == "HTTPS://host/a.png"
    assert Shown().message("Hi") == {"role": "user", "content": "Hi"}


# -- sounds ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hearers.save(tmp_path_factory.mktemp("ear"), "qwen3_asr")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bird.wav, frog.wav, and none.wav, which is no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    for seed, name in enumerate(("bird.wav", "frog.wav"), 1):
        soundfile.write(folder / name, tiny_hearers.sound(0.6, seed), tiny_hearers.RATE, subtype="FLOAT")
    (folder / "none.wav").write_text("no sound")
    return folder


def heard(text: str, *seeds: int) -> list[dict[str, Any]]:
    parts = [{"type": "audio", "audio": (tiny_hearers.sound(0.6, seed), tiny_hearers.RATE)} for seed in seeds]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def test_generate_and_chat_ask_about_sounds(albireo: Any, ear: Path, sounds: Path) -> None:
    bird, frog = str(sounds / "bird.wav"), str(sounds / "frog.wav")
    with LLM(str(ear), dtype="float32", num_threads=1) as llm:
        first = answer(llm, heard(QUESTION, 1))
        kept = [*heard(QUESTION, 1), {"role": "assistant", "content": first}]
        second = answer(llm, [*kept, *heard("And now?", 2)])
    result = albireo("generate", ear, "--audio", bird, QUESTION, *FLAGS)
    assert result.exit_code == 0 and result.stdout == first + "\n", result.stderr
    lines = f"{QUESTION}\n/audio {frog}\nAnd now?\n"
    result = albireo("chat", ear, *FLAGS, "--audio", bird, stdin=lines)
    assert result.exit_code == 0 and result.stdout == f"{first}\n{second}\n", result.stderr
    assert "1 sound will go with the next message" in result.stderr


def test_sounds_that_are_refused(albireo: Any, ear: Path, sounds: Path, files: Path) -> None:
    bird = sounds / "bird.wav"
    for words, told in (
        (("generate", ear, "--audio", sounds / "none.wav", QUESTION), "no WAV|no sound"),
        (("generate", ear, "--image", files / "cat.png", QUESTION), "this model hears, and sees none"),
        (("generate", "--audio", bird, QUESTION), "this model reads text only"),
    ):
        result = albireo(*words)
        assert result.exit_code == 1 and re.search(told, result.stderr), result.stderr
    shown = Shown.named([str(files / "cat.png")] * 2, [str(bird)])
    assert str(shown) == "2 pictures and 1 sound" and open_sound("file:a.wav") == "file:a.wav"
    assert [part["type"] for part in shown.message("?")["content"]] == ["image", "image", "audio", "text"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("film"), "qwen2_vl")


def test_generate_and_chat_ask_about_videos(albireo: Any, film: Path, tmp_path: Path) -> None:
    file = tmp_path / "match.webp"
    file.write_bytes(webp(8, 50, 30, 4))
    with LLM(str(film), dtype="float32", num_threads=1) as llm:
        parts = [{"type": "video", "video": video(8, 50, 30, 4, fps=10)}, {"type": "text", "text": QUESTION}]
        wanted = answer(llm, [{"role": "user", "content": parts}])
    assert albireo("generate", film, "--video", file, QUESTION, *FLAGS).stdout == wanted + "\n"
    chat = albireo("chat", film, *FLAGS, stdin=f"/video {file}\n{QUESTION}\n")
    assert (
        chat.exit_code == 0 and chat.stdout == wanted + "\n" and "1 video will go with the next message" in chat.stderr
    )
    (tmp_path / "none.mp4").write_text("no video")
    refused = albireo("generate", film, "--video", tmp_path / "none.mp4", QUESTION, *FLAGS)
    assert refused.exit_code == 1 and "video 1 of 1: " in refused.stderr
    missing = albireo("generate", film, "--video", tmp_path / "no.mp4", QUESTION, *FLAGS)
    assert missing.exit_code == 1 and "no.mp4" in missing.stderr
