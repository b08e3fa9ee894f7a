"""Models of random numbers, made on the device: the shape of Llama-3.1-8B, and a tiny one for dry runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from setup import Setup

if TYPE_CHECKING:
    from albireo.backends.cuda.capture import Recorder
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.backends.cuda.model import CudaModel
    from albireo.backends.step_inputs import StepInputs
    from albireo.graph.program import Program

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_theta": 500000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
QWEN3_30B_A3B: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_theta": 1000000.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "torch_dtype": "bfloat16",
}
_TINY = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
#: Weights in few bits -> the encoding they are held in; fp8 meets e4m3 activations where the GPU multiplies those.
ENCODINGS = {"bf16": None, "fp8": "fp8", "fp8-a16": "fp8", "int8": "int8", "int4": "int4.g128"}
#: Types that GGUF files are of, most of them mixtures of these.
NESTED = {"q4_k": "q4_k", "q6_k": "q6_k"}
BLOCK_SIZE = 16


def encoding_of(encoding: str) -> Callable[[str, str | None], str | None]:
    """What a matrix is held in, by its name and role: head and routers as they are."""
    return lambda name, role: None if role in ("vocab", "router") else encoding


def program_of(
    setup: Setup,
    weights: str,
    maxima: Mapping[str, int],
    max_positions: int,
    layers: int | None = None,
    kv_dtype: str | None = None,
) -> Program:
    """What random_model() is made of."""
    from albireo.backends.cuda.catalog import CudaCatalog
    from albireo.compiler.passes import choose_precision
    from albireo.compiler.pipeline import compile_graph
    from albireo.models import build_graph, load_architecture
    from albireo.models.config_keys import parse_config

    config = {**LLAMA_8B, **setup.pick({}, _TINY)}
    if layers is not None:
        config["num_hidden_layers"] = setup.pick(layers, 1)
    graph = build_graph(parse_config(config, load_architecture("llama").rules), max_positions)
    encoding = (ENCODINGS | NESTED)[weights]
    if encoding is not None:
        choose_precision.run(graph, encoding_of(encoding), weights == "fp8-a16")
    return compile_graph(
        graph,
        CudaCatalog(setup.chip.capability),
        maxima=maxima,
        block_size=BLOCK_SIZE,
        max_positions=max_positions,
        kv_dtype=kv_dtype,
    )


def random_model(
    setup: Setup,
    weights: str,
    maxima: Mapping[str, int],
    max_positions: int,
    num_blocks: int,
    recorder: Recorder | None = None,
    layers: int | None = None,
    kv_dtype: str | None = None,
    reserve_bytes: int = 0,
    num_host_blocks: int = 0,
) -> CudaModel:
    """weights: one of ENCODINGS or NESTED. maxima: of T, R and G. The others are those of CudaModel."""
    program = program_of(setup, weights, maxima, max_positions, layers, kv_dtype)
    more = {"reserve_bytes": reserve_bytes, "num_host_blocks": num_host_blocks, "recorder": recorder}
    return model_of(setup, program, num_blocks, max_positions, **more)


def model_of(setup: Setup, program: Program, num_blocks: int, max_positions: int, **more: Any) -> CudaModel:
    """A program with random constants, and numbers in its cache. more: of CudaModel."""
    from albireo.backends.cuda.constants import rope_constant
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.model import CudaModel

    matrices, vectors = {}, {}
    for seed, (name, constant) in enumerate(program.constants.items()):
        definition = constant.definition
        if constant.rope is not None:
            vectors[name] = rope_constant(constant, setup.device)
        elif definition is not None and constant.rows == 1 and definition.num_rows == constant.cols:
            vectors[name] = 1 + 0.1 * setup.random(constant.cols, seed=seed)
        else:
            dtype = constant.packing.partition(".")[2]
            matrices[name] = empty_matrix(dtype, constant.rows, constant.cols, setup.device)
            fill_matrix(matrices[name], setup, seed)
    sizes = {"num_blocks": num_blocks, "max_positions": max_positions}
    model = CudaModel(program, matrices, vectors, device=setup.device, **sizes, **more)
    # attention reads the cache whatever has been computed: numbers, not zeros
    fill_cache(setup, model._kv)
    return model


def vocabulary(model: CudaModel) -> int:
    """Tokens there are."""
    constants = model.program.constants
    return constants[next(iter(constants))].rows


def fill_matrix(matrix: Any, setup: Setup, seed: int) -> None:
    """Random codes that stand for numbers with the spread 1 / sqrt(columns)."""
    from albireo.encodings import encoding, is_encoding

    generator = torch.Generator(setup.device).manual_seed(seed)
    codes, spread = matrix.codes, matrix.cols**-0.5
    if is_encoding(matrix.dtype) and encoding(matrix.dtype).is_nested:
        _fill_nests(matrix, generator)
        return
    if codes.dtype == torch.uint8:
        codes.random_(0, 256, generator=generator)
        size = 4.6
    elif codes.dtype == torch.int8:
        codes.random_(-127, 128, generator=generator)
        size = 73.0
    elif codes.dtype == torch.float8_e4m3fn:
        for start in range(0, len(codes), 4096):
            part = codes[start : start + 4096]
            part.copy_(torch.randn(part.shape, generator=generator, device=setup.device))
        size = 1.0
    else:
        codes.normal_(0.0, spread, generator=generator)
        return
    matrix.scale.fill_(spread / size)
    if matrix.zero is not None:
        matrix.zero.fill_(8)
    if matrix.gamma is not None:
        matrix.gamma.fill_(1)
        if encoding(matrix.dtype).kind == "microscaled":  # scales around 1, of e4m3 and of e8m0
            least, end = (0x30, 0x41) if encoding(matrix.dtype).group == 16 else (125, 130)
            matrix.gamma.random_(least, end, generator=generator)
    if matrix.offset is not None:
        matrix.offset.fill_(-7.5 * spread / size)


def _fill_nests(matrix: Any, generator: torch.Generator) -> None:
    """Of all codes, and scales of groups from 1 to 15; those of nests differ, too."""
    from albireo.encodings import encoding
    from albireo.quantization.encoded import NUMBERS, nested_zero

    e, spread = encoding(matrix.dtype), matrix.cols**-0.5
    table, unit = NUMBERS[e.name] if e.kind == "nested table" else (np.arange(1 << e.bits), 1.0)
    matrix.codes.random_(0, 256, generator=generator)
    matrix.gamma.random_(1, 16, generator=generator)
    by = torch.rand(matrix.scale.shape, generator=generator, device=matrix.scale.device)
    by = (0.5 + by) * spread / (8 * unit * float(np.std(table)))
    matrix.scale.copy_(by)
    if matrix.offset is not None:
        matrix.zero.random_(1, 16, generator=generator)
        matrix.offset.copy_(-nested_zero(e) * by)


def fill_cache(setup: Setup, kv: DeviceKV) -> None:
    """Random keys and values in every block."""
    generator = torch.Generator(setup.device).manual_seed(1)
    for layer in (layer for array in kv.numbers for layer in array.flatten(0, 1)):
        for start in range(0, len(layer), 4096):
            part = layer[start : start + 4096]
            size = 40 if part.dtype == torch.int8 else 1
            part.copy_(size * torch.randn(part.shape, generator=generator, device=setup.device))
    for scales in kv.scales:
        scales.fill_(0.02)


def make_step(new: int, computed: int, sequences: int, vocab: int, is_top: bool = True) -> StepInputs:
    """Sequences of `computed` tokens in the cache, and as many new ones each; the best logit of the last is wanted."""
    from albireo.backends.step_inputs import StepInputs

    rng = np.random.default_rng(new + computed)
    blocks = -(-(computed + new) // BLOCK_SIZE)
    table = 1 + rng.permutation(sequences * blocks).reshape(sequences, blocks)
    positions = np.arange(computed, computed + new)
    slots = table[:, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
    last = np.arange(1, sequences + 1) * new - 1

    def ints(values: Any) -> np.ndarray:
        return np.ascontiguousarray(values, np.int32)

    return StepInputs(
        token_ids=ints(rng.integers(0, vocab, sequences * new)),
        positions=ints(np.tile(positions, sequences)),
        slots=ints(slots.reshape(-1)),
        query_start=ints(np.arange(sequences + 1) * new),
        context_len=ints(np.full(sequences, computed + new)),
        block_table=ints(table),
        logit_rows=ints([] if is_top else last),
        top_rows=ints(last if is_top else []),
    )


def blocks_for(tokens: int, sequences: int) -> int:
    """KV blocks of such a step, the null block included."""
    return 1 + sequences * -(-tokens // BLOCK_SIZE)


def read_bytes(model: CudaModel, sequences: int, context: int) -> int:
    """Bytes that a decoding step has to read: each matrix but the embedding, and the cache."""
    program = model.program
    tables = {call.args["table"] for call in program.calls if call.family == "embed"}
    heads = {call.args.get("weight") for call in program.calls}
    weights = sum(c.num_bytes for name, c in program.constants.items() if name in heads or name not in tables)
    return weights + sequences * context * program.kv.position_bytes
