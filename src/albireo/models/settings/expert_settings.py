"""Mixture of experts as config.json says it: how many experts, how many a token has, which layers have them.

Called by config.py. Does not know weights or graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from albireo.graph.op_numbers import GROUPS, SCORES

MAX_EXPERTS = 2**12

#: Whose keys: mixtral's (every layer has experts of intermediate_size, weights are renormalized), olmoe's (the same,
#: but for whether they are), or those of Qwen's models, with a shared expert or without.
#: Qwen 3.5's: in every layer, with a shared one, weights renormalized.
#: Or DeepSeek V3's, whose experts are chosen by sigmoids and a bias, in groups; V2's, by a softmax; those of DeepSeek
#: MoE, likewise, without groups; Ling's, as the one or the other, as a key says; MiniMax's, as V3's
#: without groups; ERNIE's, by a softmax and a bias; LFM2's, by sigmoids and a bias or
#: none, behind dense layers; or Gemma 4's, which are beside each layer's FFN, or nowhere; Nemotron H's, as V3's, in
#: layers of their own, or nowhere; Granite 4.0's, as mixtral's beside an FFN, or nowhere; Granite 3's with a shared
#: one; Hunyuan's, as mixtral's with a shared one, whose keys may be lists; Mistral 4's, as V2's, renormalized;
#: Mellum's, as Qwen's, in layers that are named; Laguna's, as V3's without groups, under names of Qwen's;
#: Flint's, as Qwen's with a shared one, by sigmoids; Lara's, the same by a softmax, in every layer;
#: Kolibri's, in every layer, chosen by a bias on logits;
#: Command's, by a softmax of the chosen or by sigmoids, which with shared ones may make a mean;
#: MiMo's, as V3's without a shared one, whose layers a list of ones and zeros may say;
#: MiniMax M3's, as M2's with a shared one and dense layers, which lists of ones and zeros may say;
#: dots3's, as V3's with a shared one of another width, whose layers a list of ones and zeros may say;
#: LongCat's, by a softmax and a bias, in each first of two layers, of which some give back what they read;
#: Hunyuan 4's, as V3's, whose gates and ups are kept within a limit; GLM-5.3's, as these, those of every FFN;
#: DeepSeek V4's, in every layer, as Hunyuan 4's, chosen by roots of a softplus, or by a table of tokens;
#: Llama 4's, one of each token beside a shared one; Phi-3.5's, as mixtral's, each of a softmax over those near it;
#: ZAYA's, one of each token or none, which a bias chooses;
#: Step 3.5's, as V3's without groups under names of its own, limits of each layer;
#: Jamba's, as olmoe's, in each so many-th layer, or nowhere.
Keys = Literal[
    "none",
    "bailing",
    "cohere2",
    "mixtral",
    "olmoe",
    "qwen",
    "qwen_shared",
    "qwen3_5",
    "deepseek",
    "deepseek_v1",
    "deepseek_v2",
    "deepseek_v4",
    "dots3",
    "minimax",
    "minimax_m3",
    "ernie",
    "flint",
    "gemma4",
    "glm5",
    "lfm2",
    "nemotron_h",
    "granite_hybrid",
    "granite_shared",
    "hunyuan",
    "hy_v4",
    "jamba",
    "kolibri",
    "laguna",
    "lara",
    "llama4",
    "longcat",
    "mellum",
    "mimo",
    "mistral4",
    "phimoe",
    "step",
    "zaya",
]


#: What some files of such models say, and what they do anyway.
SIGMOIDS: Mapping[str, Any] = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1}


@dataclass(frozen=True, slots=True)
class ExpertSettings:
    """The experts of a model.

    Fields:
        count: of one layer; top_k: of one token; width: channels of one.
        renormalize: weights of a token's experts are divided by their sum.
        shared_width: channels of an expert that every token has; 0: there is none. is_shared_gated: by a sigmoid.
            shared_factor: on what it gives.
        layers: of each layer, whether it has experts; the others have an ordinary MLP.
        scores: what is made of a router's logits, one of op_numbers.SCORES.
        has_bias: a bias of each expert is added to scores where experts are chosen, not where they are weighed.
        groups: how many experts are divided into, how many of those a token's experts are chosen from, and how many of
            the best of a group say what it is worth; None: there are none.
        factor: on weights. eps: added to the sum they are divided by, where they are sigmoids. has_gain: weights of
            each expert are multiplied by a number of its own, too.
        margin: weights are of a softmax over experts that are this near, see ops; 0: over all of them.
        by_logits: a bias is added to a router's logits, not to what is made of them.
        logits_cap: logits of a router are capped, as config.multipliers says of others; 0: they are not.
        giving_back: so many more are chosen among, which have no matrices: they give back what they read, or nothing.
        limit: of gates of experts, above, and of their ups, on both sides; 0: there is none.
        shared_limit: that of a shared expert. is_late: gates are kept within it behind their activation.
        limits, shared_limits: of each layer, where they differ; empty: they do not.
        by_token: of each layer, whether a table says which experts a token has; empty: of none.
        picture_width: channels of one of as many others, which tokens of pictures have in their place; 0: they do not.
        latent: channels that the residual stream becomes before experts, and comes back from behind them; 0: neither.
    """

    count: int
    top_k: int
    width: int
    renormalize: bool
    shared_width: int
    layers: tuple[bool, ...]
    is_shared_gated: bool = True
    scores: str = "softmax"
    has_bias: bool = False
    groups: tuple[int, int, int] | None = None
    factor: float = 1.0
    has_gain: bool = False
    eps: float = 0.0
    latent: int = 0
    margin: float = 0.0
    logits_cap: float = 0.0
    shared_factor: float = 1.0
    by_logits: bool = False
    limit: float = 0.0
    shared_limit: float = 0.0
    is_late: bool = False
    limits: tuple[float, ...] = ()
    shared_limits: tuple[float, ...] = ()
    by_token: tuple[bool, ...] = ()
    picture_width: int = 0
    giving_back: int = 0

    @property
    def rules(self) -> dict[str, Any]:
        """What the op route is told beside top_k and renormalize: attributes that say something."""
        scores = {} if self.scores == SCORES[0] else {"scores": self.scores}
        groups = {} if self.groups is None else dict(zip(GROUPS, self.groups, strict=True))
        numbers = {"factor": self.factor} if self.factor != 1.0 else {}
        numbers |= {"eps": self.eps} if self.eps and self.renormalize else {}
        numbers |= {"margin": self.margin} if self.margin else {}
        return scores | groups | numbers | ({"by_logits": True} if self.by_logits else {})
