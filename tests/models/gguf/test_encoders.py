"""GGUF files of encoders, as llama.cpp's converters make them of a checkpoint: the same bits as that checkpoint's, and
its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import albireo
from albireo.errors import UnsupportedModel
from albireo.json_file import read_json
from albireo.models import load_config
from albireo.text.gguf_tokenizer import gguf_tokenizer
from e2e.test_encoders import embedded, opened, pooling, prompts, saved, with_modules
from models.gguf.conversion_keys import Config
from models.gguf.conversions import Conversion, write
from models.gguf.writer import Array, words
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
    for kind, named in ((MEAN, "mean"), (CLS, "cls"), (LAST, "last")):
        path = converted(folder, tmp_path / f"{named}.gguf", pooling_type=kind)
        assert embedded(opened(path, dtype="float32"), None, prompts()) == embedded(llm, named, prompts())  # type: ignore[arg-type]


def _gemma(name: str, array: Array, c: Config) -> Iterator[tuple[str, Array]]:
    """Gemma3Model.modify_tensors(), and EmbeddingGemma's of its linears."""
    yield name, array + np.float32(1) if name.endswith("norm.weight") else array


def _words(writer: Any) -> None:
    """A tokenizer, whose BOS is that of the model."""
    writer.add_bos_token_id = lambda token_id: None
    words(writer)
    del writer.add_bos_token_id


@pytest.mark.parametrize("has_linears", [True, False])
def test_gemma_that_embeds(has_linears: bool, tmp_path: Path) -> None:
    """As EmbeddingGemma's converter writes it: windows by their whole length, linears of its modules where they were
    asked for, a mean."""
    from safetensors.numpy import load_file, save_file

    folder = saved(tmp_path / "model", "gemma3_text", query_pre_attn_scalar=16)
    config, weights = read_json(folder / "config.json"), load_file(folder / "model.safetensors")
    weights = {f"model.{name.removeprefix('model.')}": array for name, array in weights.items()}
    settings: dict[str, Any] = {
        "attention.causal": False,
        "attention.sliding_window": config["sliding_window"],
        "attention.sliding_window_pattern": 2,
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "rope.freq_base": 1000000.0,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 8.0,
        "pooling_type": MEAN,
    }
    rng = np.random.default_rng(6)
    sizes = {"dense_2": (64, 48), "dense_3": (24, 64)} if has_linears else {}
    modules: list[Any] = [("Transformer", None), ("Pooling", pooling(mean_tokens=True))]
    for name, (out, given) in sizes.items():
        weights[f"{name}_out.weight"] = (0.2 * rng.standard_normal((out, given))).astype(np.float32)
        settings |= {f"{name}_feat_in": given, f"{name}_feat_out": out}
        modules.append(("Dense", {"activation_function": "torch.nn.modules.linear.Identity"}))
    with_modules(folder, *modules, ("Normalize", None))
    for place, name in enumerate(sizes):
        file = folder / f"{place + 2}_Dense" / "model.safetensors"
        save_file({"linear.weight": weights[f"{name}_out.weight"]}, file)
    path = tmp_path / "model.gguf"
    write(path, config, weights, Conversion("gemma-embedding", change=_gemma), "F32", settings, _words)
    wanted = embedded(opened(folder), None, prompts())
    found = embedded(opened(path, dtype="float32"), None, prompts())
    assert len(found[0]) == (24 if has_linears else 48)
    # norms hold what is one more, rounded
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    albireo.build(path, tmp_path / "built")
    assert embedded(opened(tmp_path / "built"), None, prompts()) == found


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
