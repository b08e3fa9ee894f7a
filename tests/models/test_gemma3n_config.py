"""What Gemma 3n says of single layers: caches and cuts as transformers has them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from albireo import LLM, SamplingParams
from albireo.errors import ModelError, UnsupportedFeature
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from tiny_models import make_checkpoint, parse_tiny, random_weights, write_safetensors

#: As published; E4B says nothing but what is the same.
E2B = {"num_hidden_layers": 30, "intermediate_size": [8192] * 30, "num_kv_shared_layers": 10, "layer_types": None}
E4B = {"num_hidden_layers": 35, "intermediate_size": 16384, "num_kv_shared_layers": None, "layer_types": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"altup_active_idx": 1}, "altup_active_idx=1 is not supported"),
        ({"altup_correct_scale": False}, "'altup_correct_scale': False"),
        ({"intermediate_size": [72] * 4}, "intermediate_size=.* or one for each of 5 layers"),
        ({"intermediate_size": [72] * 4 + [80]}, "FFNs of all layers must have one width"),
        ({"activation_sparsity_pattern": [0.5] * 4}, "activation_sparsity_pattern=.* a number for each of 5 layers"),
        ({"activation_sparsity_pattern": [1.0] * 5}, "must be a list of numbers from 0 to 0.9999"),
        ({"vocab_size": 9000}, "vocab_size_per_layer_input=131 is not supported; at most 4096"),
        ({"num_kv_shared_layers": 4}, r"must leave a layer of each of \['full_attention', 'sli"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
    ],
)
def test_what_is_not_computed_of_gemma_3n(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("gemma3n_text", **changes)


@pytest.mark.parametrize("given", [E2B, E4B])
def test_layers_are_those_of_transformers(given: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from transformers_models import transformers

    ours = parse_tiny("gemma3n_text", **given, activation_sparsity_pattern=None)
    said = {name: value for name, value in given.items() if value is not None}
    theirs = transformers.AutoConfig.for_model("gemma3n_text", **said)
    modes = theirs.kv_sharing_modes
    assert [ours.shares(layer) for layer in range(len(modes))] == [mode == "reuse" for mode in modes]
    assert [window is None for window in ours.windows] == [kind == "full_attention" for kind in theirs.layer_types]
    streams = ours.blocks.streams
    assert streams is not None and ours.ffn_width(0) == theirs.intermediate_size[0]
    normal = torch.distributions.normal.Normal(0, 1)
    for cut, sparsity in zip(streams.cuts, theirs.activation_sparsity_pattern, strict=True):
        assert (cut is None) == (sparsity == 0.0)
        if cut is not None:
            np.testing.assert_allclose(cut, float(normal.icdf(torch.tensor(sparsity))), rtol=1e-5)


def test_the_text_part_of_a_whole(tmp_path: Path) -> None:
    """As published: the tower that sees is left where it lies, and pictures are refused by name."""
    tiny = dict(load_architecture("gemma3n_text").tiny)
    make_checkpoint(tmp_path, tiny, seed=5)
    alone, tensors = load_config(tmp_path), random_weights(tiny, 5)
    kept = {key: value for key, value in tiny.items() if key not in ("architectures", "eos_token_id", "torch_dtype")}
    whole: dict[str, Any] = {"architectures": ["Gemma3nForConditionalGeneration"], "model_type": "gemma3n"}
    whole |= {"text_config": kept | {"altup_lr_multiplier": 1.0}, "eos_token_id": [1, 106], "torch_dtype": "float32"}
    whole |= {"audio_config": {"hidden_size": 8}, "vision_config": {"hidden_size": 8}, "image_token_id": 138}
    whole |= {"audio_soft_tokens_per_image": 188, "vision_soft_tokens_per_image": 256, "audio_token_id": 137}
    whole |= {"boi_token_id": 5, "eoi_token_id": 6, "boa_token_id": 7, "eoa_token_id": 8, "initializer_range": 0.02}
    renamed = {f"model.language_model.{name.removeprefix('model.')}": tensor for name, tensor in tensors.items()}
    for tower in ("vision_tower.timm_model.a", "audio_tower.b", "embed_vision.c", "embed_audio.d"):
        renamed[f"model.{tower}.weight"] = np.ones((2, 2), np.float32)
    write_safetensors(tmp_path / "model.safetensors", renamed, "float32")
    (tmp_path / "config.json").write_text(json.dumps(whole))
    assert load_config(tmp_path) == alone
    with open_checkpoint(tmp_path, build_graph(alone, 64)) as checkpoint:
        assert checkpoint.names == tuple(sorted(tensors))
    llm = LLM(str(tmp_path), skip_tokenizer_init=True, num_gpu_blocks_override=16)
    (output,) = llm.generate([{"prompt_token_ids": [5, 6, 7]}], SamplingParams(max_tokens=2, ignore_eos=True))
    assert len(output.outputs[0].token_ids) == 2
    picture = {"prompt_token_ids": [5, 138, 7], "multi_modal_data": {"image": Image.new("RGB", (28, 28))}}
    with pytest.raises(UnsupportedFeature, match="1 images, and this model hears, and sees none"):
        llm.generate([picture], SamplingParams(max_tokens=2))
