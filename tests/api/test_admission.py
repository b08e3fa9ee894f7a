"""Parameters against the model: limits, bad words, defaults."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.api.requests.admission import Admission
from albireo.api.requests.prompt_encoder import FEW_CHARS
from albireo.api.requests.prompts import Prompt
from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError, InvalidParams, PromptTooLong, TemplateError
from albireo.image_input import GivenImage
from albireo.models.settings.generation import GenerationDefaults
from albireo.params import SamplingParams
from albireo.text.tokenizer import Tokenizer
from tiny_models import shared_data


def admission(house: Any, defaults: GenerationDefaults | None = None, **config: Any) -> Admission:
    loaded = house.loaded(defaults=defaults, **config)
    return Admission(loaded.config, loaded.defaults, loaded.settings, loaded.tokenizer)


ADVICE = GenerationDefaults(temperature=0.6, top_k=20, top_p=0.9, repetition_penalty=1.1, max_tokens=99)


def test_no_parameters_means_what_the_checkpoint_advises(house: Any) -> None:
    expected = SamplingParams(temperature=0.6, top_k=20, top_p=0.9, repetition_penalty=1.1, max_tokens=99)
    assert admission(house, ADVICE).default_params() == expected
    assert admission(house, ADVICE, generation_config="vllm").default_params() == SamplingParams()
    assert admission(house).default_params() == SamplingParams()
    override = {"temperature": 0, "max_new_tokens": 7}
    changed = expected.clone(temperature=0, max_tokens=7)
    assert admission(house, ADVICE, override_generation_config=override).default_params() == changed
    alone = admission(house, ADVICE, generation_config="vllm", override_generation_config='{"top_k": 5}')
    assert alone.default_params() == SamplingParams(top_k=5) and alone.advice == {"top_k": 5}


def asking(name: str, num: int) -> SamplingParams:
    return SamplingParams().clone(**{name: num})


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
def test_log_probabilities_are_limited(house: Any, name: str) -> None:
    vocab_size = house.tokenizer.vocab_size
    with pytest.raises(InvalidParams, match=rf"{name}=21 .*max_logprobs=20"):
        admission(house).prepare(asking(name, 21))
    with pytest.raises(InvalidParams, match=rf"{name}=-1 asks for {vocab_size}"):
        admission(house).prepare(asking(name, -1))
    with pytest.raises(InvalidParams, match="max_logprobs=0"):
        admission(house, max_logprobs=0).prepare(asking(name, 1))
    for limit in (-1, vocab_size):
        assert admission(house, max_logprobs=limit).prepare(asking(name, -1)) == asking(name, -1)
    for num in (0, 20):
        assert admission(house).prepare(asking(name, num)) == asking(name, num)


def test_parameters_that_the_vocabulary_lacks_are_refused(house: Any) -> None:
    with pytest.raises(InvalidParams, match="stop_token_ids"):
        admission(house).prepare(SamplingParams(stop_token_ids=[10_000]))
    with pytest.raises(InvalidParams, match="SamplingParams, got dict"):
        admission(house).prepare({"temperature": 0})  # type: ignore[arg-type]


def test_without_a_tokenizer_text_is_refused(house: Any) -> None:
    bare = admission(house, skip_tokenizer_init=True)
    with pytest.raises(InvalidParams, match="stop_token_ids"):
        bare.prepare(SamplingParams(stop="x"))
    with pytest.raises(InvalidParams, match="bad_words"):
        bare.prepare(SamplingParams(bad_words=["x"]))
    with pytest.raises(InvalidParams, match="token ids"):
        bare.submission(Prompt("text", None), SamplingParams())
    with pytest.raises(ConfigError, match="skip_tokenizer_init"):
        bare.chat([{"role": "user", "content": "hi"}], SamplingParams(), {})
    assert bare.submission(Prompt(None, [1]), SamplingParams()).prompt_token_ids == [1]


def vllm_bad_words(tokenizer: Any, words: list[str]) -> list[list[int]]:
    """The rule as vLLM publishes it, run on transformers' tokenizer."""
    found: list[list[int]] = []
    for word in words:
        for prefix in ("", " "):
            ids = tokenizer.encode(text=prefix + word.lstrip(), add_special_tokens=False)
            if not prefix or (ids[0] != found[-1][0] and len(ids) == len(found[-1])):
                found.append(ids)
    return found


@pytest.mark.parametrize("name", ["tokenizers/qwen2.5", "tokenizers/gpt2", "models/stories260k"])
def test_bad_words_are_those_of_vllm(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    found = shared_data(*name.split("/"))
    words = ["cat", " dog", "the", "Hello world", "naïve", "é"]
    tokenizer = Tokenizer.from_directory(found)
    settings = EngineSettings(num_blocks=2, max_model_len=512, vocab_size=10**6)
    subject = Admission(EngineConfig(), GenerationDefaults(), settings, tokenizer)
    oracle = transformers.AutoTokenizer.from_pretrained(str(found))
    got = subject.prepare(SamplingParams(bad_words=words)).bad_words_token_ids
    assert [list(ids) for ids in got] == vllm_bad_words(oracle, words)


def test_a_word_of_spaces_is_refused(house: Any) -> None:
    with pytest.raises(InvalidParams, match="word without tokens"):
        admission(house).prepare(SamplingParams(bad_words=["  "]))


def test_chat_renders_the_template_and_keeps_the_text(house: Any) -> None:
    options = {"chat_template_kwargs": {"shout": True}}
    submission = admission(house).chat([{"role": "user", "content": "hi"}], SamplingParams(), options)
    assert submission.prompt == "[user] hi\n[assistant]! "
    assert submission.prompt_token_ids == house.tokenizer.encode(submission.prompt)
    with pytest.raises(TemplateError, match="exclude each other"):
        admission(house).chat([{"role": "user", "content": "hi"}], SamplingParams(), {"continue_final_message": True})


def test_a_text_that_cannot_fit_is_refused_before_it_is_encoded(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, text = admission(house, max_model_len=32), "a" * (FEW_CHARS + 1)
    longest = max(map(len, house.tokenizer.vocabulary()))

    def encode(*_: Any, **__: Any) -> list[int]:
        raise AssertionError("it is encoded")

    monkeypatch.setattr(Tokenizer, "encode", encode)
    words = (
        f"the prompt has 1,048,577 characters, and no text of more than {32 * longest:,} fits max_model_len=32 tokens"
    )
    with pytest.raises(PromptTooLong, match=words):
        ours.prompts.encode(text, SamplingParams())
    with pytest.raises(PromptTooLong, match=f"no text of more than {32 * longest:,} fits"):
        ours.chat([{"role": "user", "content": text}], SamplingParams(), {})
    with monkeypatch.context() as some:
        some.setattr(Tokenizer, "takes_blanks", True)
        with pytest.raises(PromptTooLong, match=words):
            ours.prompts.encode(text, SamplingParams())
        with pytest.raises(AssertionError, match="it is encoded"):
            ours.prompts.encode(" " * len(text) + "a", SamplingParams())
    monkeypatch.setattr(Tokenizer, "most_chars", lambda self, num_tokens: None)
    with pytest.raises(AssertionError, match="it is encoded"):
        ours.prompts.encode(text, SamplingParams())


def test_prompts_are_cut_to_their_last_tokens_or_their_first(house: Any) -> None:
    ours = admission(house, max_model_len=32)
    ids = house.tokenizer.encode("abcdefghij")

    def kept(prompt: Prompt, most: int, max_tokens: int | None = 4) -> list[int]:
        params = ours.prepare(SamplingParams(truncate_prompt_tokens=most, max_tokens=max_tokens))
        return ours.submission(prompt, params).prompt_token_ids

    assert kept(Prompt("abcdefghij", None), 3) == kept(Prompt(None, ids), 3) == ids[-3:]
    assert kept(Prompt("abcdefghij", None), 30) == ids
    right = ours.prepare(SamplingParams(truncate_prompt_tokens=3, truncation_side="right"))
    for prompt in (Prompt("abcdefghij", None), Prompt(None, ids)):
        assert ours.submission(prompt, right).prompt_token_ids == ids[:3]
    assert len(kept(Prompt("a" * 99, None), -1)) == 28 and len(kept(Prompt(None, ids * 9), -1, None)) == 31
    chat = [{"role": "user", "content": "hi"}]
    whole = ours.chat(chat, SamplingParams(), {}).prompt_token_ids
    assert ours.chat(chat, SamplingParams(truncate_prompt_tokens=5), {}).prompt_token_ids == whole[-5:]
    assert len(kept(Prompt(None, ids * 9), -1, 31)) == 1
    with pytest.raises(InvalidParams, match="-1 keeps what max_tokens=32 leaves of max_model_len=32 tokens"):
        kept(Prompt(None, ids * 9), -1, 32)
    with pytest.raises(InvalidParams, match="truncate_prompt_tokens=33 is more than max_model_len=32"):
        kept(Prompt("a", None), 33)
    with pytest.raises(InvalidParams, match="truncate_prompt_tokens=3 is for text"):
        kept(Prompt("a", None, images=[GivenImage(None)]), 3)
