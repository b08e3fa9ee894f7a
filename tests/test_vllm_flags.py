"""Arguments of vLLM's LLM: taken where they ask for what is so anyway, else what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.vllm_flags import argument_words, known


@pytest.mark.parametrize(
    "given",
    [
        {"trust_remote_code": True},
        {"trust_remote_code": False},
        {"enable_chunked_prefill": True},
        {"disable_log_stats": False},
        {"enable_sleep_mode": True},
        {"runner": "pooling", "convert": "embed"},
        {"task": "classify"},
        {"tokenizer_mode": "auto", "load_format": "auto", "revision": "main"},
        {"pipeline_parallel_size": 1, "cpu_offload_gb": 0},
        {"distributed_executor_backend": "mp"},
        {"logits_processors": [], "kv_transfer_config": None, "rope_scaling": {}},
        {"seed": None, "block_size": None, "enable_prefix_caching": None, "gpu_memory_utilization": None},
    ],
)
def test_what_asks_for_what_is_so_anyway_is_taken(given: dict[str, Any]) -> None:
    assert EngineConfig.from_kwargs(max_num_seqs=3, **given) == EngineConfig(max_num_seqs=3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cpu_offload_gb": 4}, "cpu_offload_gb is vLLM's; here it is quantization, to need less memory"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size is vLLM's, and there is no such thing here"),
        ({"compilation_config": 3}, "compilation_config is not needed: a model is compiled for this machine"),
        ({"enable_chunked_prefill": False}, "enable_chunked_prefill=False is not taken: prompts are computed in"),
        ({"revision": "v2"}, "download that revision first"),
        ({"served_model_name": "x"}, "albireo serve --served-model-name"),
        ({"distributed_executor_backend": "ray"}, "albireo serve has ray"),
        ({"guided_decoding_backend": "xgrammar"}, "here it is structured_outputs_backend"),
        ({"structured_outputs_config": {"backend": "xgrammar"}}, "here it is structured_outputs_backend"),
        ({"pooler_config": {"pooling_type": "MEAN"}}, "PoolingParams say it"),
        ({"rope_theta": 5}, """here it is hf_overrides '{"rope_theta": …}'"""),
        ({"ir_op_priority": "x"}, "says how vLLM computes; leave it out"),
        ({"max_num_seq": 3}, "did you mean max_num_seqs"),
        ({"hear_everything": True}, "unknown setting 'hear_everything'"),
    ],
)
def test_what_asks_for_something_else_is_told_what_it_is_here(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EngineConfig.from_kwargs(**given)
    assert said in str(caught.value)


def test_every_flag_is_known_as_an_argument_and_none_is_spelled_as_a_flag() -> None:
    for flag in known():
        if flag.startswith("--") and not flag.startswith("--no-"):
            name = flag.removeprefix("--").replace("-", "_")
            said = argument_words(name, "something")
            assert said and said.startswith(name), flag
