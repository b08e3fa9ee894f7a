"""Numbers and names that ops know: what attributes may say, and how much of a thing there may be.

Used by ops.py, by passes and by every backend. Leaf module but for params.
"""

from __future__ import annotations

from albireo.params import MAX_TOP

#: Most rows of a matrix that balance makes, and residual streams of a model.
MAX_STREAMS = 16
#: And most rounds that it takes.
MAX_ROUNDS = 2**10
#: Of clamped_swiglu.
SWIGLU_ALPHA, SWIGLU_LIMIT = 1.702, 7.0
#: Of xielu, at 0.
XIELU_SLOPE = 0.5
#: Columns whose squares are one sum.
SQUARES = 64
#: Most logits of a row that top_logits finds: MAX_TOP, and one that shows whether others equal the last of them.
TOP_LOGITS = MAX_TOP + 1
#: What the model says of a linear, for whoever cuts it among ranks: its outputs are query, key or value heads,
#: channels of the FFN, or entries of the vocabulary; or its inputs are what such a linear led to ("row"); or it gives
#: what experts are chosen or weighed by ("router"): it stays whole, and its weights stay numbers where others are
#: rounded to few bits. Absent: it stays whole.
LINEAR_ROLES = ("heads", "ffn", "vocab", "row", "router")
#: Most experts of a token.
MAX_CHOSEN = 64
#: Attributes of a route among groups, which come together.
GROUPS = ("num_groups", "kept_groups", "group_best")
#: What route makes of logits; softmax where nothing is said.
SCORES = ("softmax", "sigmoid", "root_softplus")
#: Chosen experts' scores are divided by their sum, or by this where it is less (DeepSeek V3 adds it): where all of them
#: underflow, or a bias decides for experts that have next to none, weights stay numbers.
LEAST_SCORES = 1e-20
#: Arrays of rows that a step may bring, the native core's kMostGiven.
MAX_GIVEN = 12
#: Most rows that a depthwise_conv reads for one.
MAX_DEPTHWISE_WIDTH = 63
#: Most rows that a causal_conv reads for one.
MAX_CONV_WIDTH = 8
#: What a causal_conv makes of its sums, in the native core's order; the first where nothing is said.
CONV_ACTIVATIONS = ("silu", "none")
#: What gate_rows makes of its gates, in the native core's order; the first where nothing is said.
GATES = ("sigmoid", "softplus")
#: Under the root by which gated_delta_rule divides queries and keys.
L2_EPS = 1e-6
#: Ops that keep a state of each sequence from step to step; see attribute state.
RECURRENT = ("causal_conv", "gated_delta_rule", "selective_state", "selective_scan", "pool_rows")
#: Leaves of the tree in which partial sums are added: so many ranks at most compute one model.
MAX_RANKS = 8
#: Of attention, those that are absent where they say nothing.
ATTENTION_ATTRS = (
    "value_dim",
    "both_ways",
    "causal",
    "first_key",
    "num_keys",
    "reach",
    "slopes",
    "in_chunks",
    "result_dim",
    "own_lists",
    "every",
    "sums",
)
UNARY_KINDS = ("silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "tanh")
