"""Text parts of models that read images, against transformers' whole models, as it saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.graph.ops import Growth
from albireo.json_file import read_json
from albireo.models import build_graph, load_config
from albireo.models.settings.quantized import quantization_format, without_quantization
from albireo.models.settings.text_part import (
    inner,
    rope_axes,
    sees_images_beyond_windows,
    sees_images_both_ways,
    text_settings,
)
from albireo.models.vision.tower import check_tensors, open_tower, tower_tensors
from backends.reference.test_interpret import Model, assert_same_logits, prompt
from models.test_fused_experts import turn_experts
from published_internvl import publish
from tiny_wholes import CHUNKS, WHOLES, save

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.parametrize("name", WHOLES)
def test_logits_are_those_of_the_whole(name: str, tmp_path: Path) -> None:
    import torch

    theirs = save(name, tmp_path)
    tokens = prompt(WHOLES[name]["text_config"], 37, 5)
    with torch.no_grad():
        # transformers' whole of Llama 4 asks what it made of images, where there are none, too
        answering = theirs.language_model if name == "llama4" else theirs
        wanted = answering(input_ids=torch.tensor([tokens])).logits[0].numpy()
    assert_same_logits(Model(tmp_path).logits(tokens), wanted)


def test_hyperclova_x_vision_as_published(tmp_path: Path) -> None:
    """Its text part is a model within a model, and the whole has another name."""
    from safetensors.torch import load_file, save_file

    save("hyperclovax_vision_v2", tmp_path)
    tokens = prompt(WHOLES["hyperclovax_vision_v2"]["text_config"], 20, 6)
    wanted = Model(tmp_path).logits(tokens)
    tensors, head = load_file(tmp_path / "model.safetensors"), "model.language_model.lm_head."
    inner = ("model.language_model.", "model.language_model.model.")
    named = {n if n.startswith(head) else n.replace(*inner): t for n, t in tensors.items()}
    assert named.keys() != tensors.keys()
    save_file(named, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["model_type"] = "qwen2_5_vl"
    config |= {"model_type": "vlm", "architectures": ["HCXVisionV2ForCausalLM"], "mm_projector_type": "linear"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (Model(tmp_path).logits(tokens) == wanted).all()


def as_published(directory: Path, rope: dict[str, Any]) -> None:
    """A model of Qwen2-VL as its first files are: keys of text among those of the whole, names of a model of text."""
    from safetensors.torch import load_file, save_file

    config = json.loads((directory / "config.json").read_text())
    of_text = config.pop("text_config")
    theta = of_text.pop("rope_parameters")["rope_theta"]
    left_out = ("model_type", "layer_types", "dtype", "tie_word_embeddings")
    flat = {key: value for key, value in of_text.items() if key not in left_out}
    flat |= {"rope_theta": theta, "rope_scaling": rope, "torch_dtype": config.pop("dtype"), "vision_token_id": 5}
    config["vision_config"] |= {"model_type": config["model_type"], "in_chans": 3, "spatial_patch_size": 14}
    (directory / "config.json").write_text(json.dumps({**config, **flat}))
    tensors = load_file(directory / "model.safetensors")
    prefixes = (("model.language_model.", "model."), ("model.visual.", "visual."))
    for old, new in prefixes:
        tensors = {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in tensors.items()}
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize(
    "rope", [{"type": "mrope"}, {"type": "default", "rope_type": "default"}, {"type": "mrope", "rope_type": "default"}]
)
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_files_of_qwen_as_they_were_published(name: str, rope: dict[str, Any], tmp_path: Path) -> None:
    save(name, tmp_path)
    tokens = prompt(WHOLES[name]["text_config"], 20, 6)
    wanted, tower = Model(tmp_path).logits(tokens), open_tower(read_json(tmp_path / "config.json"), "float32", "here")
    axes = rope_axes(read_json(tmp_path / "config.json"))
    as_published(tmp_path, {"mrope_section": CHUNKS["mrope_section"], **rope})
    config = read_json(tmp_path / "config.json")
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    assert rope_axes(config) == axes == (0, 1, 2, 2, 2)
    assert open_tower(config, "float32", "here") == tower
    check_tensors(tower, tower_tensors(tmp_path))


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_files_of_qwen_as_they_were_saved_again(name: str, tmp_path: Path) -> None:
    """By transformers 4.52 to 4.56, as olmOCR 2 and whatever was trained with them: keys of text in either part, of
    which the whole's are as they were published, and tokens of images, too."""
    save(name, tmp_path)
    path, tokens = tmp_path / "config.json", prompt(WHOLES[name]["text_config"], 20, 6)
    config = read_json(path)
    text = config["text_config"]
    text |= {"layer_types": ["full_attention"] * text["num_hidden_layers"], "sliding_window": None}
    path.write_text(json.dumps(config))
    wanted = Model(tmp_path).logits(tokens)
    theta = text.pop("rope_parameters")["rope_theta"]
    text |= {"rope_theta": theta, "rope_scaling": {**CHUNKS, "type": "default"}, "vision_token_id": 5}
    text["rope_scaling"].pop("rope_theta")
    text |= {"image_token_id": None, "vision_start_token_id": 3, "use_sliding_window": False}
    flat = {key: value for key, value in text.items() if key not in ("model_type", "layer_types", "image_token_id")}
    path.write_text(json.dumps({**flat, **config, "sliding_window": 32768, "use_sliding_window": False}))
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    path.write_text(json.dumps({**flat, **config, "sliding_window": 32768, "num_hidden_layers": 7}))
    with pytest.raises(UnsupportedModel, match="'num_hidden_layers': 7"):
        load_config(tmp_path)


def test_files_of_glm_as_they_were_published(tmp_path: Path) -> None:
    """Keys of text among those of the whole, or beside ids of tokens; what guesses further tokens behind the layers."""
    from safetensors.torch import load_file, save_file

    save("glm4v", tmp_path)
    path, tokens = tmp_path / "config.json", prompt(WHOLES["glm4v"]["text_config"], 20, 6)
    wanted, config = Model(tmp_path).logits(tokens), json.loads(path.read_text())
    tower, axes = open_tower(config, "float32", "here"), rope_axes(config)
    of_text = config.pop("text_config")
    rope = of_text.pop("rope_parameters")
    flat = {key: value for key, value in of_text.items() if key not in ("model_type", "dtype", "tie_word_embeddings")}
    flat |= {"rope_theta": rope["rope_theta"], "torch_dtype": config.pop("dtype"), "attention_bias": True}
    flat |= {"rope_scaling": {"type": "default", "mrope_section": rope["mrope_section"]}, "partial_rotary_factor": 1.0}
    config["vision_config"] |= {"model_type": "glm4v", "hidden_dropout_prob": 0.0}
    path.write_text(json.dumps({**config, **flat, "image_start_token_id": 3, "video_end_token_id": 4}))
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    assert rope_axes(read_json(path)) == axes == (0, 0, 1, 1, 1, 2, 2, 2)
    assert open_tower(read_json(path), "float32", "here") == tower
    # of 4.6V the tower has the name of 4.1V's
    assert open_tower({**read_json(path), "model_type": "glm46v"}, "float32", "here") == tower

    ocr = tmp_path / "ocr"
    save("glm_ocr", ocr)
    wanted, config = Model(ocr).logits(tokens), json.loads((ocr / "config.json").read_text())
    more = {"num_nextn_predict_layers": 1, "image_token_id": 5, "image_end_token_id": 6}
    config["text_config"] |= {**more, "attention_bias": False}
    (ocr / "config.json").write_text(json.dumps(config))
    tensors = load_file(ocr / "model.safetensors")
    guess = tensors["model.language_model.layers.0.input_layernorm.weight"].clone()
    save_file({**tensors, "model.language_model.layers.2.enorm.weight": guess}, ocr / "model.safetensors")
    np.testing.assert_array_equal(Model(ocr).logits(tokens), wanted)


def test_files_of_paddleocr_vl_as_they_were_published(tmp_path: Path) -> None:
    """Keys of text among those of the whole; what is said of a tower of another name, and tensors nobody reads."""
    from safetensors.torch import load_file, save_file

    save("paddleocr_vl", tmp_path)
    path, tokens = tmp_path / "config.json", prompt(WHOLES["paddleocr_vl"]["text_config"], 20, 6)
    wanted, config = Model(tmp_path).logits(tokens), json.loads(path.read_text())
    tower, axes = open_tower(config, "float32", "here"), rope_axes(config)
    of_text = config.pop("text_config")
    rope = of_text.pop("rope_parameters")
    flat = {key: value for key, value in of_text.items() if key not in ("model_type", "dtype", "tie_word_embeddings")}
    flat |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": {**rope, "type": "default"}, "sliding_window": None}
    flat |= {"torch_dtype": config.pop("dtype"), "use_flash_attention": False, "weight_share_add_bias": True}
    flat |= {"compression_ratio": 1.0, "hidden_dropout_prob": 0.0, "ignored_index": -100, "max_sequence_length": None}
    flat |= {"use_3d_rope": True, "rope_is_neox_style": True, "auto_map": {"AutoModel": "modeling.PaddleOCRVL"}}
    of_tower = {"model_type": "paddleocr_vl", "temporal_patch_size": 2, "tokens_per_second": 2, "pad_token_id": 0}
    config["vision_config"] |= {**of_tower, "auto_map": {"AutoModel": "modeling.SiglipVisionModel"}}
    path.write_text(json.dumps({**config, **flat}))
    tensors = load_file(tmp_path / "model.safetensors")
    prefixes = {"model.language_model.": "model.", "model.visual.": "visual.", "model.projector.": "mlp_AR."}
    for old, new in prefixes.items():
        tensors = {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in tensors.items()}
    unread = "visual.vision_model.embeddings.packing_position_embedding.weight", "visual.vision_model.head.probe"
    more = {name: tensors["model.embed_tokens.weight"][:2].clone() for name in unread}
    save_file({**tensors, **more}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    assert rope_axes(read_json(path)) == axes == (0, 0, 1, 1, 2, 2)
    assert open_tower(read_json(path), "float32", "here") == tower
    check_tensors(tower, tower_tensors(tmp_path))


def test_files_of_lighton_ocr_as_they_were_published(tmp_path: Path) -> None:
    """Under the name of Mistral 3, with its keys; the class tells what it is."""
    save("lighton_ocr", tmp_path)
    path, tokens = tmp_path / "config.json", prompt(WHOLES["lighton_ocr"]["text_config"], 20, 6)
    wanted, config = Model(tmp_path).logits(tokens), json.loads(path.read_text())
    more = {"model_type": "mistral3", "architectures": ["LightOnOCRForConditionalGeneration"]}
    more |= {"multimodal_projector_bias": False, "projector_hidden_act": "gelu", "vision_feature_layer": -1}
    path.write_text(json.dumps({**config, **more}))
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    assert inner(read_json(path))["model_type"] == "lighton_ocr"
    assert open_tower(inner(read_json(path)), "float32", "here") == open_tower(config, "float32", "here")
    path.write_text(json.dumps({**config, **more, "architectures": [["LightOnOCRForConditionalGeneration"]]}))
    with pytest.raises(ModelError, match=r"architectures=.* must be a list of strings"):
        load_config(tmp_path)


@pytest.mark.parametrize("name", ["internvl", "internvl of llama", "internvl of phi3", "internvl of qwen3_moe"])
def test_files_of_internvl_as_they_were_published(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    tokens = prompt(WHOLES[name]["text_config"], 20, 6)
    wanted = Model(tmp_path).logits(tokens)
    published = publish(tmp_path)
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    assert published["model_type"] == "internvl_chat" and "text_config" not in published
    read = load_config(tmp_path)
    skywork = {**published, "model_type": "skywork_chat", "architectures": ["SkyworkR1VChatModel"]}
    (tmp_path / "config.json").write_text(json.dumps(skywork))
    assert load_config(tmp_path) == read and inner(skywork)["model_type"] == "internvl_chat"
    for changes, words in (
        (
            {"llm_config": {**published["llm_config"], "model_type": "gpt2"}},
            "its model_type must be qwen2 or llama",
        ),
        ({"mlp_checkpoint": 3}, "'mlp_checkpoint': 3"),
        ({"architectures": ["InternVLChat2"]}, "of a model_type 'internvl_chat': InternVLChatModel"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**published, **changes}))
        with pytest.raises(UnsupportedModel, match=words):
            load_config(tmp_path)


def test_a_part_may_say_how_its_weights_are_quantized(tmp_path: Path) -> None:
    """Whoever quantizes the language model alone writes it there."""
    save("internvl", tmp_path)
    published, path = publish(tmp_path), tmp_path / "config.json"
    wanted, said = load_config(tmp_path), {"quantization_config": {"quant_method": "fp8"}}
    path.write_text(json.dumps({**published, "llm_config": {**published["llm_config"], **said}}))
    assert load_config(tmp_path) == wanted and quantization_format(tmp_path) is not None
    for parts in (("text_config",), ("llm_config",), ("thinker_config",), ("thinker_config", "text_config")):
        config: dict[str, Any] = {"quantization_config": {"quant_method": "exl2"}}
        for part in reversed(parts):
            config = {part: config, "vision_config": {"quantization_config": 3}}
        assert without_quantization(config).keys() == config.keys()
        with pytest.raises(UnsupportedModel, match=rf"{'[.]'.join(parts)}\.quantization_config: quant_method='exl2'"):
            quantization_format(tmp_path, config)
        assert quantization_format(tmp_path, without_quantization(config)) is None


def test_experts_that_a_tower_would_have_are_refused(tmp_path: Path) -> None:
    save("internvl", tmp_path)
    published = publish(tmp_path)
    published["vision_config"] |= {"use_moe": True}
    with pytest.raises(UnsupportedModel, match=r"vision_config: .*'use_moe': True"):
        open_tower(inner(published), "float32", "config.json")


def test_heads_of_internvl_are_tied_where_its_text_part_says_so(tmp_path: Path) -> None:
    """As before transformers 5, which writes it of the whole."""
    for name in ("internvl", "internvl of llama"):
        folder = tmp_path / name
        save(name, folder)
        tokens, path = prompt(WHOLES[name]["text_config"], 20, 6), folder / "config.json"
        wanted, config = Model(folder).logits(tokens), json.loads(path.read_text())
        is_tied = config.pop("tie_word_embeddings")
        config["text_config"] |= {"tie_word_embeddings": True if is_tied else None}
        path.write_text(json.dumps(config))
        np.testing.assert_array_equal(Model(folder).logits(tokens), wanted)


def test_files_of_hunyuan_ocr_as_they_were_published(tmp_path: Path) -> None:
    """Keys of text among those of the whole, a rotation of another name, and names of tensors as in the files that
    transformers writes."""
    save("hunyuan_vl", tmp_path)
    path, tokens = tmp_path / "config.json", prompt(WHOLES["hunyuan_vl"]["text_config"], 20, 6)
    wanted, config = Model(tmp_path).logits(tokens), json.loads(path.read_text())
    tower, axes = open_tower(config, "float32", "here"), rope_axes(config)
    of_text = config.pop("text_config")
    rope = of_text.pop("rope_parameters")
    flat = {key: value for key, value in of_text.items() if key not in ("model_type", "dtype", "tie_word_embeddings")}
    flat |= {"rope_theta": rope["rope_theta"], "image_start_token_id": 3, "use_cla": False, "num_experts": 1}
    flat |= {"rope_scaling": {"type": "xdrope", "alpha": rope["alpha"], "xdrope_section": rope["mrope_section"]}}
    path.write_text(json.dumps({**config, **flat}))
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    assert rope_axes(read_json(path)) == axes == (0, 0, 1, 2, 2, 2, 3, 3)
    assert open_tower(read_json(path), "float32", "here") == tower
    rope = {"mrope_section": [3, 3, 2], "rope_type": "dynamic"}
    assert rope_axes({"model_type": "hunyuan_vl", "rope_parameters": rope}) == (1, 1, 1, 2, 2, 2, 3, 3)


def test_files_of_nemotron_omni_as_they_were_published(tmp_path: Path) -> None:
    """Under another name, with other names of keys; what hears is left where it lies."""
    save("nemotron_h_omni", tmp_path)
    path, tokens = tmp_path / "config.json", prompt(WHOLES["nemotron_h_omni"]["text_config"], 20, 6)
    wanted, config = Model(tmp_path).logits(tokens), json.loads(path.read_text())
    tower = open_tower(config, "float32", "here")
    named = {"text_config": "llm_config", "vision_hidden_size": "vit_hidden_size", "audio_config": "sound_config"}
    published = {named.get(key, key): value for key, value in config.items()}
    kind = "NemotronH_Nano_Omni_Reasoning_V3"
    published |= {"model_type": kind, "architectures": [kind], "img_context_token_id": 3, "sound_context_token_id": 4}
    published |= {"sound_config": {"hidden_size": 8}, "norm_mean": [0.5] * 3, "ps_version": "v2"}
    published["vision_config"] |= {"model_type": "", "version": "radio_v2.5-h", "args": {"cpe_max_size": 2048}}
    path.write_text(json.dumps(published))
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    assert open_tower(inner(read_json(path)), "float32", "here") == tower
    guesses = {**inner(read_json(path))["text_config"], "num_nextn_predict_layers": 1}
    normed = open_tower({**inner(read_json(path)), "text_config": guesses}, "float32", "here")
    assert "vision_projector.vision_final_layernorm.bias" in normed.graph().constants


def test_axes_of_qwen_where_files_do_not_say() -> None:
    for name, sections in {"qwen2_vl": (16, 24, 24), "qwen2_5_vl": (16, 24, 24)}.items():
        axes = rope_axes({"model_type": name, "hidden_size": 8})
        assert axes == tuple(axis for axis, count in enumerate(sections) for _ in range(count))


def test_experts_may_lie_with_columns_first_or_rows(tmp_path: Path) -> None:
    """As published, and as transformers has them in memory: the same model."""
    save("qwen3_vl_moe", tmp_path)
    tokens = prompt(WHOLES["qwen3_vl_moe"]["text_config"], 20, 6)
    wanted = Model(tmp_path).logits(tokens)
    turn_experts(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3_vl_moe", {"norm_topk_prob": False}, "text_config.norm_topk_prob=False is not supported"),
        ("qwen2_5_vl", {"model_type": "qwen2_vl_text"}, "its model_type must be qwen2_5_vl_text"),
        ("qwen3_vl", {"model_type": "qwen2"}, "its model_type must be qwen3_vl_text"),
        ("internvl", {"model_type": "gemma3_text"}, "its model_type must be qwen2 or llama or qwen3 or qwen3_moe"),
        ("llava_next", {"model_type": "gemma"}, "its model_type must be llama or mistral or qwen2 or granite"),
        ("llava_onevision", {"model_type": "llama"}, "its model_type must be qwen2"),
        ("exaone4_5", {"model_type": "exaone"}, "its model_type must be exaone4 or exaone4_5_text"),
        ("minicpmv4_6", {"model_type": "qwen3"}, "its model_type must be qwen3_5_text"),
        ("paligemma", {"model_type": "gemma3_text"}, "its model_type must be gemma or gemma2"),
        ("paligemma", {"use_bidirectional_attention": False}, "use_bidirectional_attention=False is not supported"),
        ("qianfan_ocr", {"model_type": "qwen2"}, "its model_type must be qwen3"),
        ("lighton_ocr", {"model_type": "qwen2"}, "its model_type must be qwen3"),
        ("glm4v", {"attention_bias": False}, "text_config.attention_bias=False is not supported"),
        ("glm_ocr", {"attention_bias": True}, "text_config.attention_bias=True is not supported"),
        ("glm4v_moe", {"use_qk_norm": True, "sliding_window": 4}, "'sliding_window': 4"),
        ("paddleocr_vl", {"use_bias": True}, "text_config.use_bias=True is not supported"),
        ("paddleocr_vl", {"compression_ratio": 2.0}, "text_config.compression_ratio=2.0 is not supported"),
        ("mistral3", {"model_type": "qwen2"}, "its model_type must be mistral or ministral3 or mistral4 or llama"),
    ],
)
def test_what_a_text_part_does_not_do(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = {"model_type": name, **WHOLES[name], "torch_dtype": "float32"}
    config["text_config"] = config["text_config"] | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=message):
        load_config(tmp_path)


def test_queries_grow_behind_the_context_of_pretraining(tmp_path: Path) -> None:
    save("mistral3 of ministral3", tmp_path)
    for length, growth in ((128, None), (129, Growth(0.1, 128))):
        ropes = {node.attrs["rope"] for node in build_graph(load_config(tmp_path), length).nodes if node.op == "rope"}
        assert {rope.growth for rope in ropes} == {None, growth}


def test_logits_of_cohere_are_multiplied_as_those_of_its_text_models() -> None:
    """Which transformers' wholes have not done since they have no head of their text part."""
    for name in ("aya_vision", "cohere2_vision"):
        data = {"model_type": name, **WHOLES[name]}
        data["text_config"] = data["text_config"] | {"logit_scale": 0.25}
        assert text_settings(data, "config.json")["logit_scale"] == 0.25


def test_which_tokens_of_images_see_each_other() -> None:
    """Gemma 4 says it of its text part: E2B and E4B say nothing, 26B-A4B and 31B vision."""
    for data, both_ways, beyond_windows in (
        ({"model_type": "gemma3", "text_config": {}}, True, True),
        ({"model_type": "gemma4", "text_config": {"use_bidirectional_attention": "vision"}}, True, False),
        ({"model_type": "gemma4", "text_config": {"use_bidirectional_attention": None}}, False, False),
        ({"model_type": "gemma4", "text_config": {}}, False, False),
        ({"model_type": "gemma4_unified", "text_config": {"use_bidirectional_attention": None}}, False, False),
        ({"model_type": "gemma4_unified", "text_config": {}}, True, False),
        ({"model_type": "paligemma", "text_config": {}}, True, True),
        ({"model_type": "mistral3", "text_config": {"use_bidirectional_attention": "vision"}}, False, False),
        ({"model_type": "llama"}, False, False),
    ):
        assert (sees_images_both_ways(data), sees_images_beyond_windows(data)) == (both_ways, beyond_windows)


_SAID_BY_CLASSES = [
    *(("paligemma", kind) for kind in ("gemma", "gemma2")),
    *(("aya_vision", kind) for kind in ("cohere", "cohere2")),
    *(("llava", kind) for kind in ("llama", "mistral")),
    ("llava_onevision", "qwen2"),
    ("internvl", "qwen3"),
    ("granite_speech", "granite"),
    ("exaone4_5", "exaone4"),
    ("glmasr", "llama"),
    ("voxtral", "llama"),
    ("mistral3", "ministral3"),
    *((whole, f"{whole}_text") for whole in ("gemma3", "glm4v", "glm_ocr", "paddleocr_vl")),
    *((whole, f"{whole}_text") for whole in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")),
]


@pytest.mark.parametrize(("whole", "kind"), _SAID_BY_CLASSES)
def test_what_a_text_part_leaves_out_is_what_transformers_class_has(whole: str, kind: str) -> None:
    given = {"text_config": {"model_type": kind}}
    theirs = pytest.importorskip("transformers").AutoConfig.for_model(whole, **given).get_text_config()
    ours = text_settings({"model_type": whole, "text_config": {"model_type": kind}}, "config.json")
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    for key in (*sizes, "max_position_embeddings"):
        assert ours[key] == getattr(theirs, key), key
    heads = ours.get("num_key_value_heads", ours["num_attention_heads"])
    assert heads == theirs.num_key_value_heads
    said = text_settings({"model_type": whole, "text_config": {"model_type": kind, "hidden_size": 64}}, "config.json")
    assert said["hidden_size"] == 64


def test_paligemma_as_it_was_published(tmp_path: Path) -> None:
    """Without what its classes have by themselves, and with keys that say nothing."""
    text = {"hidden_size": 2048, "intermediate_size": 16384, "model_type": "gemma", "num_attention_heads": 8}
    text |= {"num_hidden_layers": 18, "num_image_tokens": 256, "num_key_value_heads": 1, "vocab_size": 257216}
    seen = {"hidden_size": 1152, "intermediate_size": 4304, "model_type": "siglip_vision_model", "patch_size": 14}
    seen |= {"num_attention_heads": 16, "num_hidden_layers": 27, "num_image_tokens": 256, "num_positions": 256}
    seen |= {"projection_dim": 2048, "projector_hidden_act": "gelu_fast", "vision_use_head": False, "image_size": 448}
    whole = {"model_type": "paligemma", "architectures": ["PaliGemmaForConditionalGeneration"], "hidden_size": 2048}
    whole |= {"image_token_index": 257152, "projection_dim": 2048, "torch_dtype": "float32", "ignore_index": -100}
    data = {**whole, "text_config": text | {"torch_dtype": "float32"}, "vision_config": seen}
    (tmp_path / "config.json").write_text(json.dumps(data))
    config = load_config(tmp_path)
    assert (config.max_position_embeddings, config.head_dim, config.num_kv_heads) == (8192, 256, 1)
    assert open_tower(data, "float32", "config.json").rows(448, 448) == 1024


def test_the_type_of_the_whole_is_that_of_its_parts() -> None:
    """Old files name it by one key in the whole, and otherwise by the other in a part."""
    for said in ({"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}):
        part = {"model_type": "granite", "dtype": "float32", "torch_dtype": "bfloat16"}
        found = text_settings({"model_type": "granite_speech", **said, "text_config": part}, "config.json")
        assert {key: found[key] for key in ("dtype", "torch_dtype") if key in found} == said
