"""albireo serve: what reaches the server, and what is refused before it begins."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import albireo.server.run
from albireo.api.machine.share import Share
from albireo.cli import environment
from albireo.cli import serve as serve_module
from albireo.cli.other_flags import all_others, other_words
from albireo.replicas.place import Place
from albireo.server.settings import TEMPLATE_KWARGS, ServerSettings
from albireo.vllm_flags import known, words


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def serve(
        settings: ServerSettings, engine: dict[str, Any], places: list[Place], say: Any, others: Any = None
    ) -> None:
        calls.append((settings, engine, [place.share for place in places], *([] if others is None else [others])))

    monkeypatch.setattr(albireo.server.run, "serve", serve)
    return calls


def test_nothing_named(albireo: Any, served: list[Any]) -> None:
    assert albireo("serve").exit_code == 0
    assert served == [(ServerSettings(), {}, [Share(0, 1)])]
    assert served[0][0].chat_template_kwarg == TEMPLATE_KWARGS


def test_flags_reach_both(albireo: Any, served: list[Any], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\n\n two \n")
    args = ["--port", "0", "--api-key", "zero", "--api-key", f"@{keys}", "--no-log-requests", "--max-num-seqs", "3"]
    assert albireo("serve", *args, "--served-model-name", "a", "--served-model-name", "b").exit_code == 0
    settings, engine, _ = served[0]
    assert settings.api_key == ("zero", "one", "two")
    assert (settings.port, settings.log_requests, settings.served_model_name) == (0, False, ("a", "b"))
    assert engine == {"max_num_seqs": 3}


@pytest.mark.parametrize("flag", ["--data-parallel-size", "--dp", "-dp"])
def test_several_engines_share_the_machine(albireo: Any, served: list[Any], flag: str) -> None:
    assert albireo("serve", flag, "3").exit_code == 0
    _, engine, shares = served[0]
    assert engine == {"data_parallel_size": 3} and shares == [Share(i, 3) for i in range(3)]


def test_without_ray_there_is_a_word_about_it(albireo: Any, served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "albireo.distributed.places", raising=False)
    result = albireo("serve", "-dp", "2", "--distributed-executor-backend", "ray")
    assert result.exit_code == 1 and "pip install 'albireo[ray]'" in result.stderr and served == []


def test_a_directory_gives_its_name(albireo: Any, served: list[Any], tmp_path: Path) -> None:
    (tmp_path / "fox").mkdir()
    assert albireo("serve", str(tmp_path / "fox")).exit_code == 0
    settings, engine, _ = served[0]
    assert settings.served_model_name == ("fox",) and engine == {"model": str(tmp_path / "fox")}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("fox", "owl", "a=b", "more/fox"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("said", [".", "../qwen", "../qwen/", "other/.."])
def test_a_directory_that_is_named_from_within_has_its_own_name(
    albireo: Any, served: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (tmp_path / "qwen" / "other").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "qwen")
    assert albireo("serve", said).exit_code == 0
    assert served[0][0].served_model_name == ("qwen",)


def test_several_models_by_their_names(albireo: Any, served: list[Any], folders: Path) -> None:
    assert albireo("serve", "fox", "big=owl", "a=b", "--memory-utilization", "0.6").exit_code == 0
    settings, engine, _, others = served[0]
    assert settings.served_model_name == ("fox",) and engine == {"model": "fox", "memory_utilization": 0.6}
    assert others == {"big": "owl", "a=b": "a=b"}
    assert albireo("serve", "x=fox", "y=more/fox", "--max-awake-models", "3").exit_code == 0
    settings, engine, _, others = served[1]
    assert settings.served_model_name == ("x",) and engine == {"model": "fox", "memory_utilization": 0.45}
    assert others == {"y": "more/fox"}
    assert albireo("serve", "x=fox").exit_code == 0
    settings, engine, _ = served[2]
    assert settings.served_model_name == ("x",) and engine == {"model": "fox"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fox", "more/fox"], "two models answer to 'fox'"),
        (["x=fox", "y=owl", "x=owl"], "two models answer to 'x'"),
        (["fox", "nowhere"], "no directory nowhere"),
        (["fox", "y=nowhere"], "no directory nowhere"),
        (["fox", "owl", "--served-model-name", "x"], "write NAME=MODEL"),
        (["x=fox", "--served-model-name", "y"], "the model is named x"),
        (["fox", "owl", "--batch-dir", "b"], "batch_dir goes with one model"),
        (["fox", "owl", "--enable-lora"], "enable_lora goes with one model"),
        (["fox", "owl", "--enable-lora", "--lora-modules", "a=b"], "lora_modules goes with one model"),
        (["fox", "owl", "--distributed-executor-backend", "ray"], "ray goes with one model"),
        (["fox", "owl", "--max-awake-models", "0"], "max_awake_models=0"),
        (["fox", "owl", "--switch-after", "-1"], "switch_after=-1"),
    ],
)
def test_what_several_models_cannot_be(
    albireo: Any, served: list[Any], folders: Path, args: list[str], words: str
) -> None:
    result = albireo("serve", *args)
    assert result.exit_code == 1 and words in result.stderr and served == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--api-key", "@/nowhere"], "the file cannot be read"),
        (["--port", "99999"], "port=99999"),
        (["nowhere"], "no directory nowhere"),
        (["--ssl-keyfile", "key.pem"], "ssl_certfile"),
        (["--default-chat-template-kwargs", "thinking"], "is no object of JSON"),
        (["--default-chat-template-kwargs", "[1]"], "is no object of JSON"),
    ],
)
def test_what_cannot_be(albireo: Any, served: list[Any], args: list[str], words: str) -> None:
    result = albireo("serve", *args)
    assert result.exit_code == 1 and words in result.stderr and served == []


@pytest.mark.parametrize(
    ("flags", "content", "words"),
    [
        (["--chat-template"], "{% if", "is not valid jinja2: line 1"),
        (["--chat-template"], "", "no jinja2 template"),
        (["--ssl-certfile", "--ssl-keyfile"], "no PEM", "no certificate and its key"),
        (["--ssl-certfile", "--ssl-keyfile"], None, "No such file"),
    ],
)
def test_files_are_looked_at_before_it_listens(
    albireo: Any, flags: list[str], content: str | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    result = albireo("serve", "--port", "0", *(word for flag in flags for word in (flag, str(file))))
    assert result.exit_code == 1 and f"={file}" in result.stderr and words in result.stderr


def test_without_the_extra(albireo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "albireo.server.run")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = albireo("serve")
    assert result.exit_code == 1 and "pip install 'albireo[serve]'" in result.stderr


def test_each_setting_has_a_flag_and_a_help() -> None:
    names = {param.name: param for param in serve_module.command.params}
    for field in fields(ServerSettings):
        assert getattr(names[field.name], "help", None), field.name


def test_several_names_behind_one_flag_as_vllm_takes_them(albireo: Any, served: list[Any], folders: Path) -> None:
    args = ["fox", "--served-model-name", "a", "b", "c", "--max_num_seqs", "3", "--port", "0"]
    assert albireo("serve", *args).exit_code == 0
    settings, engine, _ = served[0]
    assert (settings.served_model_name, settings.port) == (("a", "b", "c"), 0)
    assert engine == {"model": "fox", "max_num_seqs": 3}
    # where no model stands in front it may be behind
    assert albireo("serve", "--served-model-name", "a", "fox").exit_code == 0
    assert (served[1][0].served_model_name, served[1][1]) == (("a",), {"model": "fox"})
    # a second model is no second key
    assert albireo("serve", "fox", "--api-key", "key", "owl").exit_code == 0
    settings, _, _, others = served.pop()
    assert settings.api_key == ("key",) and others == {"owl": "owl"}
    args = ["fox", "--enable-lora", "--lora-modules", "x=owl", "y=a=b", "--otlp_traces_endpoint=http://127.0.0.1:4318"]
    assert albireo("serve", *args).exit_code == 0
    assert served[2][0].lora_modules == ("x=owl", "y=a=b")
    assert served[2][0].otlp_endpoint == "http://127.0.0.1:4318/v1/traces"


def test_objects_key_by_key_as_vllm_takes_them(albireo: Any, served: list[Any], folders: Path) -> None:
    flags = [
        "--hf-overrides.rope_theta",
        "1e6",
        "--hf_overrides.text_config.a=[1]",
        "--hf-overrides.text_config.b",
        "x",
    ]
    flags += ["--mm-processor-kwargs.max_pixels", "5"]
    assert albireo("serve", "fox", *flags, "--speculative-config.method", "ngram", "--port", "0").exit_code == 0
    settings, engine, _ = served[0]
    assert json.loads(engine["hf_overrides"]) == {"rope_theta": 1e6, "text_config": {"a": [1], "b": "x"}}
    assert engine["mm_processor_kwargs"] == '{"max_pixels": 5}'
    assert engine["speculative_config"] == '{"method": "ngram"}' and settings.port == 0
    for wrong, said in (
        (("--hf-overrides.a", "1", "--hf-overrides", "{}"), "given as a whole and key by key"),
        (("--hf-overrides.a", "1", "--hf-overrides.a.b", "2"), "a has a value already"),
        (("--hf-overrides.a", "1", "--hf-overrides.a=2"), "--hf-overrides.a is given twice"),
        (("--hf-overrides.a..b", "1"), "has an empty key"),
        (("--hf-overrides.a",), "requires an argument"),
        (("--port.a", "1"), "No such option"),
    ):
        result = albireo("serve", "fox", *wrong)
        assert result.exit_code == 2 and said in result.stderr, (wrong, result.stderr)
    assert len(served) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--stream-interval", "3"], "here it is stream_interval of a request"),
        (["--rope-theta", "5"], """here it is --hf-overrides '{"rope_theta": …}'"""),
        (["--language-model-only"], """--limit-mm-per-prompt '{"image": 0, "audio": 0}'"""),
        (["--disable-log-requests"], "here it is --no-log-requests"),
        (["--no-enable-chunked-prefill"], "not needed: prompts are computed in chunks"),
        (["--runner", "draft"], "--runner is not needed: it is found in the model's files"),
        (["--load-format=dummy"], "--load-format is not needed: it is found in the files"),
        (["--no-enable-sleep-mode"], "not taken here: POST /sleep is always there"),
        (["--spec-method", "ngram"], "here it is --speculative-config"),
        (["--ir-op-priority", "x"], "says how vLLM computes"),
        (["--no-hear-everything"], "No such option"),
        (["--pipeline-parallel-size", "2"], "there is no such thing here"),
        (["-pp", "2"], "-pp is vLLM's, and there is no such thing here"),
        (["--model=fox"], "here it is the argument: albireo serve MODEL"),
        (["-c", "4096"], "-c is llama.cpp's; here it is --max-model-len"),
        (["-ngl", "99"], "-ngl is llama.cpp's; here it is --device cuda"),
        (["-np", "4"], "-np is llama.cpp's; here it is --max-num-seqs"),
        (["--ctx_size=4096"], "--ctx-size is llama.cpp's"),
        (["--mem-fraction-static", "0.8"], "is SGLang's; here it is --gpu-memory-utilization"),
        (["--model-id=x"], "--model-id is TGI's; here it is the argument"),
        (["--max-num-seq", "3"], "Did you mean"),
        (["--hear-everything"], "No such option"),
    ],
)
def test_flags_of_others_are_answered(albireo: Any, served: list[Any], args: list[str], said: str) -> None:
    result = albireo("serve", *args)
    assert result.exit_code == 2 and said in result.stderr and served == []


def test_switches_that_ask_for_what_is_so_anyway_are_taken(albireo: Any, served: list[Any]) -> None:
    args = ("--enable_auto_tool_choice", "--tool-call-parser", "hermes", "--enable-chunked-prefill")
    result = albireo("serve", *args, "--enable-auto-tool-choice")
    assert result.exit_code == 0 and len(served) == 1
    assert result.stderr.count("note: --enable-auto-tool-choice is not needed: tools are offered") == 1
    assert "note: --enable-chunked-prefill is not needed: prompts are always computed in chunks" in result.stderr


def test_flags_whose_value_asks_for_what_is_so_anyway_are_taken(albireo: Any, served: list[Any], folders: Path) -> None:
    flags = "--trust-remote-code --runner pooling fox --load_format=auto -pp 1 --max-num-seqs 3"
    result = albireo("serve", *flags.split())
    assert result.exit_code == 0 and served[0][1] == {"model": "fox", "max_num_seqs": 3}, result.stderr
    assert "note: --trust-remote-code is not needed: nothing of a model's directory is ever run" in result.stderr
    for said in ("--runner pooling", "--load-format auto", "-pp 1"):
        assert result.stderr.count(f"note: {said} is not needed: it is so anyway") == 1
    assert albireo("serve", "fox", "--runner").exit_code == 2


def test_switches_that_are_turned_off_anyway_are_taken(albireo: Any, served: list[Any]) -> None:
    flags = ("--no-enable-lora", "--no_enable_eplb", "--no-trust-remote-code", "--no-enforce-eager")
    result = albireo("serve", *flags, "--no-enable-prefix-caching")
    assert result.exit_code == 0 and len(served) == 1, result.stderr
    assert "note: --no-enable-lora is not needed: --enable-lora is off unless it is given" in result.stderr
    assert "note: --no-enable-eplb is not needed: there is no --enable-eplb here" in result.stderr
    assert result.stderr.count("note: ") == 4 and served[0][1]["enable_prefix_caching"] is False


def test_what_others_read_from_the_environment_is_said(
    albireo: Any, served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", "2")
    monkeypatch.setenv("VLLM_API_KEY", "sesame")
    result = albireo("serve")
    assert result.exit_code == 0 and served[0][0].api_key == ("sesame",)
    assert "note: VLLM_CPU_KVCACHE_SPACE is set, and is not read here: --kv-cache-memory-bytes says it" in result.stderr
    assert "note: OLLAMA_NUM_PARALLEL is set" in result.stderr and "sesame" not in result.stderr
    assert "note: requests need the key of VLLM_API_KEY" in result.stderr
    assert albireo("serve", "--api-key", "other").exit_code == 0 and served[1][0].api_key == ("other",)
    monkeypatch.setenv("LLAMA_API_KEY", 'one,,"two,three"')
    assert albireo("serve").exit_code == 0 and served[2][0].api_key == ("sesame",)
    monkeypatch.setenv("VLLM_API_KEY", "")
    assert albireo("serve").exit_code == 0 and served[3][0].api_key == ("one", "two,three")
    ours = {flag for param in serve_module.command.params for flag in (*param.opts, *param.secondary_opts)}
    for line in environment.notes(dict.fromkeys((*environment._CALLED, "VLLM_OTHER"), "1")):
        named = {found.rstrip(",;:") for found in line.split() if found.startswith("--")}
        assert named <= ours, line


def test_what_is_said_of_flags_is_of_none_there_is_and_names_those_there_are() -> None:
    ours = {flag for param in serve_module.command.params for flag in (*param.opts, *param.secondary_opts)}
    assert not ours & set(known()) and len(set(known())) == len(known())
    assert not (ours | set(known())) & set(all_others())
    for flag in (*known(), *all_others()):
        said = (words(flag) or other_words(flag) or "").removeprefix(flag)
        named = {found.rstrip(",;:") for found in said.split() if found.startswith("-")}
        assert named <= ours, (flag, named - ours)
