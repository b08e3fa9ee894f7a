"""Embeddings that have a weight for each entry of the vocabulary (SPLADE): against transformers' masked language
models, and the same bits however they are served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import albireo
from albireo import LLM, PoolingParams
from albireo.errors import InvalidParams, ModelError, UnsupportedFeature
from albireo.models import load_architecture
from e2e.serving import spoil
from tiny_classifiers import save_model
from tiny_encoders import Vectors, change_config, save_encoder, transformers
from tiny_tokenizers import bert_tokenizer

CLASSES = {
    "bert": "BertForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "mpnet": "MPNetForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "ernie": "ErnieForMaskedLM",
}
MODULES = (("", "sparse_encoder.models.MLMTransformer"), ("1_SpladePooling", "sparse_encoder.models.SpladePooling"))


def saved(folder: Path, name: str, dtype: str = "float32", **pooling: Any) -> Path:
    """As sentence-transformers keeps one."""
    save_encoder(folder, {**load_architecture(name).tiny, "architectures": [CLASSES[name]]}, 4, dtype)
    listed = [{"path": path, "type": f"sentence_transformers.{kind}"} for path, kind in MODULES]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_SpladePooling").mkdir()
    said = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": 131, **pooling}
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(said))
    return folder


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(3, 127, length).tolist() for length in (1, 2, 33, 90, 64, 17)]


def opened(folder: Path, **config: Any) -> LLM:
    defaults = {"num_threads": 1, "skip_tokenizer_init": True, "max_model_len": 90, "dtype": "float32"}
    return LLM(str(folder), use_tqdm_on_load=False, **{**defaults, **config})


def weights(llm: LLM, which: Sequence[list[int]], **params: Any) -> list[list[float]]:
    assert llm.loaded is not None
    spoil(llm.loaded.model)
    asked = [{"prompt_token_ids": ids} for ids in which]
    return [out.outputs.embedding for out in llm.embed(asked, PoolingParams(**params), use_tqdm=False)]


def theirs(folder: Path, dtype: str) -> Vectors:
    """log(1 + relu) of transformers' logits, the largest of each over the tokens."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    kind = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0] for ids in prompts()]
    return [torch.log1p(torch.relu(each.double())).amax(dim=0).numpy() for each in logits]


@pytest.mark.parametrize("name", CLASSES)
def test_they_are_transformers(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, name)
    exact, noisy = theirs(folder, "float64"), theirs(folder, "float32")
    noise = max(float(np.abs(a - b).max()) for a, b in zip(noisy, exact, strict=True))
    for found, wanted in zip(weights(opened(folder), prompts()), exact, strict=True):
        assert len(found) == 131 and np.abs(np.array(found) - wanted).max() < max(4 * noise, 2e-6)
        assert [at for at, each in enumerate(found) if each] == np.flatnonzero(wanted).tolist()
    assert 0 < np.count_nonzero(exact[0]) < 131, "nothing is sparse"


def test_twice_the_logarithm(tmp_path: Path) -> None:
    (once,) = weights(opened(saved(tmp_path / "once", "bert")), prompts()[2:3])
    (twice,) = weights(opened(saved(tmp_path / "twice", "bert", activation_function="log1p_relu")), prompts()[2:3])
    assert twice == pytest.approx(np.log1p(once), rel=1e-6) and twice != once


def test_the_same_bits_in_any_company_and_from_an_engine_directory(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "distilbert")
    lone = opened(folder)
    alone = [weights(lone, [ids])[0] for ids in prompts()]
    built = tmp_path / "built"
    albireo.build(folder, built)
    for where, config in (
        (folder, {}),
        (folder, {"max_num_batched_tokens": 90, "block_size": 8}),
        (folder, {"num_threads": 3, "max_num_seqs": 2}),
        (built, {}),
    ):
        assert weights(opened(where, **config), prompts()) == alone, config


def test_they_are_compared_by_their_product(tmp_path: Path) -> None:
    save_model(tmp_path, "Bert", "ForMaskedLM", bert_tokenizer())
    change_config(tmp_path, architectures=["BertSpladeSparseEmbeddingModel"])  # as vLLM is told of one
    llm = LLM(str(tmp_path), dtype="float32", num_threads=1, use_tqdm_on_load=False)
    texts = ["a dog ran", "the cats", "once upon a time"]
    first, *others = (np.array(out.outputs.embedding) for out in llm.embed(texts, use_tqdm=False))
    found = [out.outputs.score for out in llm.score(texts[0], texts[1:], use_tqdm=False)]
    assert found == pytest.approx([float(first @ other) for other in others], rel=1e-12) and max(found) > 1


@pytest.mark.parametrize(
    ("said", "similarity"), [(None, "cosine"), ("cosine", "cosine"), ("dot", "dot"), ("dot_product", "dot")]
)
def test_embeddings_are_compared_as_the_files_say(said: str | None, similarity: str, tmp_path: Path) -> None:
    """Dense ones, too: models that were trained for products of embeddings of any length."""
    save_model(tmp_path, "Bert", "Model", bert_tokenizer())
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": said}))
    llm = LLM(str(tmp_path), dtype="float32", num_threads=1, use_tqdm_on_load=False)
    bare, texts = PoolingParams(use_activation=False), ["a dog ran", "the cats", "once upon a time"]
    first, *others = (np.array(out.outputs.embedding) for out in llm.embed(texts, bare, use_tqdm=False))
    lengths = [1.0 if similarity == "dot" else np.linalg.norm(first) * np.linalg.norm(other) for other in others]
    wanted = [float(first @ other) / length for other, length in zip(others, lengths, strict=True)]
    found = [out.outputs.score for out in llm.score(texts[0], texts[1:], pooling_params=bare, use_tqdm=False)]
    assert found == pytest.approx(wanted, rel=1e-9)


def test_a_comparison_that_is_not_known_is_refused_when_it_is_wanted(tmp_path: Path) -> None:
    save_model(tmp_path, "Bert", "Model", bert_tokenizer())
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": "euclidean"}))
    llm = LLM(str(tmp_path), dtype="float32", num_threads=1, use_tqdm_on_load=False)
    assert llm.embed("the", use_tqdm=False)[0].outputs.embedding
    with pytest.raises(UnsupportedFeature, match="compared by 'euclidean'"):
        llm.score("the", "a cat", use_tqdm=False)


def test_what_is_refused(tmp_path: Path) -> None:
    llm = opened(saved(tmp_path / "bert", "bert"))
    for params, words in (({"pooling_type": "mean"}, "pooling_type=mean"), ({"dimensions": 8}, "dimensions=8")):
        with pytest.raises(InvalidParams, match=f"{words}: this model's embedding has a weight for each entry"):
            weights(llm, prompts()[:1], **params)
    with pytest.raises(UnsupportedFeature, match="it gives no embeddings of tokens"):
        llm.encode([{"prompt_token_ids": [3]}], pooling_task="token_embed")
    with pytest.raises(ModelError, match="pooling_strategy"):
        opened(saved(tmp_path / "sum", "bert", pooling_strategy="sum"))
    change_config(saved(tmp_path / "untied", "bert"), tie_word_embeddings=False)
    with pytest.raises(ModelError, match="tie_word_embeddings"):
        opened(tmp_path / "untied")
    (tmp_path / "bert" / "config.json").write_text(
        json.dumps({**load_architecture("albert").tiny, "architectures": ["AlbertForMaskedLM"]})
    )
    with pytest.raises(ModelError, match="AlbertSpladeSparseEmbeddingModel"):
        opened(tmp_path / "bert")
