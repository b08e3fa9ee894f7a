"""All that a program launches on a GPU, launched on tensors that have no memory: so its kernels are compiled and kept.

Called in processes of api/machine/compile_ahead.py, for a GPU that is absent there (absent_gpu.py). Triton keeps what
it compiles in its cache directory, where the process that serves finds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch
import triton

from albireo.backends.cuda.adapters import CudaAdapters
from albireo.backends.cuda.buckets import DRAWS, NO_ENDING, Bucket, Ending
from albireo.backends.cuda.capture import Launches
from albireo.backends.cuda.chip import Chip, chip_of
from albireo.backends.cuda.encoded_matrix import empty_matrix
from albireo.backends.cuda.endings import WHOLE
from albireo.backends.cuda.expert_plan import plan_for
from albireo.backends.cuda.hidden_states import DeviceHiddenStates, taps_of
from albireo.backends.cuda.kernels.build_work_list import build_work_list
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.peers import AbsentPeers, Seat
from albireo.backends.cuda.recordings import USUAL
from albireo.graph.program import PackedConstant, Program

_NOWHERE = torch.device("meta")
#: Decoding sequences of a step: each is another width of tiles, or another kernel.
_SIZES = (1, 16, 32, 64, 128, 256)
#: Tokens and sequences of steps with prompts: short ones, split sums, sums in registers and in memory.
_MIXED = ((96, 16), (256, 16), (384, 16), (1024, 64))
#: Sequences of which lists of work are made by one kernel, and by another from there on.
_LISTED = tuple(1 << i for i in range(4, 14))
_NUM_BLOCKS = 64


class _Once:
    """A recorder: what is recorded is launched."""

    def record(self, launches: Launches) -> Launches:
        launches()
        return launches


def cache_directory() -> Path:
    """Where Triton keeps what it compiles."""
    return Path(triton.knobs.cache.dir)


def digest_of(programs: Sequence[tuple[Program, int]], chip: Chip, max_rank: int = 0) -> str:
    """Of all that decides what is compiled: shapes and types, the GPU, the compiler, and this package's sources.

    Args: programs: each with the positions of the longest sequence. max_rank: of adapters; 0: there are none.
    """
    digest = hashlib.sha256(repr((chip, max_rank, triton.__version__)).encode())
    for program, max_positions in programs:
        calls = [(call.family, call.kernel, sorted(call.attrs.items(), key=str)) for call in program.calls]
        shapes = [(buffer.dtype, buffer.cols, buffer.stride) for buffer in program.buffers.values()]
        constants = [(constant.packing, constant.rows, constant.cols) for constant in program.constants.values()]
        told = (calls, shapes, constants, program.kv, sorted(program.maxima.items()), max_positions)
        digest.update(repr(told).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def empty_model(program: Program, max_positions: int, num_ranks: int = 1, vocab_size: int = 0) -> CudaModel:
    """A model whose weights, KV cache and activations are shapes alone.

    Args: num_ranks: of which this is one; vocab_size: of the head that they have parts of.
    """
    matrices: dict[str, DeviceMatrix] = {}
    vectors: dict[str, torch.Tensor] = {}
    for name, constant in program.constants.items():
        if constant.rope is not None:
            vectors[name] = _floats(constant.rows, 2, constant.cols // 2)
        elif _is_vector(constant):
            vectors[name] = _floats(constant.cols)
        else:
            dtype = constant.packing.partition(".")[2]
            matrices[name] = empty_matrix(dtype, constant.rows, constant.cols, _NOWHERE)
    model = CudaModel(
        program,
        matrices,
        vectors,
        num_blocks=_NUM_BLOCKS,
        max_positions=max_positions,
        device=_NOWHERE,
        num_state_slots=1,
        recorder=_Once(),
        seat=Seat(AbsentPeers(num_ranks), vocab_size) if num_ranks > 1 else None,
    )
    _keep_hidden_states(model)
    return model


def _keep_hidden_states(model: CudaModel) -> None:
    """Of a model that a head reads, and of a head: where they would be."""
    program, kv = model.program, model.program.kv
    taps, kinds = taps_of(program), {constant.packing for constant in program.constants.values()}
    is_exact = not kinds & {"row.bfloat16", "row.float16"}
    if model.placed.head_rows is not None:
        width, unit = model.placed.head_rows.given.shape[1], 1
    elif taps:
        width, unit = program.buffers[program.outputs[taps[0]]].cols, kv.units[kv.windows.index(None)]
    else:
        return
    states = DeviceHiddenStates(_NUM_BLOCKS, kv.block_size, width, _NOWHERE, is_exact=is_exact, unit=unit)
    if model.placed.head_rows is not None:
        model.placed.head_rows.states = states
    else:
        model.hidden_states = states


def with_adapters(model: CudaModel, program: Program) -> CudaModel:
    """Its program with adapters, of which there is one."""
    return model.with_adapters(program, CudaAdapters(program, 1, _NOWHERE))


def _is_vector(constant: PackedConstant) -> bool:
    return constant.definition is None or (constant.rows == 1 and constant.definition.num_rows == constant.cols)


def _floats(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32, device=_NOWHERE)


def launch_all(model: CudaModel, part: int = 0, parts: int = 1) -> int:
    """Launch steps of every kind that has kernels of its own. Returns: how many steps.

    Args: part, parts: of the steps each parts-th, from the part-th on, for several processes.
    """
    steps = list(_steps(model))[part::parts]
    for launch in steps:
        launch()
    return len(steps)


def _steps(model: CudaModel) -> Iterator[Callable[[], None]]:
    most_seqs, most_tokens = model._buckets.sizes[-1], model.program.maxima["T"]
    if not model.placed.draws:
        yield from _of_prompts(model)
        return
    kinds = (*USUAL, (False, WHOLE))
    for size in dict.fromkeys((*(size for size in _SIZES if size < most_seqs), most_seqs)):
        for is_top, ending in kinds if size in (1, most_seqs) else kinds[:1]:
            yield _bucket(model, Bucket(size, is_top, ending))
    for tokens, size in _MIXED:
        if tokens < most_tokens:
            yield _bucket(model, Bucket(min(size, most_seqs), True, DRAWS, tokens))
    yield from (_bucket(model, bucket) for bucket in _of_experts(model))
    for tokens in dict.fromkeys((min(1500, most_tokens), most_tokens)):
        yield _step(model, {"T": tokens, "B": 1, "R": 0, "G": 1, "S": 1, "D": 1, "L": 0}, DRAWS)
    for num in dict.fromkeys((*(num for num in _LISTED if num < most_seqs), most_seqs)):
        yield partial(_list_work, model, num)
    # the trial step of the largest size, and what it has of drafts
    yield _step(model, model.placed.maxima, WHOLE)
    yield lambda: model.placed.endings.judge(model.placed.maxima, 1)


def _list_work(model: CudaModel, most: int) -> None:
    """Lists of work of `most` sequences, or of more than half as many: each size of tiles has a kernel of its own.
    Beside the most there are those of recorded steps with prompts, which may have more sequences than tokens, in
    padding."""
    most_tokens, size = model.program.maxima["T"], min(most, model.placed.maxima["B"])
    steps = {(size << i, size) for i in range(most_tokens.bit_length()) if size << i <= most_tokens}
    if most == model._buckets.sizes[-1]:
        steps |= set(product(model._buckets.tokens, model._buckets.sequences))
    for tokens, sequences in sorted(steps | {(most_tokens, most // 2 + 1)}):
        step = model.placed.staging.step(model.program.sizes({"T": tokens, "B": sequences, "R": 0, "G": 0, "S": 0}))
        for work in model.placed.scratch.work.values():
            build_work_list(step, work)


def _of_prompts(model: CudaModel) -> Iterator[Callable[[], None]]:
    """Of a model that writes no text."""
    most = model.placed.maxima
    for tokens, size in (*((count, 1) for count in _SIZES), *_MIXED):
        if tokens < most["T"]:
            size = min(size, most["B"])
            rows = min(size, most["R"])
            yield _step(model, {"T": tokens, "B": size, "R": rows, "G": 0, "S": rows, "D": 0, "L": 0}, NO_ENDING)
    yield _step(model, most, NO_ENDING)


def _of_experts(model: CudaModel) -> Iterator[Bucket]:
    """Of steps whose lists of experts are cut, and read, alike one each."""
    lists, sizes, tokens = model.placed.scratch.experts, model._buckets.sizes, model._buckets.tokens
    if lists is None:
        return
    weights = [
        model.program.constants[call.args["weight"]] for call in model.program.calls if call.family == "expert_linear"
    ]
    shapes = {(one.rows // lists.num_experts, one.cols, one.packing.partition(".")[2]) for one in weights}
    met = set()
    for count in sorted({*sizes, *tokens}):
        width, most = lists.width(count), lists.most_items(count)
        cut = (
            width,
            count > FEW_TOKENS,  # where a norm is in them: another kernel finds what its rows are divided by
            *(plan_for(count, width, most, *shape, False, chip_of(model.device)).is_split for shape in shapes),
        )
        if cut not in met:
            met.add(cut)
            if count in sizes:
                yield Bucket(count, True, DRAWS)
            else:
                yield Bucket(model._buckets.sequences[0], True, DRAWS, count)


def _bucket(model: CudaModel, bucket: Bucket) -> Callable[[], None]:
    return lambda: model.record(bucket)


def _step(model: CudaModel, sizes: Mapping[str, int], ending: Ending) -> Callable[[], None]:
    return lambda: model.placed.run_padding(sizes, ending, model.hidden_states)
