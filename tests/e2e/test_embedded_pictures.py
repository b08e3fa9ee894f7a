"""Embeddings of prompts with pictures, against hidden states of transformers' models on random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, PoolingParams, SamplingParams
from albireo.errors import InvalidParams, UnsupportedFeature
from e2e.test_encoders import with_modules
from e2e.test_images import said
from tiny_sights import FAMILIES, Theirs, picture, save

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PICTURES = [picture(50, 30), picture(40, 72, 3)]


@pytest.mark.parametrize(
    "name",
    [
        # the middle layers of which have rows of pictures added, and tokens whose pictures see all of themselves
        *("qwen3_vl", "gemma3"),
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("qwen2_vl", "internvl", "paligemma", "qwen3_5")),
    ],
)
def test_embeddings_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder, mark = save(tmp_path, name), FAMILIES[name].mark
    theirs = Theirs(folder, name)
    texts = [f"Represent: {mark}", f"{mark} or {mark}?", "Hello"]
    chats = [said(PICTURES[0]), said(*PICTURES), said("Hello")]
    prompts: list[Any] = [
        {"prompt": texts[0], "multi_modal_data": {"image": PICTURES[:1]}},
        {"prompt": texts[1], "multi_modal_data": {"image": PICTURES}},
        texts[2],
    ]
    # a prompt that sees itself is in one step
    least = 8 if name != "paligemma" else 64
    found, of_tokens = [], []
    for settings in ({}, {"max_num_batched_tokens": least, "enable_prefix_caching": False}):
        with LLM(str(folder), dtype="float32", num_threads=1, block_size=8, **settings) as llm:
            found.append(llm.embed(prompts, use_tqdm=False))
            of_tokens = llm.encode(prompts[:1], pooling_task="token_embed", use_tqdm=False)
            written = llm.generate(prompts[0], SamplingParams(temperature=0, max_tokens=2), use_tqdm=False)
            assert len(written[0].outputs[0].token_ids) == 2
            with pytest.raises(InvalidParams, match="a prompt with images, sounds or videos is not cut"):
                llm.embed(prompts[0], PoolingParams(truncate_prompt_tokens=3), use_tqdm=False)
    assert [each.outputs.embedding for each in found[0]] == [each.outputs.embedding for each in found[1]]
    for place, (chat, output) in enumerate(zip(chats, found[0], strict=True)):
        inputs = theirs.inputs(chat, output.prompt_token_ids)
        with torch.no_grad():
            hidden = theirs.model.model(**inputs).last_hidden_state[0].double().numpy()
        wanted = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
        np.testing.assert_allclose(output.outputs.embedding, wanted[-1], atol=2e-5)
        if place == 0:
            np.testing.assert_allclose(of_tokens[0].outputs.data, wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "base"), [("colqwen2", "qwen2_vl"), ("colqwen3", "qwen3_vl"), ("ops_colqwen3", "qwen3_vl")]
)
def test_pages_have_a_vector_of_each_token(name: str, base: str, tmp_path: Path) -> None:
    """A linear behind what reads, as published: transformers' ColQwen2 has all of what reads in one part, and tensors
    under a name of their own. The reader's hidden states go through the linear, as transformers computes both. (Its
    ColQwen2 itself turns rows of pictures as it turns text.)"""
    from safetensors.torch import load_file, save_file

    folder, mark = save(tmp_path, base), FAMILIES[base].mark
    theirs = Theirs(folder, base)
    hidden_size = theirs.model.config.get_text_config().hidden_size
    torch.manual_seed(0)
    linear = torch.nn.Linear(hidden_size, 16, bias=name == "colqwen2")
    data = json.loads((folder / "config.json").read_text())
    if name == "colqwen2":
        config = transformers.ColQwen2Config(vlm_config=data, embedding_dim=16)
        whole = transformers.ColQwen2ForRetrieval(config)
        whole.vlm.load_state_dict(theirs.model.model.state_dict())
        whole.embedding_proj_layer.load_state_dict(linear.state_dict())
        whole.save_pretrained(folder)
    else:
        of_ops, tensors = name == "ops_colqwen3", load_file(folder / "model.safetensors")
        head, begins = ("custom_text_proj", "") if of_ops else ("embedding_proj_layer", "vlm.model.")
        read = {begins + key.removeprefix("model."): tensors[key] for key in tensors if not key.startswith("lm_head.")}
        save_file({**read, f"{head}.weight": linear.weight.detach()}, folder / "model.safetensors")
        of_class = {"architectures": ["OpsColQwen3Model" if of_ops else "ColQwen3"], "model_type": name}
        (folder / "config.json").write_text(json.dumps({**data, ("dims" if of_ops else "embed_dim"): 16, **of_class}))
    inputs = {"prompt": f"Page: {mark}", "multi_modal_data": {"image": PICTURES[:1]}}
    with LLM(str(folder), dtype="float32", num_threads=1, block_size=8) as llm:
        found = llm.encode([inputs, "Query: a fox"], use_tqdm=False)
        with pytest.raises(UnsupportedFeature, match="gives an embedding of each token"):
            llm.generate("a", use_tqdm=False)
    (folder / "config.json").write_text(json.dumps(data))
    for chat, output in zip([said(PICTURES[0]), said("a fox")], found, strict=True):
        given = theirs.inputs(chat, output.prompt_token_ids)
        with torch.no_grad():
            wanted = linear(theirs.model.model(**given).last_hidden_state[0])
        wanted = torch.nn.functional.normalize(wanted, dim=-1).numpy()
        np.testing.assert_allclose(output.outputs.data, wanted, atol=2e-5)


#: As of Qwen3-VL-Reranker: it looks for the roles of a pair, and marks pictures of their contents.
_PAIRS = (
    "{% for message in messages %}{% if message.role == 'query' %}<|im_start|>Query: "
    "{% elif message.role == 'document' %}Document: {% endif %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}MARK{% endif %}{% endfor %}{% endfor %}<|im_end|>"
)


def test_pairs_with_pictures_are_scored_by_two_tokens(tmp_path: Path) -> None:
    """LogitScore behind a model that sees: what is likelier behind a pair, as transformers has it."""
    folder = save(tmp_path, "qwen3_vl")
    (folder / "chat_template.jinja").write_text(_PAIRS.replace("MARK", FAMILIES["qwen3_vl"].mark))
    yes, no = 40, 50
    with_modules(folder, ("Transformer", None), ("LogitScore", {"true_token_id": yes, "false_token_id": no}))
    theirs = Theirs(folder, "qwen3_vl")
    documents: list[Any] = [
        {"content": [{"type": "image", "image": PICTURES[0]}]},
        {"content": [{"type": "text", "text": "A cat: "}, {"type": "image", "image": PICTURES[1]}]},
        "A cat",
    ]

    def exact(document: Any, prompt: list[int]) -> float:
        content = [{"type": "text", "text": document}] if isinstance(document, str) else document["content"]
        inputs = theirs.inputs([{"role": "document", "content": content}], prompt)
        with torch.no_grad():
            logits = theirs.model(**inputs).logits[0, -1].double()
        return float(torch.sigmoid(logits[yes] - logits[no]))

    with LLM(str(folder), dtype="float32", num_threads=1, block_size=8) as llm:
        outputs = llm.score("A cat?", documents, use_tqdm=False)
        assert llm.loaded is not None and llm.loaded.tokenizer is not None
        written = [llm.loaded.tokenizer.decode(each.prompt_token_ids) for each in outputs]
        with pytest.raises(InvalidParams, match="a pair with images is not cut"):
            cut = PoolingParams(truncate_prompt_tokens=50)
            llm.score("A cat?", documents[0], pooling_params=cut, use_tqdm=False)
    assert written[2] == "Query: A cat?Document: A cat" and written[1].startswith("Query: A cat?Document: A cat: ")
    found = [each.outputs.score for each in outputs]
    wanted = [exact(each, output.prompt_token_ids) for each, output in zip(documents, outputs, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
    assert np.ptp(found) > 1e-3
