"""What is told of sounds before a model is loaded is what they take when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, SamplingParams
from albireo.bench.sound_cost import sound_figures
from tiny_hearers import FAMILIES, RATE, save, sound


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_tiles_are_those_of_a_prompt(name: str, albireo: Any, tmp_path: Path) -> None:
    folder, seconds = save(tmp_path, name), min(30, int(FAMILIES[name].longest))
    asked = {"prompt": FAMILIES[name].mark, "multi_modal_data": {"audio": (sound(seconds), RATE)}}
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        marks = len(llm.get_tokenizer().encode(FAMILIES[name].mark)) - 1
        # of what stands around rows the last may be one
        marks += len(llm.get_tokenizer().encode("".join(FAMILIES[name].around))) - (FAMILIES[name].ended is not None)
        (output,) = llm.generate(asked, SamplingParams(max_tokens=1), use_tqdm=False)
    tokens = len(output.prompt_token_ids) - marks
    told = f"a sound of {seconds} s is {tokens} tokens, {output.metrics.num_prefill_chunks} tile"
    assert told in albireo("inspect", folder).stdout
    planned = albireo("plan", folder, "--input-len", "64", "--output-len", "8").stdout
    assert f"of {seconds} s: {tokens} tokens" in planned and "hears" in planned


def test_nothing_is_told_of_models_that_hear_none() -> None:
    assert sound_figures("this model reads text only") is None
