"""From a message with pictures to an answer, against transformers' processor and model on random weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, BuildConfig, SamplingParams, build
from albireo.errors import Corrupt, InvalidParams, ModelError, TemplateError, UnsupportedModel
from albireo.models import load_config
from e2e.media_answers import check_same_bits, check_tokens, greedy, of_some
from e2e.test_speculative import Eager
from engine.test_model_guesses import give_freely
from published_internvl import publish
from tiny_sights import FAMILIES, Theirs, picture, save

NUM_TOKENS = 12
#: Whose text parts keep states, which cannot go back.
KEEP_STATES = ("qwen3_5", "lfm2_vl", "minicpmv4_6", "minicpm_ocr", "nemotron_h_omni")
#: What templates write for a picture is text in these; in a prompt without one its place is the token of rows.
_PLACES = {"ovis2": "<IMG_ATOM>", "qianfan_ocr": "<IMG_CONTEXT>"}


def place_of(name: str) -> str:
    """Of a picture in a prompt."""
    return _PLACES.get(name, FAMILIES[name].mark)


def said(*parts: Any) -> list[dict[str, Any]]:
    """A turn of texts and pictures."""
    kinds = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts
    ]
    return [{"role": "user", "content": kinds}]


CHATS: dict[str, list[dict[str, Any]]] = {
    "one": said(picture(50, 30), "What is it?"),
    "behind the text": said("Look: ", picture(31, 90, 1)),
    "two": said("First ", picture(40, 40, 2), " then ", picture(96, 40, 3), ": which?"),
    "none": said("Hello"),
}
GREEDY = greedy(NUM_TOKENS)


of = of_some(FAMILIES)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, save(tmp_path_factory.mktemp(request.param), request.param)


def test_answers_are_those_of_transformers(folder: tuple[str, Path]) -> None:
    name, path = folder
    theirs = Theirs(path, name)
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8, enable_prefix_caching=False) as llm:
        for chat, output in zip(CHATS.values(), llm.chat(list(CHATS.values()), GREEDY, use_tqdm=False), strict=True):
            prompt, tokens, values = theirs.answer(chat, NUM_TOKENS, output.prompt_token_ids)
            assert output.prompt_token_ids == prompt
            check_tokens(output, tokens, values)


@of(
    "ernie4_5_vl_moe",
    "idefics3",
    "gemma3",
    "gemma4, embeddings of layers",
    "lfm2_vl",
    "paligemma",
    "qwen3_5",
    "qwen3_vl",
)
def test_answers_do_not_depend_on_who_else_runs(folder: tuple[str, Path]) -> None:
    """Alone, beside others, in pieces, without blocks for all, and after the same picture was seen: the same bits."""
    name, path = folder
    chats = list(CHATS.values())
    # a prompt that sees itself is in one step
    least = 64 if name.startswith("paligemma") else 8
    # Janus begins with 192 tokens, and a picture of Phi-4 has at least 290
    blocks, longest = {"janus": (46, 360), "phi4_multimodal": (200, 1500)}.get(name, (26, 200))
    few_blocks = {"num_gpu_blocks_override": blocks, "max_model_len": longest}
    check_same_bits(path, chats, GREEDY, few_blocks, least=least)


@of("gemma4", "lfm2_vl", "qwen2_vl")
def test_pictures_of_one_size_are_told_apart(folder: tuple[str, Path], tmp_path: Path) -> None:
    """Their prompts are the same tokens, so only what they are keeps the prefix cache from taking one for the other, be
    it in memory or in files."""
    name, path = folder
    chats = [said(picture(40, 40, seed), "What is it?") for seed in (1, 2, 1)]
    settings: dict[str, Any] = {"dtype": "float32", "num_threads": 1, "block_size": 8, "prefix_cache_dir": tmp_path}
    with LLM(str(path), **settings) as llm:
        found = [llm.chat([chat], GREEDY, use_tqdm=False)[0] for chat in chats]
    assert found[0].prompt_token_ids == found[1].prompt_token_ids
    values = [output.outputs[0].cumulative_logprob for output in found]
    assert values[0] != values[1] and values[0] == values[2]
    num_cached = [output.num_cached_tokens for output in found]
    before = 192 if name == "janus" else 0  # with which every chat begins
    assert num_cached[0] == 0 and num_cached[1] < 24 + before
    assert num_cached[2] > len(found[0].prompt_token_ids) - 16
    with LLM(str(path), **settings) as llm:
        again = [llm.chat([chat], GREEDY, use_tqdm=False)[0] for chat in chats[1:]]
    assert [output.outputs[0].cumulative_logprob for output in again] == values[1:]
    # a snapshot of states is too near the beginning of so short a prompt to be worth reading
    assert name in KEEP_STATES or all(output.num_cached_tokens for output in again)


@of("idefics3", "internvl", "mistral3", "qwen2_5_vl")
def test_prompts_may_be_texts_and_token_ids(folder: tuple[str, Path]) -> None:
    name, path = folder
    mark, image = place_of(name), picture(40, 40, 5)
    with LLM(str(path), dtype="float32", num_threads=1) as llm:
        text = f"See {mark} and say"
        ids = llm.get_tokenizer().encode(text)
        given = [{"prompt": text}, {"prompt_token_ids": ids}]
        found = llm.generate(
            [{**each, "multi_modal_data": {"image": [image]}} for each in given], GREEDY, use_tqdm=False
        )
        assert found[0].prompt_token_ids == found[1].prompt_token_ids
        # where each of its rows is written, there is nothing to add
        assert len(found[0].prompt_token_ids) - len(ids) >= (name != "pp_chart2table")
        assert found[0].outputs[0].token_ids == found[1].outputs[0].token_ids
        arrays = llm.generate(
            {"prompt": text, "multi_modal_data": {"image": np.asarray(image)}}, GREEDY, use_tqdm=False
        )
        assert arrays[0].outputs[0].token_ids == found[0].outputs[0].token_ids


@of("gemma3", "llava", "mistral3")
def test_what_users_type_is_no_place_for_a_picture(folder: tuple[str, Path]) -> None:
    name, path = folder
    mark = place_of(name)
    with LLM(str(path), dtype="float32", num_threads=1) as llm:
        (output,) = llm.chat([said(f"is {mark} a mark?", picture(40, 40))], GREEDY, use_tqdm=False)
        assert len(output.outputs[0].token_ids) == NUM_TOKENS
        with pytest.raises(InvalidParams, match=r"2 places for images .* and 1 images"):
            llm.generate({"prompt": f"{mark}{mark}", "multi_modal_data": {"image": picture(9, 9)}}, GREEDY)
        with pytest.raises(InvalidParams, match="0 places for images"):
            llm.generate({"prompt": "none", "multi_modal_data": {"image": picture(9, 9)}}, GREEDY)
        with pytest.raises(InvalidParams, match="allowed-local-media-path"):
            llm.chat([{"role": "user", "content": [{"type": "image", "path": "/etc/passwd"}]}], GREEDY)
        with pytest.raises(InvalidParams, match="allowed-media-domains"):
            url = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}
            llm.chat([{"role": "user", "content": [url]}], GREEDY)
        with pytest.raises(InvalidParams, match="no picture"):
            llm.chat(said(b"no picture"), GREEDY)


@pytest.mark.parametrize(("merge", "told"), [(4, "4 tokens .* and 16 rows"), (1, "8 x 512 pixels is not filled by")])
def test_files_of_two_models_are_refused_at_the_start(merge: int, told: str, tmp_path: Path) -> None:
    """Where config.json does not say what it means."""
    path = save(tmp_path, "ernie4_5_vl_moe") / "config.json"
    data = json.loads(path.read_text())
    del data["vision_config"]["spatial_merge_size"]
    path.write_text(json.dumps(data))
    of_pictures = tmp_path / "preprocessor_config.json"
    of_pictures.write_text(json.dumps(json.loads(of_pictures.read_text()) | {"merge_size": merge}))
    with pytest.raises(ModelError, match=rf"{told}.*; both must be of one checkpoint"):
        LLM(str(tmp_path), dtype="float32", num_threads=1)


@of("gemma4", "qwen3_vl_moe")
def test_limits_are_kept(folder: tuple[str, Path]) -> None:
    _, path = folder
    pictures = [picture(40, 40), picture(30, 30)]
    with LLM(str(path), dtype="float32", num_threads=1, limit_mm_per_prompt={"image": 1}) as llm:
        with pytest.raises(InvalidParams, match="the prompt has 2 images; limit_mm_per_prompt allows 1"):
            llm.chat(said(*pictures), GREEDY)
        cut, given = GREEDY.clone(truncate_prompt_tokens=5), {"prompt": "a", "multi_modal_data": {"image": pictures[0]}}
        for ask in (partial(llm.chat, said(pictures[0])), partial(llm.generate, given)):
            with pytest.raises(InvalidParams, match="a prompt with images, sounds or videos is not cut"):
                ask(cut)
        full = llm.loaded.memory.weight_bytes
    with LLM(str(path), dtype="float32", num_threads=1, limit_mm_per_prompt='{"image": 0}') as llm:
        with pytest.raises(TemplateError, match="limit_mm_per_prompt leaves the part"):
            llm.chat(said(*pictures), GREEDY)
        assert llm.loaded.memory.weight_bytes < full
        assert len(llm.chat(said("text"), GREEDY, use_tqdm=False)[0].outputs[0].token_ids) == NUM_TOKENS


@of("gemma4, embeddings of layers", "idefics3", "mistral3", "mistral_large4", "qwen3_vl_moe", "internvl")
def test_an_engine_directory_reads_pictures(folder: tuple[str, Path], tmp_path: Path) -> None:
    _, path = folder
    out, chats = tmp_path / "engine", list(CHATS.values())
    build(path, out, BuildConfig(dtype="float32"))
    found = []
    for model in (path, out):
        with LLM(str(model), dtype="float32", num_threads=1, verify_hashes=model == out) as llm:
            found.append([o.outputs[0].token_ids for o in llm.chat(chats, GREEDY, use_tqdm=False)])
    assert found[0] == found[1]
    damaged = bytearray((out / "vision" / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (out / "vision" / "model.safetensors").write_bytes(damaged)
    with pytest.raises(Corrupt, match=r"vision/model.safetensors: the hash is not the manifest's"):
        LLM(str(out), num_threads=1, verify_hashes=True)


def test_ernie_as_its_authors_publish_it(tmp_path: Path) -> None:
    """Keys of the text part among those of the whole, a template with letters of its own, other numbers of pixels."""
    theirs, own = (save(tmp_path / name, "ernie4_5_vl_moe") for name in ("theirs", "own"))
    path = own / "config.json"
    data = json.loads(path.read_text())
    text, vision = data["text_config"], data["vision_config"]
    flat = {key: value for key, value in text.items() if key not in ("rope_parameters", "mlp_layer_types")}
    flat |= {key: data[key] for key in data if key.endswith("_token_id") and not key.startswith(("image_t", "video_t"))}
    flat |= {
        "architectures": ["Ernie4_5_VLMoeForConditionalGeneration"],
        "auto_map": {"AutoModel": "modeling_ernie4_5_vl.Ernie4_5_VLMoeForConditionalGeneration"},
        "model_type": "ernie4_5_moe_vl",
        "im_patch_id": data["image_token_id"],
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "rope_3d": True,
        "freq_allocation": 2,
        "moe_num_experts": [text["moe_num_experts"]] * 2,
        "moe_capacity": [128, 128, 128],
        "moe_layer_start_index": [1, 1],
        "moe_layer_end_index": [2, 1],
        "moe_layer_interval": 1,
        "moe_use_aux_free": True,
        "moe_gate": "topk",
        "moe_multimodal_dispatch_use_allgather": "v2-alltoall-unpad-text",
        "spatial_conv_size": 2,
        "temporal_conv_size": 2,
        "vision_config": {
            **{key: vision[key] for key in ("depth", "hidden_size", "hidden_act", "num_heads", "patch_size")},
            **{"model_type": "DFNRope_vision_transformer", "embed_dim": vision["hidden_size"], "mlp_ratio": 1.5},
            **{"in_channels": 3, "spatial_merge_size": 2, "attn_sep": True, "vit_first_fwd_bsz": 128},
        },
    }
    assert text["rope_parameters"]["mrope_section"] == [3, 3, 2]
    assert text["mlp_layer_types"] == ["dense", "sparse", "sparse"] and vision["intermediate_size"] == 48
    path.write_text(json.dumps(flat))
    of_pictures = {"image_processor_type": "Ernie_45T_VLImageProcessor", "patch_size": 8, "merge_size": 2}
    pixels = {"min_pixels": 1, "max_pixels": 2, "temporal_conv_size": 2}
    (own / "preprocessor_config.json").write_text(json.dumps({**of_pictures, **pixels}))
    of_pictures["image_processor_type"] = "Ernie4_5_VLMoeImageProcessor"
    (theirs / "preprocessor_config.json").write_text(json.dumps(of_pictures))
    template = own / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|IMAGE_PLACEHOLDER|>", "<|image@placeholder|>"))
    found = []
    for folder in (theirs, own):
        with LLM(str(folder), dtype="float32", num_threads=1) as llm:
            outputs = llm.chat(list(CHATS.values()), GREEDY, use_tqdm=False)
            found.append([(o.prompt_token_ids, o.outputs[0].token_ids, o.outputs[0].logprobs) for o in outputs])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rope_3d": False}, "rope_3d=False is not supported"),
        ({"moe_num_experts": [4, 8]}, "moe_num_experts=.*must be a whole number"),
        ({"moe_layer_start_index": "first"}, "layers with experts are told by .*moe_layer_start_index='first'"),
        ({"freq_allocation": 3, "num_attention_heads": 20, "hidden_size": 2560}, "it leaves 61 pairs of a head"),
        ({"spatial_conv_size": 3}, "spatial_conv_size=3 is not supported; the tower has spatial_merge_size=2"),
        ({"vision_config": {"hidden_size": 1280, "embed_dim": 1024}}, "embed_dim=1024 is not supported"),
        ({"moe_gate_act": "sigmoid"}, "moe_gate_act='sigmoid' is not supported"),
        ({"sinks": 4}, "'sinks': 4"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers=1000000000000 must be a whole number up to 4096"),
        ({"moe_layer_end_index": []}, r"layers with experts are told by .*moe_layer_end_index=\[\]"),
        ({"moe_num_experts": [[64], [32]]}, r"moe_num_experts=\[\[64\], \[32\]\] must be a whole number"),
        ({"freq_allocation": 20, "head_dim": "64"}, "head_dim='64' must be a whole number"),
        ({"vision_config": {"mlp_ratio": "4"}}, "mlp_ratio='4' must be a number above 0"),
        ({"vision_config": {"mlp_ratio": 4, "hidden_size": None}}, "hidden_size=None must be a whole number"),
    ],
)
def test_flat_files_of_ernie_that_are_not_computed(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    data = {"model_type": "ernie4_5_moe_vl", "vision_config": {"spatial_merge_size": 2}, "moe_num_experts": [64, 64]}
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    data |= {**sizes, "num_key_value_heads": 2, "vocab_size": 103424, "max_position_embeddings": 4096}
    data |= {"moe_k": 6, "moe_intermediate_size": [64, 32]}
    (tmp_path / "config.json").write_text(json.dumps({**data, **changes}))
    with pytest.raises((UnsupportedModel, ModelError), match=told):
        load_config(tmp_path, "float32")


def test_phi_hears_and_sees_but_not_at_once(tmp_path: Path) -> None:
    path, sound = save(tmp_path, "phi4_multimodal"), np.zeros(8000, np.float32)
    with LLM(str(path), dtype="float32", num_threads=1) as llm:
        given = {"audio": (sound, 16000), "image": picture(40, 40)}
        for kind in given:
            alone = {"prompt": f"<|{kind}|>", "multi_modal_data": {kind: given[kind]}}
            assert len(llm.generate(alone, GREEDY, use_tqdm=False)[0].outputs[0].token_ids) == NUM_TOKENS
        with pytest.raises(InvalidParams, match="has pictures and sounds, and of this model either alone"):
            llm.generate({"prompt": "<|audio|><|image|>", "multi_modal_data": given}, GREEDY)


#: As InternVL's authors wrote it: contents are texts.
_OF_TEXTS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_internvl_as_its_authors_publish_it(tmp_path: Path) -> None:
    """Other keys, names and files, and a template that knows no pictures: the same answers."""
    theirs, own = (save(tmp_path / name, "internvl") for name in ("theirs", "own"))
    publish(own)
    (own / "processor_config.json").unlink()
    (own / "chat_template.jinja").write_text(_OF_TEXTS)
    of_pictures = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    path = theirs / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **of_pictures}))
    found = []
    for model in (theirs, own):
        with LLM(str(model), dtype="float32", num_threads=1) as llm:
            outputs = llm.chat(list(CHATS.values()), GREEDY, use_tqdm=False)
            found.append([(output.prompt_token_ids, output.outputs[0].token_ids) for output in outputs])
    assert found[0] == found[1]
    build(own, tmp_path / "engine", BuildConfig(dtype="float32"))
    with LLM(str(tmp_path / "engine"), num_threads=1) as llm:
        outputs = llm.chat(list(CHATS.values()), GREEDY, use_tqdm=False)
        assert [output.outputs[0].token_ids for output in outputs] == [answer for _, answer in found[0]]
        (output,) = llm.chat([said("is <IMG_CONTEXT> a mark?", picture(40, 40))], GREEDY, use_tqdm=False)
        assert len(output.outputs[0].token_ids) == NUM_TOKENS


@of("idefics3", "internvl", "lfm2_vl")
def test_others_go_on_between_the_tiles_of_a_picture(folder: tuple[str, Path]) -> None:
    """A step reads one tile, so an answer that is under way waits for no more than that."""
    name, path = folder
    if name.startswith("paligemma"):
        pytest.skip("a prompt that sees itself is in one step")
    chat = said(picture(96, 90, 7), picture(40, 40, 8), "?")
    with LLM(str(path), dtype="float32", num_threads=1, block_size=8) as llm:
        alone = llm.chat([chat], GREEDY, use_tqdm=False)[0]
        images = llm._admission.chat(chat, GREEDY, {}).images
    num_tiles = sum(len(image.tiles) for image in images)
    assert alone.metrics.num_prefill_chunks >= num_tiles > 1


@pytest.mark.parametrize(
    "guess", [{"method": "ngram", "prompt_lookup_min": 1}, {"method": "draft_model", "quantization": "int8"}], ids=str
)
@of("gemma3", "gemma4, embeddings of layers", "qwen2_5_vl", "qwen3_5")
def test_guesses_change_nothing(
    folder: tuple[str, Path], guess: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drafts are rotated as what is drawn; and several answers go on from one prompt."""
    name, path = folder
    if guess["method"] == "draft_model" and name in KEEP_STATES:
        pytest.skip("a draft model that keeps states is refused")
    give_freely(monkeypatch)
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Eager)  # what they are worth is measured by a clock
    chats = list(CHATS.values())
    drawn = SamplingParams(temperature=0.7, max_tokens=40, ignore_eos=True, seed=3, n=2)
    params = [GREEDY, drawn, GREEDY, drawn]
    found = []
    for more in ({}, {"speculative_config": guess}):
        with LLM(str(path), dtype="float32", num_threads=1, block_size=8, **more) as llm:
            outputs = llm.chat(chats, params, use_tqdm=False)
            found.append([[answer.token_ids for answer in output.outputs] for output in outputs])
            if more:
                assert llm.stats().num_drafts > 0
    assert found[0] == found[1]
