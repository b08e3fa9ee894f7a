"""Traces: times, lengths and shared prefixes come out as the file has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.bench.serving.trace import TimedTrace
from albireo.errors import ConfigError
from albireo.text.tokenizer import Tokenizer

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "traces"
MOONCAKE, AZURE = SHARED / "mooncake_conversation_trace.jsonl", SHARED / "AzureLLMInferenceTrace_conv_2023.csv"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_directory(BUNDLED)


def needs(path):
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def common(a, b):
    """Tokens that two prompts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@pytest.fixture
def trace(tmp_path):
    rows = [
        {"timestamp": 2000, "input_length": 10, "output_length": 3, "hash_ids": [7, 8, 9]},
        {"timestamp": 2500, "input_length": 12, "output_length": 1, "hash_ids": [7, 8, 2]},
        {"timestamp": 4000, "input_length": 3, "output_length": 2, "hash_ids": [7]},
        {"timestamp": 4000, "input_length": 5, "output_length": 2},
        {"timestamp": 5000, "input_length": 5, "output_length": 2},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "t.jsonl"


def test_equal_hash_ids_are_equal_tokens(trace, tokenizer):
    found = TimedTrace(path=trace, chunk_hash_size=4, sec_multiplier=0.001).requests(9, 0, tokenizer)
    assert [each.arrival_s for each in found] == pytest.approx([0.0, 0.5, 2.0, 2.0, 3.0])
    assert [(len(each.prompt), each.prompt_len, each.output_len) for each in found] == [
        (10, 10, 3),
        (12, 12, 1),
        (3, 3, 2),
        (5, 5, 2),
        (5, 5, 2),
    ]
    prompts = [each.prompt for each in found]
    assert common(prompts[0], prompts[1]) == 8
    assert prompts[2] == prompts[0][:3]
    # Rows without hash ids share nothing, not even with each other.
    assert common(prompts[3], prompts[4]) < 3
    assert not tokenizer.special_ids & {token for prompt in prompts for token in prompt}
    assert prompts == [each.prompt for each in TimedTrace(path=trace, chunk_hash_size=4).requests(9, 0, tokenizer)]
    assert prompts != [each.prompt for each in TimedTrace(path=trace, chunk_hash_size=4).requests(9, 1, tokenizer)]


def test_scaled(trace):
    rows = TimedTrace(path=trace, chunk_hash_size=2, sec_multiplier=0.01, len_multiplier=0.5).rows(3)
    assert [(row.time_s, row.input_len, row.output_len) for row in rows] == [(0, 5, 2), (5, 6, 1), (20, 2, 1)]


def test_times_can_be_left_out(trace, tokenizer):
    found = TimedTrace(path=trace, chunk_hash_size=4, has_times=False).requests(2, 0, tokenizer)
    assert [each.arrival_s for each in found] == [None, None]


def test_fields_of_other_names(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"t": 1, "in": 4, "out": 2, "h": [1]}\n')
    labels = {"timestamp": "t", "input_length": "in", "output_length": "out", "hash_ids": "h"}
    assert TimedTrace(path=tmp_path / "t.jsonl", labels=labels).rows(1)[0].hash_ids == (1,)
    with pytest.raises(ConfigError, match="line 1: has no 'timestamp'; it has t, in, out, h"):
        TimedTrace(path=tmp_path / "t.jsonl").rows(1)


def test_mooncake_shares_what_its_hash_ids_say(tokenizer):
    trace = TimedTrace(path=needs(MOONCAKE), chunk_hash_size=16, sec_multiplier=0.001, len_multiplier=1 / 32)
    rows, found = trace.rows(140), trace.requests(140, 0, tokenizer)
    source = [json.loads(line) for line in MOONCAKE.read_text().splitlines()[:140]]
    assert [each.arrival_s for each in found] == pytest.approx([row["timestamp"] / 1000 for row in source])
    assert [len(each.prompt) for each in found] == [-(-row["input_length"] // 32) for row in source]
    shared = 0
    for a in range(len(rows)):
        for b in range(a):
            same = common(source[a]["hash_ids"], source[b]["hash_ids"])
            least = min(same * 16, rows[a].input_len, rows[b].input_len)
            assert least <= common(found[a].prompt, found[b].prompt) <= least + 3  # and chance
            shared += same > 1
    assert shared > 0


def test_azure(tokenizer):
    found = TimedTrace(path=needs(AZURE), len_multiplier=0.1).requests(3, 0, tokenizer)
    assert [each.arrival_s for each in found] == pytest.approx([0.0, 4.314579, found[2].arrival_s], abs=1e-5)
    assert [(len(each.prompt), each.output_len) for each in found[:2]] == [(38, 5), (40, 11)]
    assert common(found[0].prompt, found[1].prompt) < 3


def test_the_whole_of_every_published_trace_can_be_read():
    counts = {
        "AzureLLMInferenceTrace_conv_2023.csv": (19_366, 1, 3502),
        "AzureLLMInferenceTrace_code_2023.csv": (8_819, 1, 3436),
        "mooncake_synthetic_trace.jsonl": (3_993, 0.001, 1022),
    }
    for name, (num_rows, sec, length_s) in counts.items():
        rows = TimedTrace(path=needs(SHARED / name), chunk_hash_size=512, sec_multiplier=sec).rows(10**6)
        assert len(rows) == num_rows
        assert max(row.time_s for row in rows) == pytest.approx(length_s, abs=1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.jsonl", "", "holds no request"),
        ("t.jsonl", "nothing", "line 1: is not JSON"),
        ("t.jsonl", '{"timestamp": 0, "input_length": "x", "output_length": 1}', "input_length is 'x'"),
        ("t.jsonl", '{"timestamp": 0, "input_length": -4, "output_length": 1}', "input_length is -4"),
        ("t.jsonl", '{"timestamp": 0, "input_length": 4, "output_length": 1, "hash_ids": ["a"]}', "no list of whole"),
        ("t.jsonl", '{"timestamp": 0, "input_length": 800, "output_length": 1, "hash_ids": [1, 2]}', "hash-size 400"),
        ("t.csv", "TIMESTAMP,Tokens\n", "has no column ContextTokens"),
        ("t.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,1\n", "line 2: TIMESTAMP is 'noon'"),
        ("t.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,,1\n", "ContextTokens is ''"),
    ],
)
def test_broken_traces(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        TimedTrace(path=tmp_path / name).rows(5)


@pytest.mark.parametrize("fields", [{"chunk_hash_size": 0}, {"sec_multiplier": 0.0}, {"len_multiplier": float("inf")}])
def test_scales_that_are_none(fields):
    with pytest.raises(ConfigError, match="is not allowed"):
        TimedTrace(path=Path("t"), **fields)
