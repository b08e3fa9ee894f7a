"""Configs of encoders: what is read of them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.models import encoder_types, load_architecture
from albireo.models.config import ModelConfig
from albireo.models.config_keys import parse_config
from albireo.models.encoders.mpnet import bucket

#: Towers of texts beside towers of pictures, which are held to transformers in e2e/test_pairs.py.
PAIRED = ("clip_text_model", "siglip_text_model")


def parsed(model_type: str, **changes: Any) -> ModelConfig:
    architecture = load_architecture(model_type)
    data = {key: value for key, value in {**architecture.tiny, **changes}.items() if value is not None}
    return parse_config(data, architecture.rules)


def test_those_there_are() -> None:
    of_transformers = "albert bert camembert deberta_v2 distilbert electra ernie eurobert gte jina_embeddings_v3"
    of_transformers += " modernbert mpnet nomic_bert roberta t5 xlm_roberta"
    assert set(encoder_types()) == {*of_transformers.split(), *PAIRED, "new", "llama_bidirec"}
    assert load_architecture("xlm-roberta").rules is load_architecture("xlm_roberta").rules


@pytest.mark.parametrize("name", [name for name in encoder_types() if name not in PAIRED])
def test_tokens_see_both_ways_and_no_text_is_written(name: str) -> None:
    config = parsed(name)
    assert config.blocks.sees_both_ways and config.pooling is not None
    assert (config.pooling.task, config.pooling.is_causal) == ("embed", False)


def test_texts_beside_pictures() -> None:
    """CLIP's tokens see what is before them, and SigLIP's all others, of which there are always as many."""
    clip, siglip = (parsed(name) for name in PAIRED)
    for config, is_causal, pads_to in ((clip, True, 0), (siglip, False, 16)):
        assert config.pooling is not None and config.pooling.is_causal is is_causal
        assert config.blocks.sees_both_ways is not is_causal
        assert (config.pooling.pads_to, config.pooling.is_of_pictures) == (pads_to, True)


def test_the_first_position_is_behind_the_paddings() -> None:
    """514 rows are 512 positions; a padding of 0 leaves one row before the first."""
    assert parsed("roberta", max_position_embeddings=514).max_position_embeddings == 512
    assert parsed("roberta", max_position_embeddings=514, pad_token_id=0).max_position_embeddings == 513
    with pytest.raises(ModelError, match="max_position_embeddings=2"):
        parsed("roberta", max_position_embeddings=2)


def test_windows_of_modernbert_are_halves_and_the_token() -> None:
    """Every third layer sees all, the first among them; or as layer_types says."""
    assert parsed("modernbert", local_attention=128).windows == (None, 65, 65, None)
    assert parsed("modernbert", global_attn_every_n_layers=2).windows == (None, 13, None, 13)
    kinds = ["sliding_attention", "full_attention", "full_attention", "full_attention"]
    assert parsed("modernbert", layer_types=kinds).windows == (13, None, None, None)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("bert", {"architectures": ["BertForQuestionAnswering"]}, "architectures"),
        ("bert", {"hidden_act": "mish"}, "hidden_act"),
        (
            "modernbert",
            {"architectures": ["ModernBertForSequenceClassification"], "classifier_activation": "silu"},
            "classifier_activation",
        ),
        ("mpnet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets"),
        ("deberta-v2", {"relative_attention": False}, "relative_attention"),
        ("deberta-v2", {"pos_att_type": ["c2p"]}, "pos_att_type"),
        ("deberta-v2", {"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd"),
        ("deberta-v2", {"position_buckets": 96}, "position_buckets"),
        ("deberta-v2", {"conv_kernel_size": 3}, "conv_kernel_size"),
        ("deberta-v2", {"embedding_size": 24}, "embedding_size"),
        ("deberta-v2", {"attention_head_size": 8}, "attention_head_size"),
        ("albert", {"inner_group_num": 2}, "inner_group_num"),
        ("t5", {"relative_attention_max_distance": 64}, "relative_attention_max_distance"),
        ("t5", {"feed_forward_proj": "gated-silu"}, "feed_forward_proj"),
        ("t5", {"architectures": ["T5ForConditionalGeneration"]}, "architectures"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3_text", {"architectures": ["Gemma3ForQuestionAnswering"]}, "architectures"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        parsed(name, **changes)


@pytest.mark.parametrize(
    ("labels", "words"), [({"0": "a", "2": "b"}, "without a hole"), ({"a": "b"}, "without a hole"), (3, "id2label")]
)
def test_labels_that_are_none(labels: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        parsed("bert", architectures=["BertForSequenceClassification"], id2label=labels)


def test_buckets_of_distances_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.mpnet.modeling_mpnet")
    distances = range(-600, 601)
    theirs = modeling.MPNetEncoder.relative_position_bucket(torch.tensor(list(distances)))
    assert [bucket(max(-128, min(128, each))) for each in distances] == theirs.tolist()
