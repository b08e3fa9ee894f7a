"""Models that read pictures which transformers has no class of, from a message to an answer: as their authors publish
them, beside what transformers computes of their parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import published_deepseek_ocr as deepseek_ocr
import published_deepseek_ocr2 as deepseek_ocr2
from albireo import LLM
from albireo.images.processor import open_processor
from albireo.models.settings.text_part import inner
from e2e.media_answers import check_tokens, greedy
from e2e.test_images import said
from restated_towers import DOTS, dots_rows, dots_shapes, drawn
from tiny_sights import FAMILIES, Theirs, picture, save

pytest.importorskip("torch")

NUM_TOKENS = 8
GREEDY = greedy(NUM_TOKENS)
CHATS = [
    said(picture(50, 30), "What is it?"),
    said("First ", picture(40, 40, 2), " then ", picture(24, 48, 3), ": which?"),
    said("Hello"),
]


def renamed(folder: Path, names: Mapping[str, str]) -> None:
    """The tensors of a directory, what one of names begins with as it says."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    found = {}
    for name, tensor in tensors.items():
        old = next((old for old in names if name.startswith(old)), "")
        found[names.get(old, "") + name.removeprefix(old)] = tensor
    assert found.keys() != tensors.keys()
    save_file(found, folder / "model.safetensors")


def change(folder: Path, file: str = "config.json", **values: Any) -> dict[str, Any]:
    """What a file of a directory holds from now on; None takes a key away."""
    path = folder / file
    held = {**json.loads(path.read_text()), **values}
    held = {key: value for key, value in held.items() if value is not None}
    path.write_text(json.dumps(held))
    return held


def answers(folder: Path, chats: list[Any]) -> list[Any]:
    with LLM(str(folder), dtype="float32", num_threads=1, block_size=8) as llm:
        found: list[Any] = llm.chat(chats, GREEDY, use_tqdm=False)
        return found


def test_kimi_vl(tmp_path: Path) -> None:
    """Its tower is that of Kimi K2.5 for one frame, which transformers has, under other names."""
    theirs, own = (save(tmp_path / name, "kimi_k25") for name in ("theirs", "own"))
    renamed(
        own,
        {
            "mm_projector.proj.0.": "multi_modal_projector.linear_1.",
            "mm_projector.proj.2.": "multi_modal_projector.linear_2.",
            **dict.fromkeys(("model.mm_projector.", "mm_projector."), "multi_modal_projector."),
            "vision_tower.encoder.patch_embed.": "vision_tower.patch_embed.",
            "language_model.model.blocks.": "language_model.model.layers.",
        },
    )
    vision = json.loads((own / "config.json").read_text())["vision_config"]
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
    change(
        own,
        architectures=["KimiVLForConditionalGeneration"],
        model_type="kimi_vl",
        media_placeholder_token_id=json.loads((own / "config.json").read_text())["image_token_id"],
        **dict.fromkeys(("image_token_id", "video_token_id", "projection_hidden_size", "projection_layer_norm_eps")),
        vision_config={
            **{key: vision[key] for key in kept},
            **{"model_type": "moonvit", "merge_kernel_size": [2, 2]},
            **{"init_pos_emb_height": 4, "init_pos_emb_width": 4},
        },
    )
    (own / "preprocessor_config.json").write_text(
        json.dumps(
            {"patch_size": 8, "in_token_limit": 32, "pad_input": True, "image_mean": [0.5] * 3}
            | {"image_std": [0.5] * 3}
        )
    )
    oracle = Theirs(theirs, "kimi_k25")
    for chat, output in zip(CHATS, answers(own, CHATS), strict=True):
        prompt, tokens, values = oracle.answer(chat, NUM_TOKENS, output.prompt_token_ids)
        assert output.prompt_token_ids == prompt
        check_tokens(output, tokens, values)


def test_dots_ocr(tmp_path: Path) -> None:
    """A Qwen 2 as transformers computes it, of embeddings in which rows of a tower restated in torch stand."""
    import transformers
    from safetensors.torch import load_file, save_file

    own = save(tmp_path / "own", "video_llama_3")
    for file in ("tokenizer.json", "chat_template.jinja"):
        text = (own / file).read_text()
        (own / file).write_text(text.replace("<|image_pad|>", "<|imgpad|>"))
    data = json.loads((own / "config.json").read_text())
    text = {key: value for key, value in data["text_config"].items() if key not in ("model_type", "layer_types")}
    vision = {**DOTS, "embed_dim": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    published = {**text, "architectures": ["DotsOCRForCausalLM"], "model_type": "dots_ocr", "vision_config": vision}
    published |= {"attention_bias": True, "image_token_id": data["image_token_id"], "video_token_id": 5}
    published |= {key: data[key] for key in ("eos_token_id", "pad_token_id") if key in data}
    (own / "config.json").write_text(json.dumps(published))
    (own / "preprocessor_config.json").write_text(
        json.dumps(
            {
                **{"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "DotsVLProcessor"},
                **{"patch_size": 8, "temporal_patch_size": 1, "merge_size": 2, "min_pixels": 256, "max_pixels": 2048},
            }
        )
    )
    of_text = {
        name.replace("model.language_model.", "model."): tensor
        for name, tensor in load_file(own / "model.safetensors").items()
        if name.startswith(("model.language_model.", "lm_head."))
    }
    of_tower = drawn(dots_shapes(vision))
    save_file({**of_text, **of_tower}, own / "model.safetensors")
    theirs = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**text)).eval()
    theirs.load_state_dict(of_text)
    check_answers(own, CHATS, data["image_token_id"], theirs, lambda tiles: dots_rows(of_tower, vision, *tiles))


def test_deepseek_ocr(tmp_path: Path) -> None:
    """Pictures of one tile, and of two."""
    own = save(tmp_path / "own", "vipllava")
    ids = Tokenizer.from_file(str(own / "tokenizer.json")).get_vocab()
    (own / "preprocessor_config.json").unlink()
    _, theirs = deepseek_ocr.save(own, len(ids))
    chats = [*CHATS[1:], said(picture(300, 170), "Read: ", picture(60, 200))]
    check_answers(own, chats, ids["<image>"], theirs, lambda tiles: deepseek_ocr.rows(theirs, tiles))


def test_deepseek_ocr2(tmp_path: Path) -> None:
    """Pictures of one tile, and of two."""
    own = save(tmp_path / "own", "vipllava")
    ids = Tokenizer.from_file(str(own / "tokenizer.json")).get_vocab()
    (own / "preprocessor_config.json").unlink()
    _, theirs = deepseek_ocr2.save(own, len(ids))
    chats = [*CHATS[:1], said(picture(300, 170), "Read: ", picture(60, 200))]
    check_answers(own, chats, ids["<image>"], theirs.base, theirs.rows)


def test_opencua(tmp_path: Path) -> None:
    """A Qwen 2 of embeddings in which rows of Qwen2.5-VL's tower stand; both transformers has."""
    import transformers
    from safetensors.torch import load_file

    own, base = save(tmp_path / "own", "qwen2_5_vl"), "qwen2_5_vl"
    tower = Theirs(own, base).model.model.visual
    for file in ("tokenizer.json", "chat_template.jinja"):
        (own / file).write_text((own / file).read_text().replace("<|image_pad|>", "<|media_placeholder|>"))
    ids = Tokenizer.from_file(str(own / "tokenizer.json")).get_vocab()
    of_text = {name: each for name, each in load_file(own / "model.safetensors").items() if "visual." not in name}
    renamed(own, {"visual.": "vision_tower.", "model.": "language_model.model.", "lm_head.": "language_model.lm_head."})
    data = json.loads((own / "config.json").read_text())
    left_out = ("model_type", "rope_parameters", "layer_types", "vision_config")
    text = {key: value for key, value in data["text_config"].items() if key not in left_out} | {"rope_theta": 1e4}
    published = {
        "architectures": ["OpenCUAForConditionalGeneration"],
        "auto_map": {"AutoModel": "modeling_opencua.OpenCUAForConditionalGeneration"},
        "ignore_index": -100,
        "media_placeholder_token_id": ids["<|media_placeholder|>"],
        "model_type": "opencua",
        "text_config": {**text, "model_type": "qwen2"},
        "vision_config": data["vision_config"],
    }
    (own / "config.json").write_text(json.dumps(published | {"dtype": "float32", "eos_token_id": ids["<|im_end|>"]}))
    theirs = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**text)).eval()
    theirs.load_state_dict(of_text)

    def seen(tiles: list[Any]) -> Any:
        inputs = FAMILIES[base].inputs
        assert inputs is not None
        given = inputs([], {"<|image_pad|>": ids["<|media_placeholder|>"]}, [tile.numpy() for tile in tiles])
        return tower(given["pixel_values"], given["image_grid_thw"]).pooler_output

    check_answers(own, CHATS, ids["<|media_placeholder|>"], theirs, seen)


def check_answers(folder: Path, chats: list[Any], mark: int, model: Any, seen: Callable[[list[Any]], Any]) -> None:
    """Answers are the greedy ones of a model of text. Args: mark: id of the token that rows stand in place of. seen:
    tiles of a picture, normalized, as tensors -> its rows."""
    import torch

    processor = open_processor(folder, inner(json.loads((folder / "config.json").read_text())))
    for chat, output in zip(chats, answers(folder, chats), strict=True):
        pictures = [part["image"] for part in chat[0]["content"] if part["type"] == "image"]
        tiles = [
            [torch.tensor(processor.normalized(tile)) for tile in processor.prepare(each).tiles] for each in pictures
        ]
        with torch.no_grad():
            rows = [seen(each) for each in tiles]
        prompt = torch.tensor(output.prompt_token_ids)
        assert int((prompt == mark).sum()) == sum(map(len, rows))
        with torch.no_grad():
            embeds = model.get_input_embeddings()(prompt)
            if rows:
                embeds[prompt == mark] = torch.cat(rows)
            check_greedy(output, model, embeds)


def check_greedy(output: Any, model: Any, embeds: Any) -> None:
    """An answer is the greedy one of a model of text to a prompt of these embeddings [T, E]."""
    import torch

    tokens, values = [], []
    for _ in range(NUM_TOKENS):
        logprobs = torch.log_softmax(model(inputs_embeds=embeds[None]).logits[0, -1], -1)
        tokens.append(int(logprobs.argmax()))
        values.append(float(logprobs.max()))
        embeds = torch.cat([embeds, model.get_input_embeddings()(torch.tensor(tokens[-1:]))])
    check_tokens(output, tokens, values)
