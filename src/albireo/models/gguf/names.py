"""The names that graphs read for the tensors of a GGUF file; a tensor of all experts becomes a matrix for each.

Called by tensors.py. Does not know what a tensor is for, nor its contents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from albireo.errors import WeightMismatch, short
from albireo.models.gguf.header import Entry

_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
#: A vector that graphs call by its own name alone.
_SINKS = "attn_sinks"
#: Tensors [experts, N, K], biases [experts, N]: {} is the number of one.
_EXPERTS = {
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}
_POST_NORMS = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
#: What some architectures mean by a name, or have besides. A Llama with experts is a Mixtral.
_OWN = {
    "llama": {
        "ffn_gate_inp": "block_sparse_moe.gate",
        "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
        "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
        "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    },
    "phi3": {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    "gemma2": {**_POST_NORMS, "ffn_norm": "pre_feedforward_layernorm"},
    "gemma3": {**_POST_NORMS, "ffn_norm": "pre_feedforward_layernorm"},
    "olmo2": _POST_NORMS,
    "gpt-oss": {"post_attention_norm": "post_attention_layernorm", "ffn_gate_inp": "mlp.router"},
}
_LAYER_NAME = re.compile(r"blk\.(\d{1,6})\.([a-z_]+)\.(weight|bias)")
_MAX_EXPERTS = 2**12


def renamed(entries: Mapping[str, Entry], architecture: object, where: str) -> dict[str, Entry]:
    """Entries by the names of graphs; a name that is not known stays, and is then one too many.

    Args: architecture: general.architecture of the file.
    Raises: WeightMismatch for two of one name, or experts that are no matrices.
    """
    found: dict[str, Entry] = {}
    known = {**_LAYER, **_EXPERTS, **_OWN.get(str(architecture), {})}
    for name, entry in entries.items():
        for new, part in _graph_entries(name, entry, known):
            if new in found:
                raise WeightMismatch(f"{where}: tensor {short(name)} appears twice, also as {short(new)}")
            found[new] = part
    return found


def _graph_entries(name: str, entry: Entry, known: Mapping[str, str]) -> Iterator[tuple[str, Entry]]:
    stem, _, kind = name.rpartition(".")
    match = _LAYER_NAME.fullmatch(name)
    part = match[2] if match else ""
    if stem in _WHOLE and kind in ("weight", "bias"):
        yield f"{_WHOLE[stem]}.{kind}", entry
    elif match is not None and part == _SINKS and kind == "weight":
        yield f"model.layers.{int(match[1])}.self_attn.sinks", entry
    elif match is None or part not in known:
        yield name, entry
    elif part not in _EXPERTS:
        if part == "ffn_gate_inp_shexp" and len(entry.shape) == 1:  # one row, which the converter squeezes
            entry = Entry(entry.kind, (1, *entry.shape), entry.start, entry.stop)
        yield f"model.layers.{int(match[1])}.{known[part]}.{kind}", entry
    else:
        for expert, one in enumerate(_experts(name, entry, 2 if kind == "bias" else 3)):
            yield f"model.layers.{int(match[1])}.{known[part].format(expert)}.{kind}", one


def _experts(name: str, entry: Entry, dims: int) -> Iterator[Entry]:
    """Matrices, or biases, lie one behind the other, each of whole blocks."""
    if len(entry.shape) != dims or not 0 < entry.shape[0] <= _MAX_EXPERTS:
        raise WeightMismatch(
            f"tensor {short(name)} is {list(entry.shape)}; it must be a {'matrix' if dims == 3 else 'vector'} for each "
            f"of at most {_MAX_EXPERTS} experts"
        )
    size = (entry.stop - entry.start) // entry.shape[0]
    for expert in range(entry.shape[0]):
        start = entry.start + expert * size
        yield Entry(entry.kind, entry.shape[1:], start, start + size)
