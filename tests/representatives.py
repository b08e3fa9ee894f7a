"""Architectures that stand for all of them where a test is dear, and what each of them shows.

What a test costs would otherwise grow with every model that is added. Most add no mechanism: they have ops, attributes
and calls that others have. tests/models/test_representatives.py holds the table to that, so a model with something new
is told to be put here.

All architectures are in the tests that take transformers as their oracle (tests/backends/reference/test_interpret.py,
tests/e2e/test_parity.py), and in those that look at configs, names and graphs alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from albireo.backends.cuda.catalog import CudaCatalog
from albireo.compiler.pipeline import compile_graph
from albireo.errors import UnsupportedModel
from albireo.graph.node import Graph, Value
from albireo.graph.program import Program
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, FakeCatalog, model_graph

#: Architecture -> what it shows that no other one here does.
REPRESENTATIVES = {
    "cohere": "a norm that subtracts the mean and adds nothing, read by both blocks of a layer; a factor on logits",
    "dots1": "experts chosen by a bias, in groups; a shared one without a gate; a norm of each head of q and k",
    "falcon": "gelu behind a linear without a bias",
    "gemma": "gelu behind a gate, norms of what is read alone; one KV head",
    "gemma2": "caps of scores and logits, windows, norms of what is added, a norm's weight plus 1, scaled embeddings",
    "gemma4_text": "layers with heads of another size, values that are keys, a norm of v, a factor that is stored",
    "gpt_neox": "gelu behind a linear with a bias",
    "gpt_oss": "a score more in each softmax, experts with biases, an activation of gate and up together",
    "llama": "biases of every linear, an FFN of no round size",
    "olmo2": "norms of all heads of q and k at once, none of what is read",
    "opt": "learned positions, relu; a norm that subtracts the mean and has neither weight nor bias",
    "bloom": "scores that fall with distance; a norm of embeddings",
    "phi": "a head with a bias, gelu's tanh form without a gate",
    "phi3": "rows of several linears in one tensor, a part of each head rotated",
    "qwen2_moe": "experts whose weights are parts of all, a gated shared one, dense layers between",
    "youtu": "attention of latents: a matrix of each head, values that are channels of keys",
}
#: Of these, those that adapters do not know all matrices of; what is refused says so itself.
LATENT = ("youtu",)
#: The same of architectures whose layers keep a state of each sequence: adapters do not know them, and single calls of
#: theirs are not judged.
WITH_STATES = {
    "jamba": "layers of Mamba 1, which keep numbers of each channel; experts in some layers, an FFN in others",
    "lfm2": "layers that keep rows of a gated convolution, an output of which is rounded there",
    "nemotron_h": "layers of Mamba 2, attention, an FFN or experts alone, two matrices each; a norm of groups; relu²",
    "qwen3_5_text": "layers that keep a state of each sequence, and attention whose output has a gate",
}
#: Architectures of which nothing is new but who reads what, and calls that have tests of their own: their other kernels
#: are those of others. Tests of kernels, of levels and of GPUs leave them out.
OF_WIRING = {
    "nanochat": "norms without a weight, the last one too; a rotation the other way",
    "gemma3n_text": "several residual streams, gates that are cut; backends/*/test_streams.py",
    "falcon_mamba": "Mamba 1 alone, of which what its states are made of is normed without weights",
    "mamba": "Mamba 1 alone, of which that is not normed",
    "minimax": "states that heads leave at rates that no file says (backends/*/test_recurrent.py); what blocks read, "
    "normed, which they are added to",
    "minimax_m1": "the same, a part of each head rotated",
    "minimax_text_01": "the same",
    "modernbert_decoder": "a linear, gelu and a norm in front of the head",
    "mamba2": "states alone: no layer has attention, and a block of the KV cache is no memory",
    "jetmoe": "queries of experts; one bias for all; attentions over a cache that one of them writes",
    "mimo_v2_flash": "values that are narrower than keys (backends/*/test_attention.py), and a factor behind attention",
    "zamba2": "blocks that several layers share, with matrices of few channels of each; embeddings read in the middle",
    "bailing_hybrid": "a state whose rates of channels are bounded; latents whose values have a gate of each head",
    "deepseek_v32": "positions that are chosen by score; backends/*/test_chosen_keys.py",
    "axk2": "norms with a gate of few channels; attention whose gate comes with queries, of a latent and of its norm",
    "deepseek_v4": "streams that are mixed; entries of several positions; backends/cpu/test_pooled.py",
    "glm5_next_text": "rates of channels beside streams that are mixed; positions that are chosen several together",
    "qwen4_exp_text": "streams that are read through gates of channels; keys that are plain means of several positions",
    "hy_v4": "streams of which blocks read a sum; sinks and gates beside chosen positions; gates within a limit",
    "minimax_m3_vl_text": "blocks of positions, of each KV head its own; backends/*/test_chosen_blocks.py",
    "dots3_note_text": "latents of two sizes, some of which a window sees; norms of keys before they are rotated",
    "mistral_large4_text": "queries that grow by numbers of each head (backends/cpu/test_growth.py); latents that "
    "nothing is rotated of, and that other layers left",
    "zaya": "queries and keys that are convolved, channel by channel and head by head; values of the position before",
    "hrm_text": "stacks of layers that are gone through in turn; attention whose gate is a linear of its own",
    "dory": "states of one length, which come nearer at rates of channels; numbers on queries, gates, FFNs and logits",
    "longcat_flash": "experts that give back what they read (backends/cpu/test_expert_linear.py), added a layer later",
    "glm_moe_dsa": "layers that see what others have chosen",
    "kimi_linear": "a state with a rate of each channel; latents that nothing is rotated of",
    "bitnet": "norms of what attention gives, and of what an FFN's gate lets through",
    "laguna": "a gate of each head, by softplus; more query heads in some layers than in others",
    "step3p5": "a gate of each head, by its sigmoid, beside experts; gates that are cut behind their activation",
    "lfm3": "a gate of each head; convolutions of seven rows, and a norm of what they give; windows beside them",
    "olmo_hybrid": "a state that is taught twice what a sigmoid says, beside attention of OLMo 2",
    "falcon_h1": "Mamba 2 and attention on one norm, numbers on what linears give, rows of several side by side",
}
#: The same of what variants.py makes of architectures.
OF_VARIANTS = {
    "gemma4_text, embeddings of layers": "a table for all layers, parts of rows; layers that write no keys and values",
    "gemma4_text, experts": "experts beside an FFN, each with a factor on its weights; the sum is normed",
}
#: Architectures of which no call is new, only what a call reads of which other, or what is done to each element by
#: itself (tests/backends/*/test_elementwise.py). The tests of all architectures hold them, and one of programs for
#: GPUs.
IN_ANOTHER_ORDER = {
    "apertus": "xIELU, whose numbers are of a layer",
    "afmoe": "an FFN's and experts' sum before it is normed",
    "llama4_text": "a norm times a token's weight, for its expert; chunks (tests/backends/*/test_attention.py); "
    "rotations of queries that are not those of keys",
    "mpt": "a norm that subtracts the mean and adds nothing, in front of each block",
    "cohere2_moe": "half of what a shared expert gives",
    "jais": "a LayerNorm's bias times a number that is on logits",
    "solar": "parts of a stream and of an earlier one",
    "dbrx": "queries, keys and values within a limit",
    "deepseek_v2": "queries and latents that are columns of one linear on a GPU",
    "deepseek_v3, as wide": "latents of queries, whose norm is in the linears around it on a GPU; a shared expert that "
    "is one of the others there",
    "hunyuan_v1_dense": "norms of each head of q and k behind their rotation",
}
ALL_REPRESENTATIVES = REPRESENTATIVES | WITH_STATES | OF_VARIANTS
#: Of all, those whose layers differ in the shape of their caches.
OF_SEVERAL_CACHES = ("gemma4_text", *OF_VARIANTS)
#: Attributes that are sizes and numbers of one model, not kinds of what is computed. Rotations are tables of numbers.
#: What a route makes of logits is for its own tests (backends/cpu/test_route.py, backends/cuda/test_moe.py).
_SIZES = frozenset(
    {
        "layer",
        "state",
        "num_k_heads",
        "num_v_heads",
        "k_dim",
        "v_dim",
        "eps",
        "sizes",
        "scale",
        "factor",
        "head_dim",
        "num_experts",
        "top_k",
        "n",
        "k",
        "width",
        "scores",
        "by_logits",
        "shared",
    }
)


@functools.cache
def mechanisms(model_type: str) -> frozenset[str]:
    """What an architecture's tiny model is made of, without its sizes: ops with their attributes and with what they
    read, and the calls that the compiler makes of them for either kind of machine.
    """
    return mechanisms_of(model_graph(model_type, "bfloat16"))


def mechanisms_of(graph: Graph) -> frozenset[str]:
    """See mechanisms()."""
    found = set(_of_graph(graph))
    for catalog in (FakeCatalog(), CudaCatalog()):
        with contextlib.suppress(UnsupportedModel):  # GPUs refuse some by name
            program = compile_graph(graph, catalog, maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS)
            found.update(_of_program(program))
    return frozenset(found)


def _of_graph(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        said = _said(node.op, node.attrs)
        yield f"{node.op}({', '.join(node.inputs)}{said})"
        for role, value in node.inputs.items():
            yield f"{node.op} reads as {role} {_kind(value)}"


def _of_program(program: Program) -> Iterator[str]:
    for call in program.calls:
        family = call.kernel.partition(".")[0]
        yield f"call {family}({', '.join(sorted(call.args))}{_said(call.family, call.attrs)}) of {call.rows}"


def _said(op: str, attrs: dict[str, Any]) -> str:
    return "".join(f", {key}: {kind}" for key in sorted(attrs) if (kind := _kind_of(op, key, attrs)) is not None)


def _kind_of(op: str, key: str, attrs: dict[str, Any]) -> str | None:
    value = attrs[key]
    if key == "slopes":
        return "some"
    if key in _SIZES:
        return None
    if key == "num_heads" and op in ("rms_norm", "head_norm"):
        return "one" if value == 1 else "some"
    if isinstance(value, bool | str) or value is None:
        return str(value)
    return "a number" if key in ("window", "softcap") else None


def _kind(value: Value) -> str:
    """What made a value."""
    definition = value.constant
    if definition is None:
        return value.producer.op if value.producer is not None else value.name
    altered = f"{', plus' if definition.plus else ''}{', factor' if definition.factor != 1 else ''}"
    sources = {segment.source for segment in definition.segments}
    if len(value.type.dims) == 1:  # read in one place whatever they are of: backends/vectors.py
        return f"a constant{altered}"
    rows = "of parts" if len(definition.segments) > len(sources) else "of rows" if definition.segments[0].start else ""
    return f"a constant{altered} {rows}".rstrip()
