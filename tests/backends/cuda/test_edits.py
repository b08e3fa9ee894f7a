"""What is kept of a task's changes from step to step is what would be found anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from albireo.backends.cuda.edits import Changes
from albireo.backends.cuda.kernels.sample_adjust import BANNED, BIASED, COUNT, END, SEEN
from albireo.backends.cuda.task_arrays import TaskArrays, may_change
from albireo.params import SamplingParams
from albireo.step import SampleTask

VOCAB = 40


def changes_of(task: SampleTask) -> dict[int, tuple[int, float]]:
    """By the definition in kernels/sample_adjust.py, id by id."""
    params, output = task.params, task.output_token_ids
    counts = bool(params.frequency_penalty or params.presence_penalty)
    found = {}
    for token_id in range(VOCAB):
        kind = COUNT * list(output).count(token_id) if counts else 0
        if params.repetition_penalty != 1.0 and token_id in (*task.prompt_token_ids, *output):
            kind |= SEEN
        kind |= BANNED if token_id in task.bad_word_ends else 0
        kind |= END if token_id in task.early_ends else 0
        bias = (params.logit_bias or {}).get(token_id)
        kind |= 0 if bias is None else BIASED
        if kind:
            found[token_id] = (kind, bias or 0.0)
    return found


def told(changes: Changes) -> dict[int, tuple[int, float]]:
    ids, kinds, biases = changes.now()
    assert len(set(ids.tolist())) == len(ids)
    got = zip(ids.tolist(), kinds.tolist(), biases.view(np.float32).tolist(), strict=True)
    return {token_id: (kind, bias) for token_id, kind, bias in got if kind}


@pytest.mark.parametrize(
    "params",
    [
        {"presence_penalty": 0.5},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "logit_bias": {3: 2.5, 39: -1.0}},
        {"min_tokens": 9, "bad_words": ["w"], "bad_words_token_ids": ((7,), (2, 5)), "logit_bias": {7: 1.0}},
        {"min_tokens": 9, "presence_penalty": 0.5, "bad_words": ["w"], "bad_words_token_ids": ((2, 5),)},
    ],
)
def test_changes_go_on_where_they_were(params: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    output: list[int] = []
    task = SampleTask(0, SamplingParams(max_tokens=99, **params), 0, [1, 2, 2, 30], output, (6, 7, VOCAB + 2))
    changes = Changes(task, VOCAB)
    for _ in range(80):
        behind, drafts = changes, rng.integers(0, VOCAB, 3).tolist()
        for num in range(1, 4):
            behind = behind.of_longer(task.after([*output, *drafts[:num]]))
            assert told(behind) == changes_of(behind.task), "behind drafts"
        assert told(changes) == changes_of(task)
        output += rng.integers(0, VOCAB, int(rng.integers(0, 3))).tolist()


def test_drafts_go_on_from_the_task_before_them_and_from_no_other() -> None:
    """Not a sequence that has the same prompt, nor the same sequence earlier."""
    params = SamplingParams(presence_penalty=1.0, n=2)
    prompt = [1, 2]
    one = SampleTask(0, params, 0, prompt, [3, 4])
    tasks = [one, one.after([3, 4, 5]), one.after([3, 4, 5, 4]), SampleTask(1, params, 1, prompt, [7, 7, 7, 7, 7, 7])]
    arrays = TaskArrays(VOCAB)
    for _ in range(2):
        arrays.set(tasks)
        assert [told(arrays._changing[i]) for i in range(4)] == [changes_of(task) for task in tasks]
        one.output_token_ids += [5, 9]  # the first came true
        other = tasks[3]
        tasks = [one, one.after([3, 4, 5, 9, 3]), other, other.after([7] * 7)]


def test_who_changes_nothing_is_not_asked() -> None:
    plain = SampleTask(0, SamplingParams(temperature=0.7), 0, [1], [2], (6,))
    penalised = SampleTask(1, SamplingParams(presence_penalty=1.0), 0, [1], [2], (6,))
    assert [may_change(plain), may_change(penalised)] == [False, True]
    arrays = TaskArrays(VOCAB)
    arrays.set([plain])
    assert (arrays.changes, arrays.truncates) == (False, False)
    arrays.set([plain, penalised, SampleTask(2, SamplingParams(top_k=3), 0, [1], [])])
    assert (arrays.changes, arrays.truncates) == (True, True)
    arrays.set([SampleTask(3, SamplingParams(top_k=3, temperature=0.0), 0, [1], [])])
    assert (arrays.changes, arrays.truncates) == (False, False), "greedy"


def test_penalties_of_a_window_are_the_hosts() -> None:
    """What is kept from step to step only grows."""
    torch = pytest.importorskip("torch")
    from albireo.backends.cuda.drawing import Drawing

    drawing = Drawing(2, VOCAB, torch.device("cpu"))

    def can_draw(**asked: Any) -> bool:
        return drawing.can_draw([SampleTask(0, SamplingParams(**asked), 0, [1, 2], [3])])

    assert can_draw(repetition_penalty=1.1) and can_draw(penalty_window=8), "a window of nothing"
    assert not can_draw(repetition_penalty=1.1, penalty_window=8)
    assert not can_draw(presence_penalty=0.5, penalty_window=8)
