"""lm-eval: loglikelihoods that are those of transformers, by either tokenizer and in batches; what is generated."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ask import CHECKPOINT, KEY, MODEL, URL

os.environ["OPENAI_API_KEY"] = KEY
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
import yaml
from lm_eval.tasks import TaskManager

#: A difference of rounding: the server computes in the checkpoint's 16 bits, transformers in 32.
ROUNDING = 0.05
STORIES = [
    {"story": "Once upon a time there was a little", "ends": ["girl", "engine of state"], "best": 0},
    {"story": "The cat was hungry, so she ate the", "ends": ["moon, twice", "fish", "f"], "best": 1},
    {"story": "Tom was sad. His mom gave him a big", "ends": ["hug.", "\n\nThe end", "…"], "best": 0},
    {"story": '"Thank you," said the bird, and it flew', "ends": ["away", "in a manner of speaking"], "best": 0},
]
TASKS: list[dict[str, Any]] = [
    {
        "task": "choices",
        "output_type": "multiple_choice",
        "doc_to_text": "{{story}}",
        "doc_to_choice": "{{ends}}",
        "doc_to_target": "{{best}}",
    },
    {
        "task": "rolling",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{story}} {{ends[0]}}.",
        "metric_list": [{"metric": "word_perplexity"}],
    },
    {
        "task": "words",
        "output_type": "generate_until",
        "doc_to_text": "{{story}}",
        "doc_to_target": "{{ends[0]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
]


def evaluated(tasks: TaskManager, names: list[str], kind: str, batch_size: int = 1, /, **args: Any) -> dict[str, Any]:
    """Of each task what the model said to each request."""
    chats = {"apply_chat_template": True} if kind == "local-chat-completions" else {}
    found = lm_eval.simple_evaluate(
        model=kind, model_args=args, tasks=names, task_manager=tasks, batch_size=batch_size, bootstrap_iters=0, **chats
    )
    return {name: [sample["resps"] for sample in found["samples"][name]] for name in names}


def numbers(value: Any) -> list[Any]:
    """Lists in lists as one."""
    return [each for part in value for each in numbers(part)] if isinstance(value, (list, tuple)) else [value]


def close(got: Any, want: Any, what: str) -> None:
    """Loglikelihoods differ by rounding at most, and the same are greedy."""
    pairs = list(zip(numbers(got), numbers(want), strict=True))
    assert len(pairs) >= len(STORIES), what
    for one, other in pairs:
        is_same = one == other if isinstance(other, bool) else abs(one - other) <= ROUNDING * max(1, abs(other) ** 0.5)
        assert is_same, f"{what}: {one} is not {other}, as transformers has it"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_HOME"] = folder
        data = Path(folder, "stories.jsonl")
        data.write_text("".join(json.dumps(story) + "\n" for story in STORIES))
        for task in TASKS:
            common = {"dataset_path": "json", "dataset_kwargs": {"data_files": str(data)}, "test_split": "train"}
            Path(folder, f"{task['task']}.yaml").write_text(yaml.safe_dump({**common, **task}))
        tasks = TaskManager(include_path=folder, include_defaults=False)
        every = [task["task"] for task in TASKS]
        reference = {"pretrained": CHECKPOINT, "dtype": "float32", "device": "cpu"}
        theirs = {bos: evaluated(tasks, every, "hf", 1, **reference, add_bos_token=bos) for bos in (False, True)}
        ours = {"model": MODEL, "base_url": f"{URL}/v1/completions", "max_length": 512, "max_retries": 1, "seed": 0}
        files = {"tokenizer_backend": "huggingface", "tokenizer": CHECKPOINT}
        for has_bos, options in (
            (False, files),
            (True, {**files, "add_bos_token": True, "num_concurrent": 3}),
            (False, {"tokenizer_backend": "remote", "auth_token": KEY}),
        ):
            got, want = evaluated(tasks, every, "local-completions", 3, **ours, **options), theirs[has_bos]
            for name in ("choices", "rolling"):
                close(got[name], want[name], f"{name} {options}")
            assert got["words"] == want["words"], (got["words"], want["words"])
        # of texts, in front of which the server puts what the tokenizer does
        texts = {**files, "tokenized_requests": False}
        assert evaluated(tasks, ["words"], "local-completions", 1, **ours, **texts)["words"] == theirs[True]["words"]
        chat = {**ours, "base_url": f"{URL}/v1/chat/completions"}
        said = numbers(evaluated(tasks, ["words"], "local-chat-completions", **chat)["words"])
        assert all(said) and len(said) == len(STORIES), said


main()
