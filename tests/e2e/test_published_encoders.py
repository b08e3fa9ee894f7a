"""Encoders as they were published with code of their own, before transformers had their classes: the same bits as from
what transformers writes today, whose numbers test_encoders.py holds to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import albireo
from albireo.errors import ModelError, UnsupportedModel
from albireo.models import load_architecture
from e2e.test_encoders import CONFIGS, classified, embedded, farthest, opened, pooled, prompts, saved
from tiny_encoders import hidden_states, logits, save_encoder, torch, transformers

#: Of nomic-embed-text-v1.5, as its config.json has them; what is of the tiny model comes beside.
NOMIC = {
    "activation_function": "swiglu",
    "architectures": ["NomicBertModel"],
    "attn_pdrop": 0.0,
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "causal": False,
    "dense_seq_output": True,
    "fused_bias_fc": True,
    "fused_dropout_add_ln": True,
    "layer_norm_epsilon": 1e-12,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic_bert",
    "pad_vocab_size_multiple": 64,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_type": "cls_index",
    "torch_dtype": "float32",
    "type_vocab_size": 2,
    "use_cache": True,
    "use_flash_attn": True,
    "use_rms_norm": False,
    "use_xentropy": True,
    "vocab_size": 131,
    "n_embd": 48,
    "n_head": 3,
    "n_inner": 80,
    "n_layer": 2,
    "n_positions": 8192,
    "max_trained_positions": 96,
}
#: Of gte-multilingual-base, likewise.
NEW = {
    "architectures": ["NewModel", "NewForTokenClassification"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
    "classifier_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 48,
    "id2label": {"0": "LABEL_0"},
    "intermediate_size": 80,
    "label2id": {"LABEL_0": 0},
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": 96,
    "model_type": "new",
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "pack_qkv": True,
    "pad_token_id": 1,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "torch_dtype": "float32",
    "type_vocab_size": 1,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "vocab_size": 131,
}


def written(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def as_transformers_has_it(folder: Path, target: Path) -> Path:
    """The same model under the names of tensors that its class has."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    model.save_pretrained(target, save_original_format=False)
    return target


@pytest.mark.parametrize("name", ["nomic_bert", "gte", "jina_embeddings_v3"])
def test_names_of_tensors(name: str, tmp_path: Path) -> None:
    """transformers saves such models as they were published, and reads both."""
    from safetensors import safe_open

    folder = saved(tmp_path / "first", name)
    own = as_transformers_has_it(folder, tmp_path / "own")
    found = []
    for each in (folder, own):
        with safe_open(each / "model.safetensors", "pt") as file:
            found.append(set(file.keys()))
    assert len(found[0]) < len(found[1])
    assert embedded(opened(folder), "mean", prompts()) == embedded(opened(own), "mean", prompts())


def test_nomic_by_the_keys_of_its_first_config(tmp_path: Path) -> None:
    folder = saved(tmp_path, "nomic_bert")
    wanted = embedded(opened(folder), "mean", prompts())
    assert embedded(opened(written(folder, NOMIC)), "mean", prompts()) == wanted
    with pytest.raises(UnsupportedModel, match="'moe_every_n_layers': 2"):
        opened(written(folder, NOMIC | {"moe_every_n_layers": 2}))
    with pytest.raises(UnsupportedModel, match="'rotary_emb_interleaved': True"):
        opened(written(folder, NOMIC | {"rotary_emb_interleaved": True}))
    with pytest.raises(UnsupportedModel, match="activation_function='gelu'"):
        opened(written(folder, NOMIC | {"activation_function": "gelu"}))


def test_gte_by_its_first_name_and_with_its_own_rotation(tmp_path: Path) -> None:
    """Its code multiplies the base by the factor and divides frequencies by the factor's power of 2 / head_dim, which
    transformers can be told in other words."""
    rope = {"rope_type": "linear", "rope_theta": 160000.0, "factor": 8.0 ** (2 / 16)}
    folder = saved(tmp_path, "gte", rope_parameters=rope)
    exact = pooled(hidden_states(folder, prompts(), "float64"), "mean")
    ours = embedded(opened(written(folder, NEW)), "mean", prompts(), use_activation=False)
    assert farthest(ours, exact) < 5e-6
    other = written(folder, NEW | {"rope_scaling": None})
    assert farthest(embedded(opened(other), "mean", prompts(), use_activation=False), exact) > 0.01
    with pytest.raises(UnsupportedModel, match="mixed_b"):
        opened(written(folder, NEW | {"rope_scaling": {"factor": 8.0, "type": "ntk", "mixed_b": 0.5}}))
    with pytest.raises(UnsupportedModel, match="logn_attention_scale"):
        opened(written(folder, NEW | {"logn_attention_scale": True}))


#: Of jina-embeddings-v3, likewise.
JINA = {
    "architectures": ["XLMRobertaModel"],
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
    "bos_token_id": 0,
    "emb_pooler": "mean",
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_size": 48,
    "intermediate_size": 80,
    "layer_norm_eps": 1e-05,
    "load_trained_adapters": True,
    "lora_adaptations": ["retrieval.query", "text-matching"],
    "lora_alpha": 3,
    "lora_dropout_p": 0.0,
    "lora_main_params_trainable": False,
    "lora_rank": 4,
    "matryoshka_dimensions": [16, 32],
    "max_position_embeddings": 96,
    "model_type": "xlm-roberta",
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "output_past": True,
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "task_instructions": {"retrieval.query": "Represent the query: ", "text-matching": ""},
    "torch_dtype": "float32",
    "truncate_dim": None,
    "type_vocab_size": 1,
    "use_cache": True,
    "use_flash_attn": True,
    "vocab_size": 131,
}


def test_jina_with_the_adapter_of_a_task(tmp_path: Path) -> None:
    """Of every matrix, the table of embeddings among them, the product of two parts is added, as its code does."""
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "plain", "jina_embeddings_v3")
    published = tmp_path / "published"
    published.mkdir()
    torch.manual_seed(1)
    tensors, found, with_task = load_file(folder / "model.safetensors"), {}, {}
    for name, matrix in tensors.items():
        with_task[name] = matrix
        if matrix.ndim < 2:
            found[f"roberta.{name}"] = matrix
            continue
        rows, columns = matrix.shape
        first, second = ((rows, 4), (4, columns)) if "embeddings" in name else ((4, columns), (rows, 4))
        a, b = torch.randn(2, *first), torch.randn(2, *second) * 0.2
        stem = f"roberta.{name.removesuffix('.weight')}.parametrizations.weight"
        found |= {f"{stem}.original": matrix, f"{stem}.0.lora_A": a, f"{stem}.0.lora_B": b}
        product = a[1] @ b[1] if "embeddings" in name else b[1] @ a[1]
        with_task[name] = (matrix.double() + product.double() * 3 / 4).float()
    save_file({name: each.contiguous() for name, each in found.items()}, published / "model.safetensors")
    plain = embedded(opened(folder), "mean", prompts())
    assert embedded(opened(written(published, JINA)), "mean", prompts()) == plain
    save_file(with_task, folder / "model.safetensors", {"format": "pt"})
    exact = pooled(hidden_states(folder, prompts(), "float64"), "mean")
    written(published, JINA | {"default_task": "text-matching"})
    ours = embedded(opened(published), "mean", prompts(), use_activation=False)
    assert farthest(ours, exact) < 5e-6
    albireo.build(published, tmp_path / "built")
    assert embedded(opened(tmp_path / "built"), "mean", prompts(), use_activation=False) == ours
    with pytest.raises(ModelError, match=r"default_task='poetry' must be one of .*: retrieval\.query, text-matching"):
        opened(written(published, JINA | {"default_task": "poetry"}))


def test_a_reranker_of_the_code_of_jina(tmp_path: Path) -> None:
    """jina-reranker-v2: an XLM-RoBERTa by other names, with q, k and v in one tensor."""
    from safetensors.torch import load_file, save_file

    config = CONFIGS["xlm_roberta"] | {"architectures": ["XLMRobertaForSequenceClassification"], "num_labels": 1}
    folder = save_encoder(tmp_path, config, 5)
    wanted = classified(opened(folder), prompts(), use_activation=False)
    tensors, found = load_file(folder / "model.safetensors"), {}
    names = {
        "embeddings.LayerNorm.": "emb_ln.",
        "encoder.layer.": "encoder.layers.",
        ".attention.output.dense.": ".mixer.out_proj.",
        ".attention.output.LayerNorm.": ".norm1.",
        ".output.LayerNorm.": ".norm2.",
        ".intermediate.dense.": ".mlp.fc1.",
        ".output.dense.": ".mlp.fc2.",
    }
    for name, tensor in tensors.items():
        stem, _, part = name.partition(".attention.self.")
        if not part:
            for new, old in names.items():
                name = name.replace(new, old)
            found[name] = tensor
        elif part.startswith("query."):
            parts = [
                tensors[f"{stem}.attention.self.{part.replace('query', each)}"] for each in ("query", "key", "value")
            ]
            found[f"{stem.replace('.layer.', '.layers.')}.mixer.Wqkv.{part.removeprefix('query.')}"] = torch.cat(parts)
    save_file(found, folder / "model.safetensors")
    sizes = {key: JINA[key] for key in JINA if key not in ("lora_adaptations", "default_task")}
    own = {"architectures": ["XLMRobertaForSequenceClassification"], "position_embedding_type": "absolute"}
    own |= {"max_position_embeddings": 98, "id2label": {"0": "LABEL_0"}, "lora_adaptations": None}
    assert classified(opened(written(folder, sizes | own)), prompts(), use_activation=False) == wanted


def test_a_reranker_by_its_first_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = CONFIGS["gte"] | {"architectures": ["GteForSequenceClassification"], "num_labels": 1, "type_vocab_size": 0}
    folder = save_encoder(tmp_path, config, 5)
    exact = logits(folder, prompts(), "float64")
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.replace("gte.", "new."): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    own = {"architectures": ["NewForSequenceClassification"], "rope_scaling": None, "rope_theta": 160000}
    written(folder, NEW | own | {"type_vocab_size": 0})
    assert farthest(classified(opened(folder), prompts(), use_activation=False), exact) < 5e-6


@pytest.mark.parametrize("kind", ["bos", "mean"])
def test_what_eurobert_pools_before_its_classifier(kind: str, tmp_path: Path) -> None:
    config = CONFIGS["eurobert"] | {"architectures": ["EuroBertForSequenceClassification"]}
    folder = save_encoder(tmp_path, {**config, "classifier_pooling": kind, "num_labels": 3}, 5)
    exact = logits(folder, prompts(), "float64")
    data = json.loads((folder / "config.json").read_text())
    data["clf_pooling"] = data.pop("classifier_pooling")  # as its own code calls it
    assert farthest(classified(opened(written(folder, data)), prompts(), use_activation=False), exact) < 5e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"share_att_key": False, "norm_rel_ebd": "none", "max_relative_positions": 20},
        {"position_buckets": -1, "max_relative_positions": 24},
        {"position_biased_input": True, "type_vocab_size": 2, "position_buckets": -1, "pos_att_type": ["c2p", "p2c"]},
    ],
    ids=["own linears", "as many columns as distances", "positions, too"],
)
def test_kinds_of_deberta(changes: dict[str, Any], tmp_path: Path) -> None:
    """Distances of up to 89 between tokens: farther than what is told apart, too."""
    folder = saved(tmp_path, "deberta_v2", **changes)
    data = json.loads((folder / "config.json").read_text())
    written(folder, data | {"pos_att_type": "|".join(data["pos_att_type"])})  # as older files have it
    exact = hidden_states(folder, prompts(), "float64")
    llm = opened(folder)
    for kind in ("cls", "mean"):
        ours = embedded(llm, kind, prompts(), use_activation=False)  # type: ignore[arg-type]
        assert farthest(ours, pooled(exact, kind)) < 5e-6  # type: ignore[arg-type]


def test_albert_of_one_group_and_both_as_wide_as_their_embeddings(tmp_path: Path) -> None:
    """Albert has a linear between them even so."""
    wide = {"embedding_size": 48}
    for name, changes in (("albert", {"num_hidden_groups": 1}), ("albert", wide), ("electra", wide)):
        folder = saved(tmp_path / f"{name} {changes}", name, **changes)
        exact = pooled(hidden_states(folder, prompts(), "float64"), "cls")
        assert farthest(embedded(opened(folder), "cls", prompts(), use_activation=False), exact) < 5e-6


@pytest.mark.parametrize("has_tasks", [True, False])
def test_ernie_with_tasks_and_without(has_tasks: bool, tmp_path: Path) -> None:
    """text2vec; of two texts, too, whose tokens have two types and the same task. Also from a directory."""
    folder = saved(tmp_path / "model", "ernie", use_task_id=has_tasks)
    exact = hidden_states(folder, prompts(), "float64")
    llm = opened(folder)
    for kind in ("cls", "mean"):
        assert farthest(embedded(llm, kind, prompts(), use_activation=False), pooled(exact, kind)) < 5e-6  # type: ignore[arg-type]
    albireo.build(folder, tmp_path / "built")
    assert embedded(opened(tmp_path / "built"), None, prompts()) == embedded(llm, None, prompts())


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_the_encoder_of_t5(kind: str, tmp_path: Path) -> None:
    """Its class in transformers is not the one that AutoModel takes."""
    folder = save_encoder(tmp_path, load_architecture("t5").tiny | {"feed_forward_proj": kind}, 4)
    model = transformers.T5EncoderModel.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        states = [model(torch.tensor([ids])).last_hidden_state[0].numpy() for ids in prompts()]
    llm = opened(folder)
    for pooling in ("mean", "last"):
        ours = embedded(llm, pooling, prompts(), use_activation=False)  # type: ignore[arg-type]
        assert farthest(ours, pooled(states, pooling)) < 5e-6  # type: ignore[arg-type]
    assert embedded(llm, None, prompts()) == embedded(llm, "mean", prompts())
