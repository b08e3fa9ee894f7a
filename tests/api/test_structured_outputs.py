"""Outputs with a form, from the bundled model: what comes out has it, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from albireo import LLM, AsyncLLM, InvalidParams, SamplingParams, StructuredOutputsParams
from albireo.api.driver import Driver
from albireo.api.load import Loaded
from albireo.errors import ConfigError, UnsupportedFeature
from albireo.outputs import CompletionOutput, RequestOutput
from structured.vocabularies import BACKENDS

SETTINGS: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_bytes": 32 << 20, "num_threads": 1}
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    pytest.importorskip("albireo._native")
    with LLM(**SETTINGS) as loaded:
        yield loaded


def form(seed: int = 0, **kwargs: Any) -> SamplingParams:
    names = ("json", "regex", "choice", "grammar", "json_object", "backend")
    given = {name: kwargs.pop(name) for name in names if name in kwargs}
    return SamplingParams(
        **{"temperature": 1.0, "seed": seed, "max_tokens": 250, "structured_outputs": given, **kwargs}
    )


def random_schema(chance: random.Random, depth: int = 2) -> dict[str, Any]:
    """A schema all of whose values are short, so that an output ends."""
    kinds = ["string", "pattern", "integer", "number", "boolean", "null", "enum", "const"]
    kind = chance.choice([*kinds, *(["object", "array", "anyOf"] * 2 if depth else [])])
    if kind == "string":
        return {"type": "string", "minLength": chance.randrange(3), "maxLength": chance.randrange(3, 9)}
    if kind == "pattern":
        return {"type": "string", "pattern": chance.choice(["^[a-f]{2,5}$", "^\\d{4}-\\d{2}$", "^(yes|no)!?$"])}
    if kind == "integer":
        low = chance.randrange(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + chance.randrange(100)}
    if kind == "number":
        return {"type": "number", "minimum": 0, "exclusiveMaximum": chance.randrange(1, 99)}
    if kind == "enum":
        return {"enum": chance.sample(["a", "b c", 3, None, True, "é\n"], 3)}
    if kind == "const":
        return {"const": {"k": [1, "two"]}}
    if kind == "anyOf":
        return {"anyOf": [random_schema(chance, depth - 1) for _ in range(2)]}
    if kind == "array":
        low = chance.randrange(2)
        return {"type": "array", "items": random_schema(chance, depth - 1), "minItems": low, "maxItems": low + 2}
    if kind == "object":
        names = chance.sample(["name", "age", "tags", "größe", "x y"], chance.randrange(1, 4))
        properties = {name: random_schema(chance, depth - 1) for name in names}
        required = [name for name in names if chance.random() < 0.7]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": kind}


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_of_random_schemas_validate(llm: LLM, backend: str) -> None:
    chance = random.Random(5)
    schemas = [random_schema(chance) for _ in range(20)]
    # Numbers may go on for ever: their digits end with the tokens.
    params = [form(seed, json=schema, max_tokens=400, backend=backend) for seed, schema in enumerate(schemas)]
    outputs = llm.generate([PROMPT] * len(schemas), params)
    finished = 0
    for schema, output in zip(schemas, outputs, strict=True):
        only = output.outputs[0]
        if only.finish_reason == "stop":
            finished += 1
            jsonschema.validate(json.loads(only.text), schema)
        else:
            assert only.finish_reason == "length", only.stop_reason
    assert finished >= 18


REGEXES = [
    r"[a-z]{3,9}(, [a-z]{1,8}){2}\.",
    r"(\d{1,3}\.){3}\d{1,3}",
    r"(yes|no|may ?be)[.!?]{0,2}",
    r"[A-Z]\w{2,5} \([0-9a-f]{8}\)",
    r"(🦊|é|ß){2,4}\n",
    r"[^a-z]{4}",
    r"x{0}",
    r"(?i)hello( there){1,2}",
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("extra", [{}, {"temperature": 0.0}, {"top_k": 3, "min_tokens": 40, "ignore_eos": True}])
def test_outputs_match_their_regex_to_the_end(llm: LLM, backend: str, extra: dict[str, Any]) -> None:
    regexes = [regex for regex in REGEXES if backend == "llguidance" or not regex.startswith("(?i)")]
    params = [form(i, regex=regex, backend=backend, **extra) for i, regex in enumerate(regexes)]
    for output, regex in zip(llm.generate([PROMPT] * len(regexes), params), regexes, strict=True):
        only = output.outputs[0]
        assert (only.finish_reason, only.stop_reason) == ("stop", None)
        assert re.fullmatch(regex, only.text), (regex, only.text)


def test_a_choice_is_one_of_them_and_every_continuation_has_the_form(llm: LLM) -> None:
    choices = ["Tom", "Lily", "the fox", "the fox and the owl", "🦊"]
    (output,) = llm.generate(PROMPT, form(3, choice=choices, n=12))
    texts = {each.text for each in output.outputs}
    assert texts <= set(choices) and len(texts) > 1


def test_a_chat_answers_in_the_form(llm: LLM) -> None:
    params = SamplingParams(max_tokens=300, seed=1, structured_outputs=StructuredOutputsParams(json_object=True))
    messages = [{"role": "user", "content": "Tell me of a fox."}]
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (output,) = llm.chat(messages, params, chat_template=template)
    text = output.outputs[0].text
    if output.outputs[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)
    assert text.startswith("{")


PARAMETERS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"top_p": 0.6, "min_p": 0.05, "top_k": 40},
    {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": -0.5},
    {"logit_bias": {5: 3.0}, "bad_words": ["the"], "logprobs": 2},
    {"min_tokens": 60, "stop_token_ids": [7]},
    {"stop": ["b"], "include_stop_str_in_output": True},
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("extra", PARAMETERS)
def test_every_other_parameter_goes_with_a_form(llm: LLM, backend: str, extra: dict[str, Any]) -> None:
    regex = r"[a-z ]{8,20}; [a-z]{1,9}"
    (output,) = llm.generate(PROMPT, form(2, regex=regex, backend=backend, **extra))
    text = output.outputs[0].text
    assert output.outputs[0].finish_reason == "stop"
    if output.outputs[0].stop_reason is None:
        assert re.fullmatch(regex, text)
    else:
        assert output.outputs[0].stop_reason == "b" and text.endswith("b") and "stop" in extra
    if "bad_words" in extra:
        assert len(output.outputs[0].logprobs or []) == len(output.outputs[0].token_ids)


def test_neighbours_keep_every_token_and_a_form_does_not_depend_on_its_neighbours(llm: LLM) -> None:
    plain = [SamplingParams(temperature=0, max_tokens=40), SamplingParams(seed=4, max_tokens=40, top_k=20)]
    formed = [form(1, json_object=True, max_tokens=60), form(2, regex="[a-z ]{20,40}")]
    alone = [tokens(llm.generate(PROMPT, params)[0].outputs[0]) for params in [*plain, *formed]]
    together = [tokens(each.outputs[0]) for each in llm.generate([PROMPT] * 4, [*plain, *formed])]
    assert together == alone


def tokens(output: CompletionOutput) -> list[int]:
    return output.token_ids


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_preempted_output_goes_on_as_if_nothing_had_been(llm: LLM, backend: str) -> None:
    params = [form(seed, json_object=True, backend=backend, max_tokens=120, min_tokens=100) for seed in range(6)]
    expected = [tokens(each.outputs[0]) for each in llm.generate([PROMPT] * 6, params)]
    with LLM(**{**SETTINGS, "num_gpu_blocks_override": 20, "enable_prefix_caching": False}, max_model_len=200) as tight:
        outputs = tight.generate([PROMPT] * 6, params)
    assert [tokens(each.outputs[0]) for each in outputs] == expected
    assert sum(each.metrics.num_preemptions for each in outputs if each.metrics) > 0


def test_a_grammar_that_gives_up_ends_its_own_request_only(llm: LLM) -> None:
    letters = llm.get_tokenizer().encode("a b", add_special_tokens=False)
    bomb = form(0, regex="(.*a.{30}b|.*b.{29}a)", logit_bias=dict.fromkeys(letters, 30.0))
    plain = SamplingParams(temperature=0, max_tokens=60)
    alone = llm.generate(PROMPT, plain)[0].outputs[0].token_ids
    bad, good = llm.generate([PROMPT] * 2, [bomb, plain])
    assert good.outputs[0].token_ids == alone
    assert bad.outputs[0].finish_reason == "error"
    assert "structured_outputs cannot go on" in str(bad.outputs[0].stop_reason)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_mask_that_takes_too_long_ends_its_own_request_only(
    llm: LLM, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from albireo.structured.xgrammar import backend as module

    monkeypatch.setattr(module, "MASK_S", 0.03)  # many times what a plain form takes; this one's grows without end
    assert llm.loaded is not None
    (letter,) = llm.get_tokenizer().encode("a", add_special_tokens=False)
    slow = form(
        0,
        grammar='root ::= e\ne ::= e e e | e e | "a" | ""',
        backend=backend,
        max_tokens=450,
        logit_bias={letter: 90.0},
    )
    plain = SamplingParams(temperature=0, max_tokens=60)
    alone = llm.generate(PROMPT, plain)[0].outputs[0].token_ids
    fresh = LLM.from_loaded(llm.loaded)
    bad, good, other = fresh.generate([PROMPT] * 3, [slow, plain, form(1, regex="[ab]{3,9}", backend=backend)])
    assert good.outputs[0].token_ids == alone and re.fullmatch("[ab]{3,9}", other.outputs[0].text)
    assert bad.outputs[0].finish_reason == "error"
    assert "its mask takes longer than 0.03 s" in str(bad.outputs[0].stop_reason)


def test_the_backend_that_is_the_default_must_be_installed(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    from albireo.structured.xgrammar import backend as module

    with pytest.raises(ConfigError, match="structured_outputs_backend='outlines' is unknown; choose llguidance"):
        LLM(**SETTINGS, structured_outputs_backend="outlines")
    monkeypatch.setattr(module, "_PARTS", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"pip install albireo\[xgrammar\]"):
        LLM(**SETTINGS, structured_outputs_backend="xgrammar")
    with pytest.raises(UnsupportedFeature, match=r"pip install albireo\[xgrammar\]"):
        llm.generate(PROMPT, form(0, regex="a", backend="xgrammar"))


def test_a_wrong_form_refuses_its_request(llm: LLM, house: Any) -> None:
    with pytest.raises(InvalidParams, match="unclosed character class"):
        llm.generate(PROMPT, form(0, regex="[a"))
    with (
        LLM.from_loaded(house.loaded(skip_tokenizer_init=True)) as bare,
        pytest.raises(InvalidParams, match="tokenizer"),
    ):
        bare.generate([1, 2], form(0, regex="a"))


def test_a_form_streams_and_a_wrong_one_is_refused_beside_it(llm: LLM) -> None:
    assert llm.loaded is not None
    params = [form(seed, regex=r"[a-z ]{10,30}\.") for seed in range(4)]
    expected = [each.outputs[0].text for each in llm.generate([PROMPT] * 4, params)]

    async def last(model: AsyncLLM, asked: SamplingParams) -> RequestOutput:
        outputs = [output async for output in model.generate(PROMPT, asked)]
        return outputs[-1]

    async def run(loaded: Loaded) -> list[Any]:
        async with AsyncLLM.from_loaded(loaded) as model:
            asked = [*params, form(0, grammar="start: nothing")]
            return await asyncio.gather(*(last(model, each) for each in asked), return_exceptions=True)

    *outputs, refusal = asyncio.run(run(llm.loaded))
    assert [each.outputs[0].text for each in outputs] == expected
    assert isinstance(refusal, InvalidParams) and "unknown name" in str(refusal)


def test_the_driver_takes_a_form_that_admission_compiled(llm: LLM) -> None:
    assert llm.loaded is not None
    from albireo.api.requests.admission import Admission
    from albireo.api.requests.prompts import parse_prompt

    admission = Admission.of(llm.loaded)
    params = admission.prepare(form(1, choice=["yes"]))
    submission = admission.submission(parse_prompt(PROMPT), params)
    assert admission.constrained(submission) is submission
    driver = Driver(llm.loaded.settings, llm.loaded.execute, llm.loaded.tokenizer)
    record = driver.add("r", submission)
    while driver.has_work():
        driver.step()
    assert record.output().outputs[0].text == "yes"
