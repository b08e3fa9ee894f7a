"""Tiny models that answer about sounds, with random weights, as transformers makes and saves them: model, tokenizer,
template and extractor in one directory; and what transformers answers.

Used by the tests of models/hearing, and by those that go from a message to an answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from albireo.backends.backend import KernelCatalog
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.execution.vision import VisionRunner, num_blocks, vision_programs
from albireo.graph.program import Program
from albireo.models.settings.text_part import inner
from albireo.models.vision.tensors import tower_tensors
from albireo.models.vision.tower import open_ear
from albireo.sounds.processor import SoundProcessor, open_sound_processor
from hearer_family import F32, RATE, Family
from hearers import FAMILIES, TURNS, fill_chunks, one_by_one
from hearers_of_gemma import as_wide
from hearers_of_phi import hear_one_by_one
from made_once import made_once
from tiny_towers import BUFFERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
#: Numbers that are no parameters: around what they are drawn.
_BUFFERS = {**{key: 2 * mean for key, mean in BUFFERS.items()}, "global_mean": 0.0, "global_invstd": 1.0}


@made_once
def save(folder: Path, name: str, seed: int = 0, dtype: str = "float32", *, with_tekken: bool = False) -> Path:
    """A model of that family, whose every weight is drawn so that sounds are heard in what it answers. Args:
    with_tekken: its tokenizer is a tekken.json, as Voxtral was published, and it has no template."""
    family = FAMILIES[name]
    ids = save_tekken(folder) if with_tekken else _save_tokenizer(folder, family)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(family.model_type or name, **family.config(ids))
    begin, end = ("<s>", "</s>") if with_tekken else ("<|im_start|>", "<|im_end|>")
    # of some it lies among the keys of the whole
    of_text = getattr(config, "text_config", config)
    of_text.eos_token_id = config.eos_token_id = ids[end]
    of_text.bos_token_id = of_text.pad_token_id = config.pad_token_id = ids[begin]
    config.tie_word_embeddings = of_text.tie_word_embeddings = name in ("fun_asr_nano", "glmasr", "qwen3_asr")
    model = getattr(transformers, family.class_name)(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for key, weight in model.named_buffers():
            if "running_var" in key:
                weight.uniform_(0.5, 2.0)
            elif "running_mean" in key:
                weight.normal_(0.0, 0.2)
            elif (mean := _BUFFERS.get(key.rpartition(".")[2])) is not None:
                weight.normal_(mean, 0.2)
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                is_embedding = "embed" in key.replace("embed_tokens_extend", "")
                weight.normal_(0.0, 1.0 if is_embedding else 1.5 * weight[0].numel() ** -0.5)
            else:
                is_norm = ("norm" in key.lower() or "ln_post" in key) and key.endswith("weight")
                weight.normal_(1.0 if is_norm else 0.0, 0.2)
    model.save_pretrained(folder)
    family.extractor().save_pretrained(folder)
    if family.parts is not None:
        said = folder / "preprocessor_config.json"
        parts = {"feature_extractor": json.loads(said.read_text()), **family.parts}
        (folder / "processor_config.json").write_text(json.dumps(parts))
        said.unlink()
    if family.images is not None:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | family.images))
        kept = ("image_mean", "image_std", "min_pixels", "max_pixels", "patch_size")
        videos = {"video_processor_type": "Qwen2VLVideoProcessor", **{key: family.images[key] for key in kept}}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def publish_first(folder: Path) -> Path:
    """A saved Qwen3-ASR as it was first published: a part of a whole, whose projector is its tower's."""
    data = json.loads((folder / "config.json").read_text())
    data["audio_config"]["model_type"], data["text_config"]["model_type"] = "qwen3_asr_audio_encoder", "qwen3_asr_text"
    theta = data["text_config"].pop("rope_parameters")["rope_theta"]
    rope = {"interleaved": True, "mrope_interleaved": True, "mrope_section": [3, 3, 2], "rope_type": "default"}
    data["text_config"] |= {"rope_theta": theta, "rope_scaling": {**rope, "type": "default"}}
    inner = {key: data.pop(key) for key in ("audio_config", "text_config", "audio_token_id")}
    inner |= {"model_type": "qwen3_asr_thinker", "audio_start_token_id": 1, "audio_end_token_id": 2, "user_token_id": 3}
    data |= {"thinker_config": inner, "support_languages": ["English", "German"]}
    (folder / "config.json").write_text(json.dumps(data))
    names = {
        "model.audio_tower.": "thinker.audio_tower.",
        "model.multi_modal_projector.linear_1.": "thinker.audio_tower.proj1.",
        "model.multi_modal_projector.linear_2.": "thinker.audio_tower.proj2.",
        "model.language_model.": "thinker.model.",
        "lm_head.": "thinker.lm_head.",
    }
    tensors = {}
    for name, value in load_file(folder / "model.safetensors").items():
        old = next(each for each in names if name.startswith(each))
        tensors[names[old] + name.removeprefix(old)] = value
    save_file(tensors, folder / "model.safetensors")
    whisper = transformers.WhisperFeatureExtractor(feature_size=8)
    whisper.save_pretrained(folder)
    return folder


def publish_whole(folder: Path, name: str) -> Path:
    """A saved part that answers, as omni models are published: of a whole that speaks, too."""
    data = json.loads((folder / "config.json").read_text())
    data["architectures"] = ["ThinkerOfItsOwn"]
    whole = {"architectures": [FAMILIES[name].class_name.replace("Thinker", "")], "model_type": name}
    speaks = {"enable_audio_output": True, "talker_config": {"num_code_groups": 16}, "tts_bos_token_id": 3}
    (folder / "config.json").write_text(json.dumps({**whole, **speaks, "thinker_config": data}))
    tensors = {f"thinker.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    tensors["talker.model.layers.0.mlp.gate.weight"] = np.ones((4, 4), np.float32)
    tensors["code2wav.decoder.0.conv.bias"] = np.ones(4, np.float32)
    save_file(tensors, folder / "model.safetensors")
    return folder


def _save_tokenizer(folder: Path, family: Family) -> dict[str, int]:
    """A token a byte, and those of the family. Returns: token -> id, of all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    written = _split("".join((family.mark, *family.sights)))
    marks = ("<|im_start|>", "<|im_end|>", *(each for each in written if each not in family.tokens), *family.tokens)
    backend.add_special_tokens([AddedToken(each, special=True) for each in dict.fromkeys(marks)])
    backend.add_tokens([AddedToken("<asr_text>", special=False)])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    template = TURNS.replace("SOUND", family.mark)
    for kind, mark in zip(("IMAGE", "VIDEO"), family.sights or ("", ""), strict=True):
        template = template.replace(kind, mark)
    (folder / "chat_template.jinja").write_text(template)
    return dict(backend.get_vocab(with_added_tokens=True))


#: Of Voxtral's, by rank; those between have no name here.
TEKKEN = {"<unk>": 0, "<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4, "[AVAILABLE_TOOLS]": 5, "[/AVAILABLE_TOOLS]": 6}
TEKKEN |= {"[TOOL_RESULTS]": 7, "[/TOOL_RESULTS]": 8, "[TOOL_CALLS]": 9, "<pad>": 11, "[SYSTEM_PROMPT]": 17}
TEKKEN |= {
    "[/SYSTEM_PROMPT]": 18,
    "[TOOL_CONTENT]": 19,
    "[AUDIO]": 24,
    "[BEGIN_AUDIO]": 25,
    "[TRANSCRIBE]": 34,
    "[STREAMING_PAD]": 32,
    "[STREAMING_WORD]": 33,
}


NUM_SPECIAL = 40


def save_tekken(folder: Path) -> dict[str, int]:
    """A token a byte, behind special ones."""
    folder.mkdir(exist_ok=True)
    coded = [base64.b64encode(bytes([number])).decode() for number in range(256)]
    content = {
        "config": {
            "pattern": r"[^\n]+|\n",
            "version": "v7",
            "num_vocab_tokens": 256,
            "default_vocab_size": NUM_SPECIAL + 256,
            "default_num_special_tokens": NUM_SPECIAL,
        },
        "vocab": [{"rank": rank, "token_bytes": text, "token_str": None} for rank, text in enumerate(coded)],
        "special_tokens": [{"rank": rank, "token_str": text, "is_control": True} for text, rank in TEKKEN.items()],
    }
    (folder / "tekken.json").write_text(json.dumps(content))
    return {**TEKKEN, **{f"byte {number}": NUM_SPECIAL + number for number in range(256)}}


def _split(mark: str) -> list[str]:
    return mark.replace(">", "> ").replace("]", "] ").split()


def sound(seconds: float, seed: int = 0) -> F32:
    """Noise that swells and fades."""
    count = round(seconds * RATE)
    swelling = 0.1 + 0.1 * np.sin(np.arange(count) * (2 * np.pi / 5000))
    return (np.random.default_rng(seed).standard_normal(count) * swelling).astype(np.float32)


class Theirs:
    """What transformers makes of a saved model."""

    def __init__(self, folder: Path, name: str, dtype: str = "float32") -> None:
        self.family = FAMILIES[name]
        self.folder = folder
        kind = getattr(transformers, self.family.class_name)
        self.model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()
        self.model.generation_config.eos_token_id = None
        if name == "qwen3_omni_moe":
            self.model.model.audio_tower.register_forward_pre_hook(fill_chunks, with_kwargs=True)
        if name == "phi4_multimodal":
            hear_one_by_one(self.model)
        if name.startswith("granite"):
            self.model.model.get_audio_features = one_by_one(self.model.model)

    @cached_property
    def tokenizer(self) -> Any:
        """Of those alone who ask about text."""
        return transformers.AutoTokenizer.from_pretrained(self.folder)

    def inputs(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """What the model is given of a chat whose parts are texts and sounds."""
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        parts = [part for message in messages for part in message["content"]]
        sounds = [part["audio"][0] for part in parts if part["type"] == "audio"]
        more, lengths = self.family.heard(self.family.extractor(), sounds) if sounds else ({}, [])
        pieces = text.split(self.family.row)
        assert len(pieces) == len(lengths) + 1
        before, behind = self.family.around
        standing = [f"{before}{self.family.row * n}{behind}" for n in lengths]
        whole = pieces[0] + "".join(row + rest for row, rest in zip(standing, pieces[1:], strict=True))
        ids = self.tokenizer.encode(whole, add_special_tokens=False)
        more |= self.family.asked
        return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)), **more}

    def answer(self, messages: list[dict[str, Any]], num_tokens: int) -> tuple[list[int], list[int], list[float]]:
        """Ids of the prompt, those of the greedy answer, and their log-probabilities."""
        inputs = self.inputs(messages)
        with torch.no_grad():
            found = self.model.generate(
                **inputs, max_new_tokens=num_tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        ids = inputs["input_ids"][0].tolist()
        output = found.sequences[0, len(ids) :].tolist()
        values = [torch.log_softmax(row[0], -1)[token].item() for row, token in zip(found.logits, output, strict=True)]
        return ids, output, values

    def rows(self, samples: F32) -> NDArray[np.float64]:
        """What transformers puts in place of embeddings."""
        given, lengths = self.family.heard(self.family.extractor(), [samples])
        given = {key: value.to(self.model.dtype) if "mask" not in key else value for key, value in given.items()}
        if self.family.ended is not None:  # its tower is told where nothing is heard
            given["input_features_mask"] = ~given["input_features_mask"]
        with torch.no_grad(), as_wide(self.model.dtype):
            if self.family.rows is not None:
                rows = self.family.rows(self.model, given)
            elif isinstance(self.model, transformers.Qwen2AudioForConditionalGeneration):
                count = (int(given["feature_attention_mask"].sum()) - 1) // 2 + 1
                most = self.model.config.audio_config.max_source_positions
                mask = torch.zeros(1, 1, most, most, dtype=self.model.dtype)
                mask[..., count:] = -torch.inf
                tower = self.model.model.audio_tower(given["input_features"], attention_mask=mask).last_hidden_state
                rows = self.model.model.multi_modal_projector(tower)[0]
            else:
                rows = self.model.model.get_audio_features(**given).pooler_output
                rows = rows[0] if rows.ndim == 3 else rows
            if self.family.ended is not None:
                return np.asarray(self.family.ended(self.model.model, rows).double().numpy())
        return np.asarray(rows[: lengths[0]].double().numpy())


def tiles(folder: Path, samples: F32) -> list[F32]:
    """What the tower of a saved model is given of a sound."""
    return list(_processor(folder).prepare(samples).tiles)


def _processor(folder: Path) -> SoundProcessor:
    return open_sound_processor(folder, inner(json.loads((folder / "config.json").read_text())))


def opened_by(
    open_program: Callable[[Program, Any], Any], catalog: KernelCatalog, folder: Path, dtype: str
) -> VisionRunner:
    data = json.loads((folder / "config.json").read_text())
    tower, tensors = open_ear(inner(data), dtype, str(folder)), tower_tensors(folder, True)
    most = tower.patches(*_processor(folder).largest_tile())
    runner = VisionRunner(tower, tensors, vision_programs(tower, catalog, most), open_program)
    tensors.close()
    return runner


def opened(folder: Path, dtype: str = "float32", num_threads: int = 1) -> VisionRunner:
    """On the CPU."""
    pool = thread_pool(num_threads)

    def open_program(program: Program, weights: Any) -> CpuModel:
        return CpuModel(program, weights, pool, num_blocks(program))

    return opened_by(open_program, CpuCatalog(isa_levels()), folder, dtype)
