"""Keye-VL as its authors publish it, from a message to an answer: the tower of PaddleOCR-VL, which transformers has,
and a Qwen 3 of it whose rotation turns by three axes, as its authors' code says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from albireo.images.processor import open_processor
from albireo.models.settings.text_part import inner
from e2e.media_answers import check_tokens
from e2e.test_published_sights import CHATS, NUM_TOKENS, answers
from sight_inputs import of_paddleocr_vl
from tiny_sights import Theirs, save

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_TEXT = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 12}
_TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": False}
_SECTIONS = [1, 3, 2]


class ByAxes(torch.nn.Module):
    """What turns queries and keys of positions [3, T]: pairs of each axis side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = torch.zeros(3, 0)

    def forward(self, x: Any, _: Any) -> Any:
        half = _TEXT["head_dim"] // 2
        angles = self.positions[:, :, None] * 10000.0 ** (-torch.arange(half) / half)
        of_axes = angles.split(_SECTIONS, dim=-1)
        turned = torch.cat([each[axis] for axis, each in enumerate(of_axes)], dim=-1)
        turned = torch.cat([turned, turned], dim=-1)[None]
        return turned.cos(), turned.sin()


def positions_of(prompt: list[int], mark: int, grids: list[tuple[int, int]]) -> Any:
    """[3, T]: rows of a picture have the place of its first one, and behind it a line and a column."""
    found: list[tuple[int, int, int]] = []
    at, grids = 0, list(grids)
    while len(found) < len(prompt):
        first = max((max(each) for each in found), default=-1) + 1
        at = len(found)
        if prompt[at] != mark:
            found.append((first, first, first))
            continue
        lines, columns = grids.pop(0)
        found += [(first, first + line, first + column) for line in range(lines) for column in range(columns)]
    return torch.tensor(found, dtype=torch.float32).T


@pytest.mark.parametrize("kind", ["Keye", "KeyeVL1_5"])
def test_keye(kind: str, tmp_path: Path) -> None:
    own = save(tmp_path / "own", "paddleocr_vl")
    for file in ("tokenizer.json", "chat_template.jinja"):
        text = (own / file).read_text().replace("<|IMAGE_PLACEHOLDER|>", "<|image_pad|>")
        (own / file).write_text(text.replace("<|IMAGE_START|>", "<|vision_start|>"))
    seeing = Theirs(own, "paddleocr_vl").model.model
    projector = seeing.projector
    of_tower = {
        name.removeprefix("model.").replace("projector.", "mlp_AR."): each
        for name, each in load_file(own / "model.safetensors").items()
        if any(part in name for part in ("visual.", "projector.", "mlp_AR."))
    }
    if kind == "KeyeVL1_5":
        wide = projector.linear_1.in_features
        of_tower |= {f"mlp_AR.pre_norm.{part}": torch.randn(wide) * 0.2 + 1 for part in ("weight", "bias")}
    ids = Tokenizer.from_file(str(own / "tokenizer.json")).get_vocab()
    torch.manual_seed(1)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_TEXT, vocab_size=len(ids))).eval()
    for name, weight in model.named_parameters():
        scale = 1.0 if "embed_tokens" in name else 1.5 * weight[0].numel() ** -0.5
        weight.data.normal_(float("norm" in name), 0.2 if weight.ndim == 1 else scale)
    turns = model.model.rotary_emb = ByAxes()
    save_file({**model.state_dict(), **of_tower}, own / "model.safetensors")
    vision = json.loads((own / "config.json").read_text())["vision_config"]
    published = {
        **_TEXT,
        "architectures": [f"{kind}ForConditionalGeneration"],
        "auto_map": {"AutoModel": "modeling_keye.KeyeForConditionalGeneration"},
        "model_type": kind,
        "vocab_size": len(ids),
        "eos_token_id": ids["<|im_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": _SECTIONS},
        "torch_dtype": "float32",
        "vision_config": {
            **{key: value for key, value in vision.items() if "rope" not in key and not key.startswith("_")},
            **{"model_type": kind, "temporal_patch_size": 2, "tokens_per_second": 2},
        },
    }
    (own / "config.json").write_text(json.dumps(published))
    sizes = {"min_pixels": 256, "max_pixels": 4096}
    (own / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "SiglipImageProcessor", "patch_size": 8, "temporal_patch_size": 1, "size": sizes}
        )
    )
    processor, mark = open_processor(own, inner(published)), ids["<|image_pad|>"]

    def seen(tile: Any) -> Any:
        given = of_paddleocr_vl([], {"<|IMAGE_PLACEHOLDER|>": mark}, [tile])
        grid = given["image_grid_thw"]
        if kind == "Keye":
            return seeing.get_image_features(given["pixel_values"], grid).pooler_output[0]
        states = seeing.visual(pixel_values=given["pixel_values"][None], grid_thw=grid).last_hidden_state
        lines, columns = (int(count) for count in grid[0, 1:] // 2)
        x = states.unflatten(0, (lines, 2, columns, 2)).transpose(1, 2).reshape(lines * columns, -1)
        weight, bias = (of_tower[f"mlp_AR.pre_norm.{part}"] for part in ("weight", "bias"))
        x = torch.nn.functional.layer_norm(x, x.shape[1:], weight, bias, 1e-5)
        return projector.linear_2(torch.nn.functional.gelu(projector.linear_1(x)))

    chats = CHATS[:2] if kind == "Keye" else CHATS[:1]
    for chat, output in zip(chats, answers(own, chats), strict=True):
        pictures = [part["image"] for part in chat[0]["content"] if part["type"] == "image"]
        tiles = [processor.normalized(tile) for each in pictures for tile in processor.prepare(each).tiles]
        grids = [(tile.shape[0] // 16, tile.shape[1] // 16) for tile in tiles]
        prompt, tokens, values = list(output.prompt_token_ids), [], []
        assert prompt.count(mark) == sum(lines * columns for lines, columns in grids)
        with torch.no_grad():
            embeds = model.get_input_embeddings()(torch.tensor(prompt))
            embeds[torch.tensor(prompt) == mark] = torch.cat([seen(tile) for tile in tiles])
            for _ in range(NUM_TOKENS):
                turns.positions = positions_of(prompt, mark, grids)
                logprobs = torch.log_softmax(model(inputs_embeds=embeds[None]).logits[0, -1], -1)
                tokens.append(int(logprobs.argmax()))
                values.append(float(logprobs.max()))
                prompt.append(tokens[-1])
                embeds = torch.cat([embeds, model.get_input_embeddings()(torch.tensor(tokens[-1:]))])
        check_tokens(output, tokens, values)
