"""llama.cpp's protocol: completions, gaps that editors have filled, tokens, what is told of the model and its seats.

What requests look like is what its README says, and what llama.vim sends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.server.dialects.llama_cpp import as_completion
from albireo.server.endpoints.llama_cpp import LineBounds, _of_completion
from albireo.server.errors import HttpError
from albireo.server.protocol.llama_cpp import CompletionAsk
from albireo.text.infill import InfillMarks
from filler import save_filler
from server_process import Server

ASK: dict[str, Any] = {"prompt": "Once upon a time", "n_predict": 12, "temperature": 0}
MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>")
#: What llama.vim sends, but for its texts.
EDITOR: dict[str, Any] = {
    "id_slot": 0, "n_predict": 8, "stop": [], "n_indent": 0, "top_k": 1, "top_p": 0.9, "stream": False,
    "samplers": ["top_k", "top_p", "infill"], "cache_prompt": True, "t_max_prompt_ms": 500, "t_max_predict_ms": 60000,
    "response_fields": ["content", "timings/prompt_n", "timings/predicted_ms", "truncated", "tokens_cached", "nothing"],
}  # fmt: skip


def post(server: Any, path: str, ask: dict[str, Any]) -> dict[str, Any]:
    got = server.http.post(path, json=ask)
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


def events(server: Any, path: str, ask: dict[str, Any]) -> list[dict[str, Any]]:
    got = server.http.post(path, json={**ask, "stream": True})
    assert got.headers["content-type"].startswith("text/event-stream"), got.text
    parts = got.text.removesuffix("\n\n").split("\n\n")
    assert all(part.startswith("data: ") for part in parts) and "[DONE]" not in parts[-1]
    return [json.loads(part[6:]) for part in parts]


def plain(server: Any, **ask: Any) -> dict[str, Any]:
    asked = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, "return_token_ids": True, **ask}
    found: dict[str, Any] = post(server, "/v1/completions", asked)["choices"][0]
    return found


def refusal(server: Any, path: str, ask: dict[str, Any]) -> str:
    got = server.http.post(path, json=ask)
    assert got.status_code == 400, got.text
    return str(got.json()["error"]["message"])


def test_a_completion_is_told_whole_and_in_events(server: Server) -> None:
    wanted = plain(server)
    whole = post(server, "/completion", {**ASK, "return_tokens": True})
    assert (whole["content"], whole["tokens"]) == (wanted["text"], wanted["token_ids"])
    assert (whole["stop"], whole["stop_type"], whole["stopping_word"]) == (True, "limit", "")
    assert (whole["tokens_evaluated"], whole["tokens_predicted"]) == (len(wanted["prompt_token_ids"]), 12)
    assert (whole["prompt"], whole["model"], whole["truncated"]) == ("Once upon a time", "story", False)
    assert whole["generation_settings"]["n_predict"] == 12 and whole["generation_settings"]["temperature"] == 0
    timings = whole["timings"]
    assert timings["cache_n"] + timings["prompt_n"] == whole["tokens_evaluated"] and timings["predicted_n"] == 12
    assert timings["predicted_per_second"] == pytest.approx(12000 / timings["predicted_ms"])
    *parts, last = events(server, "/completion", {**ASK, "timings_per_token": True})
    assert "".join(each["content"] for each in parts) == whole["content"] and last["content"] == ""
    assert not any(each["stop"] for each in parts) and last["stop"] and last["stop_type"] == "limit"
    assert [token for each in parts for token in each["tokens"]] == wanted["token_ids"]
    assert parts[-1]["timings"]["predicted_n"] == parts[-1]["tokens_predicted"] == 12


def test_parameters_are_those_of_a_completion(server: Server) -> None:
    word = plain(server)["text"].split()[2]
    for asked, same in (
        ({"repeat_penalty": 1.5, "repeat_last_n": -1}, {"repetition_penalty": 1.5}),
        ({"repeat_penalty": 1.5}, {"repetition_penalty": 1.5, "repeat_last_n": 64}),
        ({"repeat_penalty": 1.5, "repeat_last_n": 2}, {"repetition_penalty": 1.5, "repeat_last_n": 2}),
        ({"repeat_penalty": 1.5, "repeat_last_n": 0}, {}),
        ({"repeat_penalty": 1.5, "samplers": ["top_k", "temperature"]}, {}),
        ({"repeat_penalty": 1.5, "samplers": "edskypmxt"}, {"repetition_penalty": 1.5}),
        ({"temperature": 1, "seed": 3, "top_k": 5, "min_p": 0.01, "top_p": 0.9},
         {"temperature": 1, "seed": 3, "top_k": 5, "min_p": 0.01, "top_p": 0.9}),
        ({"temperature": 0.1, "seed": 3, "samplers": []},
         {"temperature": 1, "seed": 3, "top_k": 0, "top_p": 1, "min_p": 0}),
        ({"grammar": 'root ::= "yes" | "no"'}, {"structured_outputs": {"grammar": 'root ::= "yes" | "no"'}}),
        ({"json_schema": {"const": 5}}, {"structured_outputs": {"json": {"const": 5}}}),
    ):  # fmt: skip
        asked = {**ASK, **asked}
        assert post(server, "/completion", asked)["content"] == plain(server, **same)["text"], asked
    stopped = post(server, "/completion", {**ASK, "stop": [word]})
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", word) and word not in stopped["content"]
    first = plain(server)["token_ids"][0]
    other = post(server, "/completion", {**ASK, "logit_bias": [[first, False]], "return_tokens": True})["tokens"]
    text = server.http.post("/detokenize", json={"tokens": [first]}).json()["content"]
    assert other[0] != first
    assert post(server, "/completion", {**ASK, "logit_bias": {text: -100}, "return_tokens": True})["tokens"] == other
    top = post(server, "/completion", {**ASK, "n_probs": 2})["completion_probabilities"]
    wanted = plain(server, logprobs=2)["logprobs"]
    assert [each["logprob"] for each in top] == wanted["token_logprobs"] and len(top[0]["top_logprobs"]) == 2
    assert top[0]["id"] == top[0]["top_logprobs"][0]["id"] == first


def test_prompts_may_be_token_ids_or_both_in_turn(server: Server) -> None:
    wanted = plain(server)
    ids = wanted["prompt_token_ids"]
    for prompt in (ids, ["Once upon", *ids[3:]], ["Once", *ids[2:3], " a time"]):
        got = post(server, "/completion", {**ASK, "prompt": prompt, "return_tokens": True})
        assert (got["tokens"], got["tokens_evaluated"]) == (wanted["token_ids"], len(ids)), prompt
        assert got["prompt"] == "Once upon a time"
    nothing = post(server, "/completion", {**ASK, "n_predict": 0})
    assert (nothing["content"], nothing["tokens_predicted"], nothing["stop"]) == ("", 0, True)
    assert len(events(server, "/completion", {**ASK, "n_predict": 0})) == 1
    to_the_end = post(server, "/completion", {**ASK, "n_predict": -1, "ignore_eos": True})
    assert to_the_end["tokens_evaluated"] + to_the_end["tokens_predicted"] == to_the_end["tokens_cached"] == 512


def test_names_of_fields_are_ids_only_where_they_can_be(server: Server) -> None:
    wanted = post(server, "/completion", ASK)["content"]
    for name in ("²", "٣", "9" * 5000):
        assert post(server, "/completion", {**ASK, "logit_bias": {name: 0.0}})["content"] == wanted, name
    assert "ids outside the vocabulary: 9999999999" in refusal(
        server, "/completion", {**ASK, "logit_bias": {"9" * 10: 1}}
    )


def test_what_is_encoded_holds_up_nobody() -> None:
    in_thread = list[int]()

    async def done(work: Any) -> Any:
        in_thread.append(1)
        return work()

    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens=True: [len(text)])
    serving: Any = SimpleNamespace(
        tokenizer=tokenizer, max_prompt_chars=9000, in_thread=done,
        ready=SimpleNamespace(max_model_len=512), admission=SimpleNamespace(advice={}),
    )  # fmt: skip
    for said, num in (
        ({"prompt": [7, "a" * 30]}, 0),
        ({"prompt": [7, "a" * 3000]}, 1),
        ({"prompt": ["a"] * 500}, 1),
        ({"prompt": "a" * 3000}, 0),  # encoded later, as any prompt
        ({"prompt": "a", "logit_bias": [["a" * 3000, 1.0]]}, 1),
        ({"prompt": "a", "logit_bias": {"a" * 3000: 1.0}}, 1),
        ({"prompt": "a", "logit_bias": [[5, 1.0], ["a", False]]}, 0),
    ):
        in_thread.clear()
        found = asyncio.run(_of_completion(serving, CompletionAsk(**said)))
        assert len(in_thread) == num and found.max_tokens == 512, said
    for said, words in (
        ({"prompt": ["a"] * 513}, "513 texts of 513 characters"),
        ({"prompt": ["a" * 9001, 1]}, "1 texts of 9001 characters"),
        ({"prompt": "a", "logit_bias": [["a", 1.0]] * 4097}, "more than 4096 entries"),
    ):
        with pytest.raises(HttpError, match=words):
            asyncio.run(_of_completion(serving, CompletionAsk(**said)))


def test_what_is_not_done_is_refused_by_name(server: Server) -> None:
    for asked, words in (
        ({"mirostat": 2}, "mirostat=2"),
        ({"dry_multiplier": 0.8}, "dry_multiplier=0.8"),
        ({"xtc_probability": 0.5}, "xtc_probability=0.5"),
        ({"typical_p": 0.9}, "typical_p=0.9"),
        ({"samplers": ["top_k", "magic"]}, "samplers has 'magic'"),
        ({"grammar": "root ::= [0-9]", "json_schema": {}}, "grammar and json_schema exclude each other"),
        ({"n_predict": 9999}, "an output of 9999 tokens"),
        ({"n_probs": 999}, "n_probs=999"),
        ({"max_new_tokens": 5}, "'max_new_tokens' is not a field"),
        ({"lora": [{"id": 0, "scale": 1}]}, "lora="),
    ):
        assert words in refusal(server, "/completion", {**ASK, **asked})
    neutral = {"mirostat": 0, "mirostat_tau": 5.0, "dry_multiplier": 0.0, "dry_base": 1.75, "typical_p": 1.0,
               "xtc_probability": 0, "xtc_threshold": 0.1, "dynatemp_range": 0, "min_keep": 0, "n_keep": -1,
               "cache_prompt": True, "id_slot": -1, "top_n_sigma": -1}  # fmt: skip
    assert post(server, "/completion", {**ASK, **neutral})["content"] == plain(server)["text"]
    assert "trained to fill a gap" in refusal(server, "/infill", {"input_prefix": "a", "input_suffix": "b"})
    assert "slots have nothing of their own" in refusal(server, "/slots/0?action=save", {})


def test_tokens_are_told_in_its_words(server: Server) -> None:
    ids = server.http.post("/tokenize", json={"prompt": "The cat was", "add_special_tokens": False}).json()["tokens"]
    assert post(server, "/tokenize", {"content": "The cat was"})["tokens"] == ids
    special = server.http.post("/tokenize", json={"prompt": "The cat was"}).json()["tokens"]
    assert post(server, "/tokenize", {"content": "The cat was", "add_special": True})["tokens"] == special
    pieces = post(server, "/tokenize", {"content": "The cat ☺", "with_pieces": True})["tokens"]
    parts = [each["piece"] for each in pieces]
    told = b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in parts)
    assert told.decode() == "The cat ☺" and any(isinstance(part, list) for part in parts)
    assert post(server, "/detokenize", {"tokens": ids})["content"] == "The cat was"
    for asked, words in (
        ({"content": "a", "prompt": "b"}, "one of them"),
        ({"content": "a", "parse_special": False}, "parse_special=False"),
        ({"prompt": "a", "with_pieces": True}, "with_pieces=True"),
        ({"content": "a", "return_token_strs": True}, "return_token_strs=True"),
    ):
        assert words in refusal(server, "/tokenize", asked)


def test_it_tells_of_the_model_and_its_seats(server: Server) -> None:
    props = server.http.get("/props").json()
    assert (props["default_generation_settings"]["n_ctx"], props["model_alias"]) == (512, "story")
    settings = props["default_generation_settings"]["params"]
    assert (settings["n_predict"], settings["repeat_last_n"]) == (-1, 64)
    assert props["modalities"] == {"vision": False, "audio": False} and not props["is_sleeping"]
    assert str(BUNDLED) not in json.dumps(props)
    slots = server.http.get("/slots").json()
    assert len(slots) == props["total_slots"] and not any(slot["is_processing"] for slot in slots)
    messages = [{"role": "user", "content": "Once upon a time"}]
    text = post(server, "/apply-template", {"messages": messages})["prompt"]
    ids = post(server, "/tokenize", {"messages": messages})["tokens"]
    assert post(server, "/tokenize", {"content": text, "add_special": True})["tokens"] == ids


def test_an_editor_ends_where_it_said() -> None:
    ask = CompletionAsk(prompt="", n_indent=2, t_max_predict_ms=1)

    def shown(text: str, **how: bool) -> str:
        found = LineBounds(ask).shown(text, **how)
        growing = LineBounds(ask)
        for num in range(len(text)):
            growing.shown(text[:num], is_over=False)
        assert growing.shown(text, **how) == found, "however it came"
        return found

    assert shown("a\n  b\n c") == "a\n  b\n" and shown("a\n  b\n ") == "a\n  b\n "
    assert shown("a\n  b\n ", is_over=False) == "a\n  b\n" and shown("a\n  ", is_over=False) == "a\n  "
    assert shown("a\n\n  b") == "a\n" and shown("a") == "a"
    assert not LineBounds(CompletionAsk(prompt="")) and LineBounds(ask)

    def tracked(text: str, first_token_s: float | None) -> Any:
        return SimpleNamespace(
            continuations=[SimpleNamespace(text=lambda: text)], times=SimpleNamespace(first_token_s=first_token_s)
        )

    def is_enough(text: str, first_token_s: float | None) -> bool:
        return LineBounds(ask).is_enough(tracked(text, first_token_s))

    assert is_enough("a\nb", None) and is_enough("a\n  b", -1e9)
    assert not is_enough("a", -1e9), "it has no line yet"
    assert not is_enough("a\n  b", 1e12) and not is_enough("a\n  b", None)


class Counted(str):
    """A text that tells from where it is searched."""

    starts: list[int]

    def find(self, sub: str, start: int = 0, *_: Any) -> int:  # type: ignore[override]
        self.starts.append(start)
        return super().find(sub, start)


def test_each_line_is_looked_at_once() -> None:
    """Of an answer of thousands of lines all of them would be, with each token."""
    bounds, text, starts = LineBounds(CompletionAsk(prompt="", n_indent=1)), " a\n" * 50, list[int]()
    for num in range(1, len(text)):
        grown = Counted(text[:num])
        grown.starts = starts
        assert bounds.shown(grown, is_over=False) in (grown, grown.removesuffix(" "))
    assert starts == sorted(starts) and len(starts) < 2 * len(text)


def test_a_bound_ends_the_request_and_cuts_its_text(server: Server) -> None:
    """A grammar has the model write lines, of which the second is indented less."""
    ask = {**ASK, "grammar": 'root ::= "a\\n   b\\n c\\n" "d"*', "n_predict": 200, "n_indent": 2, "ignore_eos": True}
    whole = post(server, "/completion", ask)
    assert (whole["content"], whole["stop_type"]) == ("a\n   b\n", "limit") and whole["tokens_predicted"] < 200
    *parts, last = events(server, "/completion", ask)
    assert "".join(each["content"] for each in parts) == whole["content"] and last["has_new_line"]


def test_samplers_that_are_left_out_ask_for_nothing() -> None:
    def made(**ask: Any) -> Any:
        return as_completion(CompletionAsk(prompt="", **ask), "", lambda text: [])

    asked = made(temperature=0.2, top_k=3, top_p=0.5, min_p=0.1, samplers=["top_p"])
    assert (asked.temperature, asked.top_k, asked.top_p, asked.min_p) == (1.0, 0, 0.5, 0.0)
    assert made(samplers="kt", top_k=7).top_k == 7 and made().top_k is None
    with pytest.raises(HttpError, match="logit_bias"):
        made(logit_bias=[(5, True)])


def test_chats_take_what_its_clients_send(server: Server) -> None:
    """llama.vim's instructions, and the page of llama.cpp."""
    messages = [{"role": "user", "content": "Once upon a time"}]
    ask = {"messages": messages, "max_tokens": 12, "seed": 3, "min_p": 0.1, "temperature": 0.1}
    sent = {**ask, "id_slot": 7, "samplers": ["min_p", "temperature"], "cache_prompt": True}
    wanted = post(server, "/v1/chat/completions", {**ask, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0})
    got = post(server, "/v1/chat/completions", {**sent, "timings_per_token": True, "repeat_penalty": 1.5})
    assert got["choices"] == wanted["choices"] and "timings" not in wanted
    assert got["timings"]["predicted_n"] == got["usage"]["completion_tokens"]
    assert got["timings"]["prompt_n"] + got["timings"]["cache_n"] == got["usage"]["prompt_tokens"]
    stream = server.http.post("/v1/chat/completions", json={**sent, "stream": True, "timings_per_token": True}).text
    chunks = [json.loads(part[6:]) for part in stream.split("\n\n") if part.startswith("data: {")]
    assert [each["timings"]["predicted_n"] > 0 for each in chunks] == [True] * len(chunks)
    text = plain(server, repeat_penalty=1.5)["text"]
    assert text == plain(server, repetition_penalty=1.5)["text"] != plain(server)["text"]
    assert plain(server, repeat_penalty=1.5, repeat_last_n=0)["text"] == plain(server)["text"]
    whole = post(server, "/v1/completions", {"prompt": "Once", "max_tokens": 3, "timings_per_token": True})
    assert whole["timings"]["predicted_n"] == 3
    assert "are the same" in refusal(server, "/v1/completions", {
        "prompt": "Once", "repeat_penalty": 1.5, "repetition_penalty": 1.2,
    })  # fmt: skip


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = save_filler(tmp_path_factory.mktemp("models") / "filler", MARKS)
    made = Server(str(folder), "--served-model-name", "filler").wait_until_ready()
    yield made
    made.stop()


def test_an_editor_has_a_gap_filled(filler: Server) -> None:
    around = {"input_prefix": "The cat", "input_suffix": " and was happy."}
    extra = [{"filename": "old.txt", "text": "It rained.\n", "time": 5}, {"text": "A dog.\n"}]
    text = "<|file_sep|>old.txt\nIt rained.\n<|file_sep|>tmp\nA dog.\n<|file_sep|>filename\n"
    text += "<|fim_prefix|>The cat<|fim_suffix|> and was happy.<|fim_middle|> sat"
    wanted = plain(filler, prompt=text, max_tokens=8)
    got = post(filler, "/infill", {**EDITOR, **around, "input_extra": extra, "prompt": " sat"})
    assert got["content"] == wanted["text"]
    assert set(got) == {"content", "timings/prompt_n", "timings/predicted_ms", "truncated", "tokens_cached"}
    whole = post(filler, "/infill", {**around, "input_extra": extra, "prompt": " sat", "n_predict": 8, "top_k": 1})
    assert whole["tokens_evaluated"] == len(wanted["prompt_token_ids"])
    # of files that do not fit the last stay
    many = [{"filename": "long.txt", "text": "It rained. " * 200}, *extra[1:]]
    cut = post(filler, "/infill", {**around, "input_extra": many, "n_predict": 8, "top_k": 1})
    fits = post(filler, "/infill", {**around, "input_extra": extra[1:], "n_predict": 8, "top_k": 1})
    assert (cut["prompt"], cut["content"]) == (fits["prompt"], fits["content"]) and "A dog" in cut["prompt"]
    warm = {**EDITOR, **around, "n_predict": 0, "samplers": [], "response_fields": [""]}
    assert post(filler, "/infill", warm) == {}


def test_files_without_a_mark_of_their_own_stand_in_front() -> None:
    marks = InfillMarks("<PRE>", "<SUF>", "<MID>", ())
    assert marks.files([("a.py", "x = 1"), ("b.py", "y")]) == "x = 1\ny\n" and marks.files([]) == ""
