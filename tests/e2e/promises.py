"""What models of several kinds are held to alike, whatever they keep between steps. Called by each kind's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import BuildConfig, build
from albireo.api.llm import LLM
from albireo.params import SamplingParams
from albireo.verify.run import verify
from e2e.serving import Ask, Server, assert_same_answers
from tiny_models import make_checkpoint

#: Of the largest logit: what sums in another order may differ by, in float32 and as many layers as tiny models have.
NEAR = 2e-5


def assert_logits_of_transformers_with_its_caches(directory: Path) -> None:
    """A prompt in pieces, then token by token: every logit, of what it keeps between steps."""
    torch = pytest.importorskip("torch")
    from backends.reference.test_interpret import Model
    from transformers_models import transformers

    ids = np.random.default_rng(1).integers(3, 100, 75).tolist()
    pieces = [21, 9, 14, 3, *(1,) * 28]
    assert sum(pieces) == len(ids)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    cache, rows, start = transformers.DynamicCache(config=model.config), [], 0
    with torch.no_grad():
        for count in pieces:
            part = torch.tensor([ids[start : start + count]])
            rows.append(model(part, cache=cache, use_cache=True).logits[0].numpy())
            start += count
    theirs = np.concatenate(rows)
    ours = Model(directory, max_model_len=96).logits(ids, pieces[:-1])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=NEAR * np.abs(theirs).max())


def verdicts_of_a_directory(folder: Path, config: Mapping[str, Any], asks: Sequence[Ask]) -> dict[str, str]:
    """Of each stage that verifies an engine directory, once this gives the tokens of the checkpoint it was built of."""
    said = {**config, "vocab_size": 512, "eos_token_id": 2}
    checkpoint = make_checkpoint(folder / "checkpoint", said, seed=6, tokenizer=True)
    build(checkpoint, folder / "engine", BuildConfig())
    prompts = [list(ask.prompt) for ask in asks]
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    wanted, found = (
        [each.outputs[0].token_ids for each in LLM(str(place)).generate(prompts, params)]
        for place in (checkpoint, folder / "engine")
    )
    assert found == wanted
    return {stage.name: stage.verdict for stage in verify(folder / "engine", checkpoint).stages}


def assert_a_conversation_goes_on(directory: Path, prompt: Sequence[int]) -> None:
    """From snapshots, and keys that others have made: behind the answer; behind the prompt, where the answer is
    another, or where who parts from it does so within an entry. The bits are those of nobody's having been there
    before. Args: prompt: of 44 tokens."""
    server = Server.load(directory, block_size=8, max_num_batched_tokens=50)
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=0)
    prompt = tuple(prompt)
    (answer,) = server.alone([Ask(prompt, params)])[0].tokens
    asks = [Ask(p, params) for p in (prompt, (*prompt, *answer, 5, 6, 7), (*prompt[:38], 9, 8), prompt)]
    answers, _ = server.serve(asks, waves=4)
    assert [each.num_cached_tokens for each in answers] == [0, 48, 32, 32]
    assert_same_answers(answers, server.alone(asks))
