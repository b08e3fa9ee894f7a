"""A toy model behind the front doors: it says what a script tells it to, or mumbles letters that depend on the past.

Its tokenizer is byte-level: 256 single bytes, a few longer tokens, and special ones.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from albireo.api.load import Loaded
from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.models.settings.generation import GenerationDefaults
from albireo.step import SampledToken, SampleTask, StepPlan, StepResult, TokenLogprobs
from albireo.text.tokenizer import Tokenizer

LONG_TOKENS = ("Hello", "Ġworld", "lo", "Ġw", "END", "ND")
SPECIAL_TOKENS = ("<s>", "</s>", "<end>")


def write_tokenizer(directory: Path) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*alphabet, *LONG_TOKENS])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    backend.save(str(directory / "tokenizer.json"))
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% if shout %}!{% endif %} {% endif %}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.from_directory(directory)


class Toy:
    """A model. Its next token depends on the tokens before and the seed alone.

    Attributes:
        scripts: prompt -> what it answers, one answer a seed (modulo their number); then it says EOS for ever.
        on_step: called with each plan first; may raise.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.scripts: dict[tuple[int, ...], list[list[int]]] = {}
        self.on_step: Callable[[StepPlan], None] = lambda plan: None
        self.num_steps = 0

    def ids(self, *tokens: str) -> list[int]:
        """Each argument: one token of the vocabulary, or text taken byte by byte."""
        found: list[int] = []
        for token in tokens:
            token_id = self.tokenizer.token_to_id(token)
            found += self.tokenizer.encode(token) if token_id is None else [token_id]
        return found

    def script(self, prompt: str, *answers: Sequence[int]) -> None:
        self.scripts[tuple(self.tokenizer.encode(prompt))] = [list(answer) for answer in answers]

    def next_token(self, task: SampleTask) -> int:
        answers = self.scripts.get(tuple(task.prompt_token_ids))
        num_out = len(task.output_token_ids)
        if answers is not None:
            answer = answers[task.seed % len(answers)]
            return answer[num_out] if num_out < len(answer) else self.ids("</s>")[0]
        past = [*task.prompt_token_ids, *task.output_token_ids]
        seed = 0 if task.params.is_greedy else task.seed
        return self.ids("abcdefgh ")[zlib.crc32(repr((seed, past)).encode()) % 9]

    def __call__(self, plan: StepPlan) -> StepResult:
        self.on_step(plan)
        self.num_steps += 1
        result = StepResult([])
        for work in plan.work:
            if work.prompt_logprobs is not None:
                result.prompt_logprobs[work.seq_id] = [
                    self._logprobs(target, work.prompt_logprobs) for target in work.prompt_targets
                ]
            for task in work.samples:
                token = self.next_token(task)
                num = task.params.logprobs
                found = None if num is None else self._logprobs(token, num)
                result.tokens.append(SampledToken(task.seq_id, token, found))
        return result

    def _logprobs(self, token: int, num: int) -> TokenLogprobs:
        """The token with rank 2, and the num first letters of the alphabet."""
        best = self.ids("abcdefghij")[:num]
        return TokenLogprobs(
            [token, *(i for i in best if i != token)],
            [-0.5, *(-1.0 - k for k, i in enumerate(best) if i != token)],
            [2, *(k + 3 for k, i in enumerate(best) if i != token)],
        )


@dataclass
class ToyHouse:
    """Makes Loaded for the front doors; toy is the model behind the one made last."""

    directory: Path
    tokenizer: Tokenizer = field(init=False)
    toy: Toy = field(init=False)

    def __post_init__(self) -> None:
        self.tokenizer = write_tokenizer(self.directory)
        self.toy = Toy(self.tokenizer)

    def loaded(
        self, *, defaults: GenerationDefaults | None = None, max_model_len: int = 400, num_blocks: int = 600, **kw: Any
    ) -> Loaded:
        """Args: kw: fields of EngineConfig."""
        config = EngineConfig(**kw)
        eos = self.toy.ids("</s>")[0]
        settings = EngineSettings.from_config(
            config,
            num_blocks=num_blocks,
            max_model_len=max_model_len,
            vocab_size=self.tokenizer.vocab_size,
            eos_token_ids=frozenset({eos}),
        )
        return Loaded(
            config=config,
            directory=self.directory,
            model_config=cast(Any, None),
            defaults=defaults or GenerationDefaults(),
            eos_token_ids=(eos,),
            tokenizer=None if config.skip_tokenizer_init else self.tokenizer,
            program=cast(Any, None),
            settings=settings,
            memory=cast(Any, None),
            model=cast(Any, None),
            execute=self.toy,
            load_s=0.0,
        )


@pytest.fixture
def house(tmp_path: Path) -> ToyHouse:
    return ToyHouse(tmp_path)
