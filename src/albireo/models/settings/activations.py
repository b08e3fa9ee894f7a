"""What config.json calls activations, by what an architecture makes of their names.

Called by config.py.
"""

from __future__ import annotations

from albireo.json_file import Fields

_PLAIN = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
#: What an activation is called in config.json -> op_numbers.UNARY_KINDS, or an op.
ACTIVATIONS = {
    "silu": {"silu": "silu", "swish": "silu"},
    # the tanh of old files, whatever they call it: transformers reads them so
    "gelu_tanh": {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu_tanh"},
    # likewise, but where hidden_activation says it, which is of later ones
    "gelu_said": {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"},
    # of a gate and an up together, which its files call by the name of what it is made from
    "clamped_swiglu": {"silu": "clamped_swiglu", "swigluoai": "clamped_swiglu"},
    # of FFNs without a gate
    "plain": _PLAIN,
    # likewise, by a name that others mean without tanh
    "tanh_of_gelu": {"gelu": "gelu_tanh", "relu": "relu"},
    # of gates, which a few models of a family of silu have otherwise (ReluLLaMA)
    "gated": {"silu": "silu", "swish": "silu", **_PLAIN},
    # of a gate, by what it makes of both
    "swiglu": {"swiglu": "silu"},
    "relu2": {"relu2": "relu2"},
    # of an FFN, and whether it has a gate
    "t5": {"relu": "relu", "gated-gelu": "gelu_tanh"},
    # of FFNs without a gate whose files do not say it
    "tanh_gelu": {"gelu_pytorch_tanh": "gelu_tanh"},
    # of FFNs without a gate, in towers of texts
    "paired": {"quick_gelu": "quick_gelu", **_PLAIN},
    # an op of its own, which has numbers of each layer
    "xielu": {"xielu": "xielu"},
    # of a gate, and what it is called
    "exact_gate": {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu"},
}


def parse_activation(fields: Fields, rule: str) -> str:
    """Args: rule: a key of ACTIVATIONS; where nothing is said, the first it knows.

    Raises: UnsupportedModel for one that it does not know.
    """
    known = ACTIVATIONS[rule]
    found = next(iter(known.values()))
    for key in ("hidden_act", "hidden_activation"):
        if fields.raw(key) is not None:
            names = ACTIVATIONS["gelu_tanh"] if rule == "gelu_said" and key == "hidden_act" else known
            found = names[fields.one_of(key, names)]
    return found
