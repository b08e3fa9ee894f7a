"""Decoders that embed and rerank as they are published: without the head that their class has, seeing both ways, or
with a score made of two tokens' logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import albireo
from albireo import PoolingParams
from albireo.api.requests.scoring import Part
from albireo.api.requests.written_pair import written_pair
from albireo.errors import InvalidParams, ModelError, UnsupportedModel, WeightMismatch
from albireo.models import load_architecture
from albireo.text.chat_prompt import ChatEncoder
from e2e.test_encoders import Vectors, classified, embedded, farthest, opened, pooled, pooling, prompts, with_modules
from tiny_classifiers import save_model
from tiny_encoders import change_config, hidden_states, save_encoder, torch, transformers
from tiny_tokenizers import bert_tokenizer


def saved(folder: Path, name: str, kind: str, **changes: Any) -> Path:
    config = {**load_architecture(name).tiny, "pad_token_id": 0, **changes}
    stem = config["architectures"][0].removesuffix("ForCausalLM")
    return save_encoder(folder, config | {"architectures": [f"{stem}{kind}"]}, 6)


def last_and_scaled(states: Vectors) -> Vectors:
    return [each / np.linalg.norm(each) for each in pooled(states, "last")]


def test_without_the_head_of_its_class(tmp_path: Path) -> None:
    """Qwen3-Embedding-8B: tensors of the model alone under the name of one that writes text; also from a directory."""
    folder = saved(tmp_path / "model", "qwen3", "Model", tie_word_embeddings=False)
    change_config(folder, architectures=["Qwen3ForCausalLM"])
    with pytest.raises(WeightMismatch, match=r"1 missing: lm_head\.weight"):
        opened(folder)  # nothing says that it embeds
    with_modules(folder, ("Transformer", None), ("Pooling", pooling(lasttoken=True)), ("Normalize", None))
    ours = embedded(opened(folder), None, prompts())
    assert farthest(ours, last_and_scaled(hidden_states(folder, prompts(), "float64"))) < 5e-6
    albireo.build(folder, tmp_path / "built")
    assert embedded(opened(tmp_path / "built"), None, prompts()) == ours


def test_what_writes_text_after_modernbert_embeds_without_its_head(tmp_path: Path) -> None:
    """Whose tensors are called as the encoder's, but for queries, keys and values."""
    folder = saved(tmp_path, "modernbert_decoder", "Model", vocab_size=140, norm_bias=True)
    exact = hidden_states(folder, prompts(), "float64")
    for kind in ("last", "mean"):
        assert farthest(embedded(opened(folder), kind, prompts(), use_activation=False), pooled(exact, kind)) < 5e-6  # type: ignore[arg-type]
    change_config(folder, architectures=["ModernBertDecoderForSequenceClassification"])
    with pytest.raises(UnsupportedModel, match="a model_type modernbert-decoder writes text, or embeds"):
        opened(folder)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_tokens_see_each_other_where_the_config_says_so(name: str, tmp_path: Path) -> None:
    """gte-Qwen2: is_causal false, beside the name of a class that writes text, and code that is not run."""
    folder = saved(tmp_path / "model", name, "ForCausalLM", is_causal=False, vocab_size=140)
    code = {"AutoModelForCausalLM": f"modeling.{json.loads((folder / 'config.json').read_text())['architectures'][0]}"}
    change_config(folder, is_causal=False, auto_map=code)
    exact = hidden_states(folder, prompts(), "float64")
    llm = opened(folder)
    for kind in ("last", "mean", "cls"):
        assert farthest(embedded(llm, kind, prompts(), use_activation=False), pooled(exact, kind)) < 5e-6  # type: ignore[arg-type]
    change_config(folder, is_causal=True)
    causal = hidden_states(folder, prompts(), "float64")
    assert farthest(pooled(causal, "last"), pooled(exact, "last")) > 0.01


@pytest.mark.parametrize(("pooling_type", "kind"), [("avg", "mean"), ("last", "last")])
def test_llama_by_the_name_of_those_who_made_it_see_both_ways(pooling_type: str, kind: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path, "llama", "Model", is_causal=False)
    change_config(folder, is_causal=False)
    exact = [each / np.linalg.norm(each) for each in pooled(hidden_states(folder, prompts(), "float64"), kind)]
    own = {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"], "pooling": pooling_type}
    change_config(folder, is_causal=None, temperature=0.02, auto_map={"AutoModel": "llama.LlamaModel"}, **own)
    assert farthest(embedded(opened(folder), None, prompts()), exact) < 5e-6
    change_config(folder, architectures=["LlamaBidirectionalForSequenceClassification"])
    with pytest.raises(UnsupportedModel, match="is computed as LlamaBidirectionalModel"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [("bloom", "slopes"), ("deepseek_v3", "latents"), ("mamba2", "states"), ("gemma2", "sliding window")],
)
def test_who_cannot_see_both_ways(name: str, words: str, tmp_path: Path) -> None:
    config = {**load_architecture(name).tiny, "is_causal": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=rf"is_causal=False is not supported; .*{words}"):
        albireo.models.load_config(tmp_path)


def logits_of(folder: Path, dtype: str) -> Vectors:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0, -1].double().numpy() for ids in prompts()]


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("other", [7, None])
def test_a_score_of_two_tokens(is_tied: bool, other: int | None, tmp_path: Path) -> None:
    """Qwen3-Reranker as sentence-transformers has it: which is likelier behind a prompt, yes or no. It writes, too."""
    folder = saved(tmp_path / "model", "qwen3", "ForCausalLM", tie_word_embeddings=is_tied)
    with_modules(folder, ("Transformer", None), ("LogitScore", {"true_token_id": 9, "false_token_id": other}))
    wanted = [each[9] - (0 if other is None else each[other]) for each in logits_of(folder, "float64")]
    llm = opened(folder)
    ours = [scores[0] for scores in classified(llm, prompts(), use_activation=False)]
    assert np.abs(np.array(ours) - wanted).max() < 1e-5 * np.abs(wanted).max()
    probs = [scores[0] for scores in classified(llm, prompts())]
    assert np.allclose(probs, 1 / (1 + np.exp(-np.array(wanted))), rtol=0, atol=1e-5)
    assert llm.generate([{"prompt_token_ids": prompts()[2]}], albireo.SamplingParams(max_tokens=1))
    (folder / "config_sentence_transformers.json").write_text('{"activation_fn": "torch.nn.modules.linear.Identity"}')
    albireo.build(folder, tmp_path / "built")
    assert [scores[0] for scores in classified(opened(tmp_path / "built"), prompts())] == ours


#: Of words that the tokenizer knows: an unknown one is a special token.
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'query' %}the cat {{ message.content }}"
    "{% elif message.role == 'document' %} , a dog {{ message.content }} .{% endif %}{% endfor %} once"
)


def test_pairs_are_written_by_the_template_that_knows_their_roles(tmp_path: Path) -> None:
    """Against transformers; a text may be cut by itself, and the whole is not."""
    tokenizer = bert_tokenizer()
    tokenizer.chat_template = TEMPLATE
    model = save_model(tmp_path, "Qwen3", "ForCausalLM", tokenizer, pad_token_id=tokenizer.pad_token_id)
    with_modules(tmp_path, ("Transformer", None), ("LogitScore", {"true_token_id": 9, "false_token_id": 7}))
    query, texts = "the cat sat on a mat", ["a dog ran", "once upon a time , the cats", "the"]

    def exact(text: str) -> float:
        messages = [{"role": "query", "content": query}, {"role": "document", "content": text}]
        written = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(written, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            scores = model(ids).logits[0, -1]
        return float(torch.sigmoid(scores[9] - scores[7]))

    llm = opened(tmp_path, skip_tokenizer_init=False, max_model_len=60, dtype="float32")
    found = [output.outputs.score for output in llm.score(query, texts)]
    assert np.allclose(found, [exact(text) for text in texts], rtol=0, atol=1e-5) and len(set(found)) == 3
    with pytest.raises(InvalidParams, match="truncate_prompt_tokens=5: the pair has"):
        llm.score(query, texts[0], pooling_params=PoolingParams(truncate_prompt_tokens=5))
    parts = (Part(query, None), Part("a dog ran on a mat", 3))
    assert llm.loaded is not None and llm.loaded.tokenizer is not None
    cut = written_pair(ChatEncoder(llm.loaded.tokenizer), llm.loaded.tokenizer, *parts, None)
    assert cut == written_pair(ChatEncoder(llm.loaded.tokenizer), llm.loaded.tokenizer, parts[0], Part(texts[0]), None)


def test_scores_of_tokens_that_are_not_there(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "qwen3", "ForCausalLM")
    with_modules(folder, ("Transformer", None), ("LogitScore", {"true_token_id": 999}))
    with pytest.raises(WeightMismatch, match=r"151 rows, none for \(999,\)"):
        opened(folder)
    capped = saved(tmp_path / "gemma", "gemma2", "ForCausalLM")
    with_modules(capped, ("Transformer", None), ("LogitScore", {"true_token_id": 9}))
    with pytest.raises(ModelError, match="logits are divided or capped"):
        opened(capped)


def test_dimensions_that_a_model_was_trained_for(tmp_path: Path) -> None:
    folder = saved(tmp_path, "qwen3", "Model")
    change_config(folder, matryoshka_dimensions=[8, 16], is_matryoshka=True)
    llm = opened(folder)
    whole = embedded(llm, None, prompts(), use_activation=False)
    for size in (8, 16):
        ours = embedded(llm, None, prompts(), dimensions=size)
        assert farthest(ours, [np.array(each[:size]) / np.linalg.norm(each[:size]) for each in whole]) < 1e-6
    assert isinstance(PoolingParams(dimensions=8).dimensions, int)
