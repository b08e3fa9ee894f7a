"""The keys of config.json that say ExpertSettings, family by family.

Called by config.py. Does not know weights or graphs.
"""

from __future__ import annotations

from collections.abc import Mapping

from albireo.graph.op_numbers import MAX_CHOSEN, SCORES
from albireo.json_file import Fields
from albireo.models.settings.expert_layers import (
    check_any,
    layers_behind_dense_ones,
    layers_by_token,
    layers_of_deepseek,
    layers_of_ones,
    layers_of_qwen,
    limits_of_layers,
    sparse_layers,
)
from albireo.models.settings.expert_settings import MAX_EXPERTS, ExpertSettings, Keys
from albireo.models.settings.layer_kinds import parse_mixers

_MAX_WIDTH = 2**20
#: Experts where no key says how many.
_COUNTS: Mapping[str, int] = {"cohere2": 8, "flint": 256, "kolibri": 384, "laguna": 256, "lara": 128}
#: What DeepSeek V4's files call scores -> one of ops.SCORES.
_SCORES_OF_V4 = {"sqrtsoftplus": "root_softplus", "sigmoid": "sigmoid"}
_SCORES_OF_LING = ("softmax", "sigmoid")


def parse_experts(fields: Fields, keys: Keys, layers: int, width: int) -> ExpertSettings | None:
    """Args: width: intermediate_size. Returns: None for an architecture without experts.

    Raises: ModelError for a missing or impossible value; UnsupportedModel for a model without a layer that has experts.
    """
    if keys == "none":
        return None
    if keys == "bailing":  # of the first ones by a softmax, which is what is meant where nothing is said
        has_bias = fields.one_of("score_function", _SCORES_OF_LING, "softmax") == "sigmoid"
        if fields.flag("moe_router_enable_expert_bias", has_bias) != has_bias:
            fields.unsupported("moe_router_enable_expert_bias", not has_bias, "a bias of sigmoids, none of a softmax")
        keys = "deepseek" if has_bias else "deepseek_v1"
    if keys in ("deepseek", "deepseek_v1", "deepseek_v2", "dots3", "glm5", "hy_v4", "mimo", "mistral4"):
        return _deepseek(fields, layers, keys)
    if keys == "deepseek_v4":
        return _deepseek_v4(fields, layers)
    if keys == "ernie":
        return _ernie(fields, layers)
    if keys == "lfm2":
        return _lfm2(fields, layers)
    if keys == "gemma4":
        return _gemma4(fields, layers) if fields.flag("enable_moe_block", False) else None
    if keys == "nemotron_h":
        return _nemotron_h(fields)
    if keys == "granite_hybrid":
        return _granite_hybrid(fields, layers)
    if keys == "llama4":
        return _llama4(fields, layers)
    if keys == "zaya":
        return _zaya(fields, layers)
    if keys == "longcat":
        return _longcat(fields, layers)
    if keys == "jamba":
        return _jamba(fields, layers, width)
    if keys == "step":
        return _step(fields, layers)
    if keys == "hunyuan":
        return _hunyuan(fields, layers, width)
    count_key = "num_local_experts"
    if keys != "mixtral" and fields.has("num_experts"):  # transformers writes either name
        count_key = "num_experts"
    count, top_k = _counts(fields, count_key, _COUNTS.get(keys))
    if keys == "cohere2":
        return _cohere2(fields, count, top_k, layers)
    if keys == "laguna":
        return _laguna(fields, count, top_k, layers)
    if keys == "minimax":
        return ExpertSettings(count, top_k, width, True, 0, (True,) * layers, scores="sigmoid", has_bias=True)
    if keys == "minimax_m3":
        return _minimax_m3(fields, count, top_k, layers)
    if keys == "phimoe":
        return _phimoe(fields, count, top_k, width, layers)
    if keys in ("mixtral", "olmoe", "granite_shared"):
        renormalize = keys != "olmoe" or fields.flag("norm_topk_prob", False)
        is_beside = keys == "granite_shared"
        shared = fields.integer("shared_intermediate_size", 0, _MAX_WIDTH, default=0) if is_beside else 0
        return ExpertSettings(count, top_k, width, renormalize, shared, (True,) * layers, is_shared_gated=not is_beside)
    if keys in ("flint", "kolibri", "lara"):
        return _ungated(fields, count, top_k, layers, keys)
    settings = ExpertSettings(
        count,
        top_k,
        fields.integer("moe_intermediate_size", 1, _MAX_WIDTH),
        keys == "qwen3_5" or fields.flag("norm_topk_prob", False),
        fields.integer("shared_expert_intermediate_size", 1, _MAX_WIDTH) if keys not in ("qwen", "mellum") else 0,
        layers_of_qwen(fields, keys, layers),
    )
    check_any(fields, settings.layers, "mlp_only_layers")
    return settings


def _counts(
    fields: Fields,
    key: str,
    default: int | None = None,
    chosen: int | None = None,
    of_token: str = "num_experts_per_tok",
) -> tuple[int, int]:
    """Experts of a layer and of a token. Args: default, chosen: of both, where nothing is said; None: it must be."""
    count = fields.integer(key, 1, MAX_EXPERTS, default)
    return count, fields.integer(of_token, 1, min(count, MAX_CHOSEN), chosen)


def _minimax_m3(fields: Fields, count: int, top_k: int, layers: int) -> ExpertSettings:
    return ExpertSettings(
        count,
        top_k,
        fields.integer("intermediate_size", 1, _MAX_WIDTH),  # of a dense layer another is said
        True,
        fields.integer("shared_intermediate_size", 1, _MAX_WIDTH, default=3072),
        layers_of_ones(fields, layers) or (True,) * layers,
        is_shared_gated=False,
        scores="sigmoid",
        has_bias=True,
        factor=fields.number("routed_scaling_factor", 1e-6, 1e6, default=2.0),
    )


def _phimoe(fields: Fields, count: int, top_k: int, width: int, layers: int) -> ExpertSettings:
    """Raises: UnsupportedModel for another number of experts than two, which are what is chosen whatever it says."""
    if top_k != 2 or count < 2:
        fields.unsupported("num_experts_per_tok", top_k, "two experts of a token, of two or more")
    # noise in training, and how near an expert must be at all times
    noise = fields.number("router_jitter_noise", 1e-6, 1.0, default=0.01)
    return ExpertSettings(count, top_k, width, False, 0, (True,) * layers, margin=2 * noise)


def _cohere2(fields: Fields, count: int, top_k: int, layers: int) -> ExpertSettings:
    width = fields.integer("intermediate_size", 1, _MAX_WIDTH)  # of a dense layer another is said
    shared = fields.integer("num_shared_experts", 0, _MAX_WIDTH // width, default=0)
    method = fields.one_of("expert_selection_fn", SCORES, "softmax")
    made = fields.one_of("shared_expert_combination_strategy", ("average", "sum"), "average")
    factor = 0.5 if shared and made == "average" else 1.0
    return ExpertSettings(
        count,
        top_k,
        width,
        fields.flag("norm_topk_prob", True) or method == "softmax",
        shared * width,
        layers_behind_dense_ones(fields, layers),
        is_shared_gated=False,
        scores=method,
        factor=factor,
        shared_factor=factor,
    )


def _ungated(fields: Fields, count: int, top_k: int, layers: int, keys: Keys) -> ExpertSettings:
    """Flint's, Kolibri's and Lara's: sigmoids, or a softmax, and a shared expert without a gate."""
    is_flint, is_lara = keys == "flint", keys == "lara"
    sparse = sparse_layers(fields, layers, (0, 1)) if is_flint else (True,) * layers
    check_any(fields, sparse, "mlp_only_layers")
    return ExpertSettings(
        count,
        top_k,
        fields.integer("moe_intermediate_size", 1, _MAX_WIDTH, default=512),
        fields.flag("norm_topk_prob", is_flint or is_lara),
        fields.integer("shared_expert_intermediate_size", 1, _MAX_WIDTH, default=1024 if is_flint else 512),
        sparse,
        is_shared_gated=False,
        scores="softmax" if is_lara else "sigmoid",
        has_bias=keys == "kolibri",
        by_logits=keys == "kolibri",
    )


def _laguna(fields: Fields, count: int, top_k: int, layers: int) -> ExpertSettings:
    sparse = (False,) + (True,) * (layers - 1)
    return ExpertSettings(
        count,
        top_k,
        fields.integer("moe_intermediate_size", 1, _MAX_WIDTH, default=512),
        True,
        fields.integer("shared_expert_intermediate_size", 1, _MAX_WIDTH, default=512),
        layers_behind_dense_ones(fields, layers) if fields.raw("mlp_layer_types") is not None else sparse,
        is_shared_gated=False,
        scores="sigmoid",
        has_bias=True,
        factor=fields.number("moe_routed_scaling_factor", 1e-6, 1e6, default=1.0),
        logits_cap=fields.number("moe_router_logit_softcapping", 0.0, 1e6, default=0.0),
    )


def _deepseek(fields: Fields, layers: int, keys: Keys) -> ExpertSettings:
    is_v2, has_bias = keys == "deepseek_v2", keys in ("deepseek", "dots3", "glm5", "hy_v4", "mimo")
    count, top_k = _counts(fields, "n_routed_experts")
    width = fields.integer("moe_intermediate_size", 1, _MAX_WIDTH)
    groups = _groups(fields, count, top_k, 1 if is_v2 else 2)
    if keys == "deepseek_v1" and groups is not None:
        fields.unsupported("n_group", groups[0], "as many as topk_group: experts by a softmax have no groups here")
    limit = fields.number("swiglu_limit", 1e-6, 1e6) if keys in ("glm5", "hy_v4") else 0.0
    if groups is not None and keys == "mistral4":
        fields.unsupported("n_group", groups[0], "as many as topk_group: softmax's sums of two are not compared")
    if is_v2 and (method := fields.text("topk_method", "greedy")) != "group_limited_greedy":
        if method != "greedy":
            fields.unsupported("topk_method", method, "greedy and group_limited_greedy are computed")
        groups = None
    return ExpertSettings(
        count,
        top_k,
        width,
        # null is no
        not is_v2 and fields.flag("norm_topk_prob", keys != "deepseek_v1" and not fields.has("norm_topk_prob")),
        0 if keys == "mimo" else _shared_width(fields, keys, width),
        layers_of_deepseek(fields, layers, keys),
        is_shared_gated=False,
        scores="sigmoid" if has_bias else "softmax",
        has_bias=has_bias,
        groups=groups,
        factor=fields.number("routed_scaling_factor", 1e-6, 1e6, default=1.0),
        limit=limit,
        shared_limit=limit if keys == "glm5" else 0.0,
    )


def _deepseek_v4(fields: Fields, layers: int) -> ExpertSettings:
    count, top_k = _counts(fields, "n_routed_experts")
    width = fields.integer("moe_intermediate_size", 1, _MAX_WIDTH)
    scores = fields.one_of("scoring_func", _SCORES_OF_V4, "sqrtsoftplus")
    limit = fields.number("swiglu_limit", 1e-6, 1e6)
    return ExpertSettings(
        count,
        top_k,
        width,
        True,
        fields.integer("n_shared_experts", 1, 1) * width,
        (True,) * layers,
        is_shared_gated=False,
        scores=_SCORES_OF_V4[scores],
        has_bias=True,
        factor=fields.number("routed_scaling_factor", 1e-6, 1e6),
        limit=limit,
        shared_limit=limit,
        by_token=layers_by_token(fields, layers),
    )


def _shared_width(fields: Fields, keys: Keys, width: int) -> int:
    """Of shared experts, together."""
    if keys == "dots3":
        width = fields.integer("shared_experts_intermediate_size", 1, _MAX_WIDTH, default=1536)
    return fields.integer("n_shared_experts", 0, _MAX_WIDTH // width, default=0) * width


def _groups(fields: Fields, count: int, top_k: int, best: int) -> tuple[int, int, int] | None:
    """Of groups that are said without how many are chosen from, as of most classes, it is one.

    Args: best: of a group, that say what it is worth. Returns: None where every group may be chosen from.
    """
    groups = fields.integer("n_group", 1, count, default=1)
    kept = fields.integer("topk_group", 1, groups, default=1)
    if kept == groups:
        return None
    if count % groups or count // groups < best:
        fields.fail("n_group", groups, f"must divide {count} experts into groups of {best} or more")
    if top_k > kept * (count // groups):
        fields.fail("topk_group", kept, f"leaves fewer than the {top_k} experts of num_experts_per_tok")
    return groups, kept, best


def _ernie(fields: Fields, layers: int) -> ExpertSettings:
    count, top_k = _counts(fields, "moe_num_experts", of_token="moe_k")
    said, of_pictures = fields.raw("moe_intermediate_size"), 0
    if isinstance(said, list):
        if len(said) != 2 or not all(type(each) is int and 0 < each <= _MAX_WIDTH for each in said):
            what = f"must be two widths up to {_MAX_WIDTH}: of experts of text, and of those of pictures"
            fields.fail("moe_intermediate_size", said, what)
        width, of_pictures = said
    else:
        width = fields.integer("moe_intermediate_size", 1, _MAX_WIDTH)
    interval = fields.integer("moe_layer_interval", 1, 2**20, default=1)
    first = fields.integer("moe_layer_start_index", 0, 2**20, default=1)
    last = fields.integer("moe_layer_end_index", -1, 2**20, default=-1)
    sparse = tuple((i + 1) % interval == 0 and first <= i and (last < 0 or i <= last) for i in range(layers))
    if fields.raw("mlp_layer_types") is not None:
        sparse = layers_behind_dense_ones(fields, layers)
    check_any(fields, sparse, "moe_layer_start_index")
    return ExpertSettings(
        count,
        top_k,
        width,
        True,
        fields.integer("moe_num_shared_experts", 0, _MAX_WIDTH // width, default=2) * width,
        sparse,
        is_shared_gated=False,
        has_bias=True,
        picture_width=of_pictures,
    )


def _lfm2(fields: Fields, layers: int) -> ExpertSettings:
    count, top_k = _counts(fields, "num_experts", 32, 4)
    dense = fields.integer("num_dense_layers", 0, layers, default=2)
    sparse = (False,) * dense + (True,) * (layers - dense)
    check_any(fields, sparse, "num_dense_layers")
    return ExpertSettings(
        count,
        top_k,
        fields.integer("moe_intermediate_size", 1, _MAX_WIDTH),
        fields.flag("norm_topk_prob", True),
        0,
        sparse,
        scores="sigmoid",
        has_bias=fields.flag("use_expert_bias", True),
        factor=fields.number("routed_scaling_factor", 1e-6, 1e6, default=1.0),
        eps=1e-6,
    )


def _gemma4(fields: Fields, layers: int) -> ExpertSettings:
    count, top_k = _counts(fields, "num_experts", of_token="top_k_experts")
    width = fields.integer("moe_intermediate_size", 1, _MAX_WIDTH)
    return ExpertSettings(count, top_k, width, True, 0, (True,) * layers, has_gain=True)


def _nemotron_h(fields: Fields) -> ExpertSettings | None:
    """Files of models without experts may have the keys all the same."""
    count, top_k = _counts(fields, "n_routed_experts", 8, 2)
    found = ExpertSettings(
        count,
        top_k,
        fields.integer("moe_intermediate_size", 1, _MAX_WIDTH, default=7688),
        fields.flag("norm_topk_prob", True),
        fields.integer("moe_shared_expert_intermediate_size", 1, _MAX_WIDTH, default=7688),
        tuple(mixer == "experts" for mixer in parse_mixers(fields)),
        is_shared_gated=False,
        scores="sigmoid",
        has_bias=True,
        groups=_groups(fields, count, top_k, 2),
        factor=fields.number("routed_scaling_factor", 1e-6, 1e6, default=1.0),
        latent=fields.optional_integer("moe_latent_size", 1, _MAX_WIDTH) or 0,
    )
    return found if any(found.layers) else None


def _granite_hybrid(fields: Fields, layers: int) -> ExpertSettings | None:
    """In every layer, or in none; files of the latter may say how many a token has all the same."""
    count = fields.integer("num_local_experts", 0, MAX_EXPERTS, default=8)
    top_k = fields.integer("num_experts_per_tok", 0 if count == 0 else 1, MAX_CHOSEN, default=2)
    if count == 0:
        return None
    if top_k > count:
        fields.fail("num_experts_per_tok", top_k, f"is more than num_local_experts={count}")
    return ExpertSettings(count, top_k, fields.integer("intermediate_size", 1, _MAX_WIDTH), True, 0, (True,) * layers)


def _llama4(fields: Fields, layers: int) -> ExpertSettings:
    if (top_k := fields.integer("num_experts_per_tok", 1, MAX_CHOSEN, default=1)) != 1:
        fields.unsupported("num_experts_per_tok", top_k, "one expert of a token")
    step = fields.integer("interleave_moe_layer_step", 1, 2**20, default=1)
    given = fields.raw("moe_layers")
    if given is not None and not (isinstance(given, list) and all(type(i) is int for i in given)):
        fields.fail("moe_layers", given, "must be a list of layers")
    sparse = tuple((i + 1) % step == 0 if given is None else i in given for i in range(layers))
    check_any(fields, sparse, "moe_layers")
    width = fields.integer("intermediate_size", 1, _MAX_WIDTH, default=8192)
    count = fields.integer("num_local_experts", 1, MAX_EXPERTS, default=16)
    return ExpertSettings(count, 1, width, False, width, sparse, is_shared_gated=False, scores="sigmoid")


def _zaya(fields: Fields, layers: int) -> ExpertSettings:
    if (top_k := fields.integer("num_experts_per_tok", 1, MAX_CHOSEN, default=1)) != 1:
        fields.unsupported("num_experts_per_tok", top_k, "one expert of a token")
    count = fields.integer("num_experts", 1, MAX_EXPERTS - 1, default=16)
    width = fields.integer("moe_intermediate_size", 1, _MAX_WIDTH, default=2048)
    return ExpertSettings(count, 1, width, False, 0, (True,) * layers, has_bias=True, giving_back=1)


def _longcat(fields: Fields, layers: int) -> ExpertSettings:
    """The same weights whether they give back what they read or not: parts of a softmax over all of them."""
    count = fields.integer("n_routed_experts", 1, MAX_EXPERTS - 1, default=512)
    spare = fields.integer("zero_expert_num", 0, MAX_EXPERTS - count, default=256)
    kind = fields.text("zero_expert_type", "identity")
    if spare and kind != "identity":
        fields.unsupported("zero_expert_type", kind, "supported: identity")
    return ExpertSettings(
        count,
        fields.integer("num_experts_per_tok", 1, min(count + spare, MAX_CHOSEN), default=12),
        fields.integer("moe_intermediate_size", 1, _MAX_WIDTH, default=2048),
        False,
        0,
        (True, False) * (layers // 2),
        has_bias=True,
        factor=fields.number("routed_scaling_factor", 1e-6, 1e6, default=6.0),
        giving_back=spare,
    )


def _jamba(fields: Fields, layers: int, width: int) -> ExpertSettings | None:
    """One expert is an FFN as that of the other layers."""
    count_key = fields.one_name("num_experts", "num_local_experts")  # transformers writes either
    count = fields.integer(count_key, 1, MAX_EXPERTS, default=16)
    top_k = fields.integer("num_experts_per_tok", 1, MAX_CHOSEN, default=2)
    period = fields.integer("expert_layer_period", 1, 2**20, default=2)
    offset = fields.integer("expert_layer_offset", 0, period - 1, default=min(1, period - 1))
    sparse = tuple(layer % period == offset for layer in range(layers))
    if count == 1 or not any(sparse):
        return None
    if top_k > count:
        fields.fail("num_experts_per_tok", top_k, f"is more than {count_key}={count}")
    return ExpertSettings(count, top_k, width, False, 0, sparse)


def _step(fields: Fields, layers: int) -> ExpertSettings:
    count, top_k = _counts(fields, "n_routed_experts", 288, 8)
    return ExpertSettings(
        count,
        top_k,
        fields.integer("moe_intermediate_size", 1, _MAX_WIDTH, default=1280),
        True,
        fields.integer("share_expert_dim", 1, _MAX_WIDTH, default=1280),
        layers_behind_dense_ones(fields, layers),
        is_shared_gated=False,
        scores="sigmoid",
        has_bias=True,
        factor=fields.number("moe_router_scaling_factor", 1e-6, 1e6, default=1.0),
        is_late=True,
        limits=limits_of_layers(fields, "swiglu_limits", layers),
        shared_limits=limits_of_layers(fields, "swiglu_limits_shared", layers),
    )


def _hunyuan(fields: Fields, layers: int, width: int) -> ExpertSettings:
    """Raises: UnsupportedModel where layers differ, and for other experts than those of transformers."""

    def said(key: str, default: int) -> int:
        given = fields.raw(key)
        numbers = given if isinstance(given, list) else [default if given is None else given]
        if not numbers or any(type(number) is not int for number in numbers):
            fields.fail(key, given, "must be a whole number, or one for each layer")
        if len(set(numbers)) > 1:
            fields.unsupported(key, given, "the same in every layer")
        return int(numbers[0])

    count, top_k = said("num_experts", 1), said("moe_topk", 1)
    if not 1 <= count <= MAX_EXPERTS:
        fields.fail("num_experts", count, f"must be from 1 to {MAX_EXPERTS}")
    if not 1 <= top_k <= min(count, MAX_CHOSEN):
        fields.fail("moe_topk", top_k, f"must be from 1 to {min(count, MAX_CHOSEN)}")
    for key, wanted in (("num_shared_expert", 1), ("moe_intermediate_size", width)):
        if said(key, wanted) != wanted:
            fields.unsupported(key, fields.raw(key), f"supported: {wanted}")
    return ExpertSettings(count, top_k, width, True, width, (True,) * layers, is_shared_gated=False)
