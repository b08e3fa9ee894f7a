"""thinking_token_budget in Python; the bundled model thinks where its template says so. The same in any crowd."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import albireo
from albireo import LLM, InvalidParams, SamplingParams
from albireo.api.requests.admission import Admission
from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.models.settings.generation import GenerationDefaults
from albireo.parsers.output_parser import reasoning_tags
from albireo.text.tokenizer import Tokenizer

MARK = "</think>"
TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}<think>{# </think> #}"
STORY = Path(albireo.__file__).parent / "models" / "bundled" / "story"
SETTINGS: dict[str, Any] = {"dtype": "float32", "num_threads": 1}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    pytest.importorskip("albireo._native")
    folder = tmp_path_factory.mktemp("model") / "story"
    shutil.copytree(STORY, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    # So little memory that sequences are preempted.
    with LLM(str(folder), kv_cache_memory_bytes=3 << 20, max_num_seqs=24, **SETTINGS) as loaded:
        yield loaded


def asks(num: int) -> list[SamplingParams]:
    common: dict[str, Any] = {"temperature": 1.0, "max_tokens": 60, "ignore_eos": True}
    return [SamplingParams(seed=i, thinking_token_budget=(3 * i) % 40, n=1 + i % 3, **common) for i in range(num)]


def test_it_is_kept_alone_and_in_a_crowd(thinker: LLM) -> None:
    chats = [[{"role": "user", "content": "Once upon a time " * (1 + i % 5)}] for i in range(24)]
    crowd = thinker.chat(chats, asks(24), use_tqdm=False)
    assert sum(output.metrics.num_preemptions for output in crowd if output.metrics is not None) > 0
    encode = thinker.get_tokenizer().encode
    end = encode(MARK, add_special_tokens=False)
    for chat, params, output in list(zip(chats, asks(24), crowd, strict=True))[::5]:
        (alone,) = thinker.chat([chat], [params], use_tqdm=False)
        assert [o.token_ids for o in alone.outputs] == [o.token_ids for o in output.outputs]
    for params, output in zip(asks(24), crowd, strict=True):
        budget = params.thinking_token_budget
        assert budget is not None
        for one in output.outputs:
            assert list(one.token_ids[budget : budget + len(end)]) == end and MARK in one.text


def test_a_prompt_of_text_or_ids_may_be_in_the_middle_of_a_thought(thinker: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=30, thinking_token_budget=4, ignore_eos=True)
    ids = thinker.get_tokenizer().encode("Why?\n<think>Because the fox")
    text, same = thinker.generate(["Why?\n<think>Because the fox", {"prompt_token_ids": ids}], params, use_tqdm=False)
    assert text.outputs[0].token_ids == same.outputs[0].token_ids
    assert text.outputs[0].text.count(MARK) == 1
    plain = ["Why?\n<think>No.</think> Because the fox", "Why? Because the fox"]
    cut = params.clone(truncate_prompt_tokens=4)  # of it nothing is left that begins a thought
    asked = [(prompt, params) for prompt in plain] + [("Why?\n<think>Because the fox was old", cut)]
    for other in thinker.generate(*map(list, zip(*asked, strict=True)), use_tqdm=False):
        assert MARK not in other.outputs[0].text


def settings_of(tokenizer: Tokenizer) -> EngineSettings:
    return EngineSettings(num_blocks=2, max_model_len=512, vocab_size=tokenizer.vocab_size)


@pytest.mark.parametrize(
    ("parser", "template", "opens"),
    [
        ("think", "{{ messages[0].content }}<think>\n", True),
        ("think", "{{ messages[0].content }}", False),
        ("think", "{{ messages[0].content }}<think>\n\n</think>\n\n", None),
        ("deepseek_r1", "{{ messages[0].content }}", True),
        ("deepseek_r1", "{{ messages[0].content }}<think>\n", True),
        ("deepseek_r1", "{{ messages[0].content }}<think>\n\n</think>\n\n", None),
    ],
)
def test_what_a_chat_begins_with(parser: str, template: str, opens: bool | None) -> None:
    """A template may open the thinking, close it, or leave it to the model, which may begin without a mark."""
    tokenizer = Tokenizer.from_directory(STORY)
    subject = Admission(
        EngineConfig(), GenerationDefaults(), settings_of(tokenizer), tokenizer, reasoning=reasoning_tags(parser)
    )
    params = subject.prepare(SamplingParams(thinking_token_budget=0))
    # What is said is no mark, whatever it looks like.
    messages = [{"role": "user", "content": "What is <think>?"}]
    made = subject.chat(messages, params, {"chat_template": template})
    assert opens is None or (made.params.thinking_marks is not None and made.params.thinking_marks.is_open == opens)
    begin = tokenizer.encode("<think>", add_special_tokens=False)
    forced = [None if made.budget is None else made.budget().forced(output) is not None for output in ([], begin)]
    assert forced == {None: [None, None], True: [True, True], False: [False, True]}[opens]


def test_all_thoughts_of_an_answer_in_messages_have_one_budget() -> None:
    """gpt-oss: a message of thought, what is said before a call, more thought."""
    tokenizer = Tokenizer.from_directory(STORY)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    subject = Admission(
        EngineConfig(),
        GenerationDefaults(),
        settings_of(tokenizer),
        tokenizer,
        reasoning=reasoning_tags("openai_gptoss"),
    )
    params = subject.prepare(SamplingParams(thinking_token_budget=100))
    template = "{{ messages[0].content }}<|start|>assistant"
    made = subject.chat([{"role": "user", "content": "Why?"}], params, {"chat_template": template})
    assert made.budget is not None
    thought = encode("so I think") * 60
    head = encode("<|channel|>analysis<|message|>")
    assert made.budget().forced([*head, *thought[:99]]) is None
    assert made.budget().forced([*head, *thought[:100]]) == encode("<|end|>")[0]
    first = [*head, *thought[:10], *encode("<|end|>")]
    said = encode("<|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>")
    more = [*first, *said, *encode("<|start|>assistant"), *head]
    assert made.budget().forced([*more, *thought[:89]]) is None
    assert made.budget().forced([*more, *thought[:90]]) == encode("<|end|>")[0]
    answer = encode("<|start|>assistant<|channel|>final<|message|>")
    assert made.budget().forced([*first, *answer, *thought, *thought]) is None


def test_a_model_without_marks_has_no_budget() -> None:
    pytest.importorskip("albireo._native")
    with LLM(kv_cache_memory_bytes=8 << 20, **SETTINGS) as llm:
        with pytest.raises(InvalidParams, match="thinking_token_budget=5 needs a model that thinks"):
            llm.generate(["Once"], SamplingParams(thinking_token_budget=5), use_tqdm=False)
        assert llm.generate(["Once"], SamplingParams(thinking_token_budget=-1), use_tqdm=False)


@pytest.mark.parametrize("budget", [-2, 1.5, "5", True])
def test_what_is_no_budget_is_refused(budget: Any) -> None:
    with pytest.raises(InvalidParams, match="thinking_token_budget"):
        SamplingParams(thinking_token_budget=budget)
