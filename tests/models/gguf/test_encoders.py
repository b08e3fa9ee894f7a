"""GGUF files of encoders, as llama.cpp's converters make them of a checkpoint: the same bits as that checkpoint's, and
its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import UnsupportedModel
from albireo.json_file import read_json
from albireo.models import load_config
from albireo.text.gguf_tokenizer import gguf_tokenizer
from e2e.test_encoders import embedded, opened, prompts, saved
from models.gguf.conversion_keys import Config
from models.gguf.conversions import Conversion, write
from models.gguf.writer import Array
from text.texts import TEXTS

MEAN, CLS, LAST, RANK = 1, 2, 3, 4


def _bert(name: str, array: Array, c: Config) -> Iterator[tuple[str, Array]]:
    """BertModel.modify_tensors(); XLMRobertaModel's, which leaves the rows before the first position out."""
    if name.startswith("pooler."):
        return
    if name == "embeddings.position_embeddings.weight" and c["model_type"] != "bert":
        array = array[c["pad_token_id"] + 1 :]
    yield name, array


def converted(folder: Path, path: Path, kind: str = "F32", **settings: Any) -> Path:
    from safetensors.numpy import load_file

    config = read_json(folder / "config.json")
    known = {"nomic_bert": "nomic-bert", "modernbert": "modern-bert", "eurobert": "eurobert"}
    arch = known.get(config["model_type"], "bert")
    weights = {name: array for name, array in load_file(folder / "model.safetensors").items()}
    if config["model_type"] in ("roberta", "xlm-roberta"):
        config["max_position_embeddings"] -= config["pad_token_id"] + 1
    if arch == "modern-bert":
        settings |= {"attention.sliding_window": config["local_attention"], "rope.freq_base_swa": 10000.0}
        settings["attention.sliding_window_pattern"] = config["global_attn_every_n_layers"]
    settings = {"attention.causal": False, "pooling_type": MEAN} | settings
    write(path, config, weights, Conversion(arch, change=_bert), kind, settings)
    return path


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "nomic_bert", "modernbert", "eurobert"])
def test_the_same_bits(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", name)
    llm = opened(folder)
    for kind, pooling in ((MEAN, "mean"), (CLS, "cls"), (LAST, "last")):
        path = converted(folder, tmp_path / f"{pooling}.gguf", pooling_type=kind)
        assert embedded(opened(path, dtype="float32"), None, prompts()) == embedded(llm, pooling, prompts())  # type: ignore[arg-type]


def test_matrices_in_blocks(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}
    folder = saved(tmp_path / "model", "nomic_bert", **sizes)
    path = converted(folder, tmp_path / "m.gguf", "Q8_0")
    ours = np.array(embedded(opened(path, dtype="float32"), None, prompts()))
    wanted = np.array(embedded(opened(folder), "mean", prompts()))
    assert 0 < np.abs(ours - wanted).max() < 0.05


def test_what_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "bert")
    with pytest.raises(UnsupportedModel, match="pooling_type=4 is not supported"):
        load_config(converted(folder, tmp_path / "ranks.gguf", pooling_type=RANK))
    folder = saved(tmp_path / "nomic", "nomic_bert")
    with pytest.raises(UnsupportedModel, match="moe_every_n_layers=2"):
        load_config(converted(folder, tmp_path / "experts.gguf", moe_every_n_layers=2))


def test_pieces_of_words() -> None:
    """Against the tokenizer of a vocab.txt, which the converter writes with what begins a word in place of "##"."""
    tokenizers = pytest.importorskip("tokenizers")
    letters = [chr(code) for code in range(33, 127)] + [chr(code) for code in range(0xE0, 0x17F)]
    words = ["the", "cat", "token", "##ize", "##r", "##s", "quick", "##est", "[unused0]", "naive", "日", "本"]
    pieces = dict.fromkeys(each for letter in letters for each in (letter.lower(), f"##{letter.lower()}"))
    named = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = [*named, *dict.fromkeys([*words, *pieces])]
    wanted = tokenizers.BertWordPieceTokenizer({token: i for i, token in enumerate(vocab)}, lowercase=True)
    stored = [t if t in named else t[2:] if t.startswith("##") else f"▁{t}" for t in vocab]
    settings = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "jina-v2-en",
        "tokenizer.ggml.tokens": stored,
        "tokenizer.ggml.token_type": np.array([3 if token in named else 1 for token in vocab], np.int32),
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.mask_token_id": 4,
    }
    ours = gguf_tokenizer(settings, "m.gguf")
    for text in (*TEXTS, "The tokenizers' quickest café, naïve! [MASK] 日本"):
        assert ours.encode(text) == wanted.encode(text).ids, text
    pair = ours.encode_prompt("the cat", "quickest")
    both = wanted.encode("the cat", "quickest")
    assert list(pair.ids) == both.ids and pair.type_start == both.type_ids.index(1)


@pytest.mark.parametrize("has_map", [False, True])
def test_likely_pieces(has_map: bool) -> None:
    """Against transformers' tokenizer of XLM-RoBERTa with the same pieces and scores; a map that changes nothing."""
    transformers = pytest.importorskip("transformers")
    pieces = ["▁the", "▁cat", "▁", "th", "e", "ca", "t", "at", "▁t", "h", "c", "a", "s", "é", "日", "▁日本", "本", "."]
    rng = np.random.default_rng(2)
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab += [(piece, float(np.float32(-rng.uniform(2, 12)))) for piece in pieces]
    vocab += [("<mask>", 0.0)]
    nothing = np.frombuffer(np.uint32(2048).tobytes() + bytes(2048), np.uint8)
    charsmap = {"_spm_precompiled_charsmap": nothing.tobytes()} if has_map else {}
    wanted = transformers.XLMRobertaTokenizer(vocab=vocab, **charsmap)
    named = {name for name, score in vocab if name.startswith("<")}
    settings = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [piece for piece, _ in vocab],
        "tokenizer.ggml.scores": np.array([score for _, score in vocab], np.float32),
        "tokenizer.ggml.token_type": np.array([3 if piece in named else 1 for piece, _ in vocab], np.int32),
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        **({"tokenizer.ggml.precompiled_charsmap": nothing} if has_map else {}),
    }
    ours = gguf_tokenizer(settings, "m.gguf")
    for text in (*TEXTS, "the cats  that chase.", "", "日本 é the", "that<mask>cat"):
        assert ours.encode(text) == wanted.encode(text), text
    assert list(ours.encode_prompt("the cat", "that").ids) == wanted.encode("the cat", "that")
