"""Llama Nemotron Super and Ultra: layers without attention, which have no KV cache, and layers of several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import load_architecture
from e2e.serving import Server, assert_same_answers
from e2e.test_invariance import preempted, requests
from tiny_models import make_checkpoint, parse_tiny

NAME = "nemotron_nas"
TINY: dict[str, Any] = dict(load_architecture(NAME).tiny)
BLOCKS: list[dict[str, dict[str, Any]]] = TINY["block_configs"]


def test_only_layers_with_attention_have_a_cache_each_of_its_own_size(tmp_path: Path) -> None:
    config = parse_tiny(NAME)
    assert config.cached_layers == (0, 2, 3) and config.kv_shapes == ((2, 12), (4, 12), (1, 12))
    assert [config.ffn_width(layer) for layer in range(4)] == [72, 56, 0, 256]
    directory = make_checkpoint(tmp_path, TINY, seed=5, dtype="bfloat16")
    alone = Server.load(directory).alone(requests())
    options = {"max_num_batched_tokens": 19, "num_threads": 2, "num_gpu_blocks_override": 8}
    answers, stats = Server.load(directory, **options).serve(requests(), stagger=1)
    assert_same_answers(answers, alone)
    assert preempted(stats, answers)


def test_what_published_files_say_besides() -> None:
    """Of attention that sees sinks or a window, which no layer has; and widths as factors of the hidden size."""
    nothing = {"num_sink_tokens": None, "sparsify": None, "unshifted_sink": False, "window_length": None}
    nothing |= {"use_prefill_window_in_sink_attention": False, "replace_with_linear": False}
    more = [
        {
            "attention": {**block["attention"], **nothing},
            "ffn": {
                **block["ffn"],
                "replace_with_linear": False,
                "sparsify": None,
                "gated": True,
                "hidden_act": "silu",
            },
        }
        for block in BLOCKS
    ]
    code = {
        "AutoConfig": "configuration_decilm.DeciLMConfig",
        "AutoModelForCausalLM": "modeling_decilm.DeciLMForCausalLM",
    }
    assert parse_tiny(NAME, block_configs=more, auto_map=code, pretraining_tp=1) == parse_tiny(NAME)
    wide = [{"attention": {"n_heads_in_group": 8, "no_op": False}, "ffn": {"ffn_mult": 2.625, "no_op": False}}]
    found = parse_tiny(NAME, block_configs=wide, hidden_size=8192, num_attention_heads=64, num_hidden_layers=1)
    assert (found.kv_shapes, found.ffn_width(0)) == (((8, 12),), 14336)


def _with(layer: int, part: str, **said: Any) -> dict[str, Any]:
    blocks = [{**block, part: {**block[part], **said}} if i == layer else block for i, block in enumerate(BLOCKS)]
    return {"block_configs": blocks}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_configs": BLOCKS[:3]}, "block_configs=.* must have an entry of each of num_hidden_layers=4"),
        ({"block_configs": [1, 2, 3, 4]}, "block_configs=.* must be a list of objects"),
        ({"block_configs": [BLOCKS[1]] * 4}, "some layer must have attention, and an FFN"),
        (_with(0, "attention", replace_with_linear=True), r"block_configs\[0\].attention.*'replace_with_linear': True"),
        (_with(0, "attention", window_length=64), r"block_configs\[0\].attention.*'window_length': 64"),
        (_with(0, "attention", n_heads_in_group=3), "n_heads_in_group=3 must divide num_attention_heads=4"),
        (_with(3, "ffn", replace_with_linear=True), r"block_configs\[3\].ffn.*'replace_with_linear': True"),
        (_with(3, "ffn", gated=False), r"block_configs\[3\].ffn.*'gated': False"),
        (_with(3, "ffn", hidden_act="relu2"), r"block_configs\[3\].ffn.*'hidden_act': 'relu2'"),
        (_with(1, "ffn", intermediate_size=None), r"block_configs\[1\].ffn: intermediate_size"),
        ({"intermediate_size": 64}, "'intermediate_size': 64"),
    ],
)
def test_what_is_not_computed_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny(NAME, **changes)
