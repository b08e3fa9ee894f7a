"""The least time a step can take on a machine: its bytes at read speed or its flops at dot-product speed.

Used by the benchmarks to put a fraction beside every speed. Knows programs, not clocks nor processors.

Counted: weights, read once a step; the KV cache, read once a sequence and written once a token; what sequences keep
beside it, read (but for a first token) and written once a sequence; the rows of the embedding; flops of the linears and
of attention. Not counted, so that the floor stays a floor: activations and logits (they fit a cache, or could), norms,
rotations, recurrences and sampling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from albireo.backends.cuda.catalog import LEVEL as GPU_LEVEL
from albireo.dtypes import ROW_CODES, itemsize
from albireo.encodings import ENCODINGS
from albireo.graph.attention_op import keys_taken, lists_of
from albireo.graph.program import Call, Program, is_gated
from albireo.step import StepPlan

_LINEARS = ("linear", "linear_norm", "linear_parts", "expert_linear")
#: Levels of a processor with an instruction for products of bfloat16; elsewhere they are products of float32.
BFLOAT16_LEVELS = ("avx512bf16", "amx", "neonmm")


def distinct_experts(num_experts: int, top_k: int, num_tokens: int) -> float:
    """How many experts so many tokens are expected to have between them, each choosing evenly and by itself."""
    return float(num_experts * (1 - (1 - top_k / num_experts) ** num_tokens))


@dataclass(frozen=True, slots=True)
class StepShape:
    """What of a step costs time.

    Fields:
        num_tokens: tokens computed (T).
        num_logit_rows, num_top_rows: rows whose full logits, whose arg max is wanted (R, G).
        sequences: for each sequence its tokens computed in this step, and its length after it.
        num_drafts: of num_tokens, those that are drafts.
    """

    num_tokens: int
    num_logit_rows: int
    num_top_rows: int
    sequences: tuple[tuple[int, int], ...]
    num_drafts: int = 0

    @property
    def is_decode(self) -> bool:
        """Every sequence computes one token, and drafts behind it."""
        return self.num_tokens - self.num_drafts == len(self.sequences)

    def sequences_of(self, rows: str) -> Sequence[tuple[int, int]]:
        """As sequences, for the tokens that a call on rows of T, or on those of S that leave the model, computes.

        Which leave is not known: taken are the last of the shortest sequences, one of each before two of any. It is the
        least where one of each leaves at most; where log-probabilities of prompts are wanted, it may be a little more.
        """
        leaving = self.num_logit_rows + self.num_top_rows
        if rows == "T" or leaving >= self.num_tokens:
            return self.sequences
        shortest = sorted(self.sequences, key=lambda sequence: sequence[1])[:leaving]
        more, found = leaving - len(shortest), []
        for num_new, length in shortest:
            num_leaving = min(num_new, 1 + more)
            more -= num_leaving - 1
            found.append((num_leaving, length))
        return found


@dataclass(frozen=True, slots=True)
class Work:
    """What a step moves and multiplies at least."""

    num_bytes: int = 0
    flops: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.num_bytes + other.num_bytes, self.flops + other.flops)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a machine does at best. dot_flops_per_s is 0.0 when not known, and then no limit."""

    read_bytes_per_s: float
    dot_flops_per_s: float

    def floor_s(self, work: Work) -> float:
        """The least time for the work: its bytes and its flops, overlapped perfectly."""
        compute = work.flops / self.dot_flops_per_s if self.dot_flops_per_s else 0.0
        return max(work.num_bytes / self.read_bytes_per_s, compute)

    def is_compute_bound(self, work: Work) -> bool:
        """Whether flops are the limit rather than bytes."""
        return self.floor_s(work) > work.num_bytes / self.read_bytes_per_s


class Roofline:
    """The work of any step of one program, or of the programs of all ranks, which share a machine.

    Cost of a question: O(sequences * distinct windows).
    """

    def __init__(self, program: Program, *other_ranks: Program) -> None:
        #: symbol -> bytes whenever there are rows, and work of each row
        self._once: Counter[str] = Counter()
        self._bytes_per_row: Counter[str] = Counter()
        self._flops_per_row: Counter[str] = Counter()
        #: what attention_of() says -> layers
        self._attention: Counter[AttentionWork] = Counter()
        #: (experts, experts of a token) -> bytes of one expert's matrices, over all layers
        self._experts: Counter[tuple[int, int]] = Counter()
        self._top_k = program.top_k
        self._state_bytes = program.states.slot_bytes
        for each in (program, *other_ranks):
            for call in each.calls:
                self._add(each, call)

    @property
    def decode_bytes(self) -> int:
        """Bytes of weights a step with one token reads."""
        experts = sum(top_k * num_bytes for (_, top_k), num_bytes in self._experts.items())
        return self._once["T"] + self._once["S"] + self._once["G"] + experts

    def work(self, shape: StepShape) -> Work:
        """The least work of a step."""
        num_bytes = flops = 0
        num_logits, num_top = shape.num_logit_rows, shape.num_top_rows
        counts = {"T": shape.num_tokens, "R": num_logits, "G": num_top, "S": num_logits + num_top}
        counts["P"] = shape.num_tokens * self._top_k
        for (count, top_k), of_expert in self._experts.items():
            num_bytes += round(of_expert * distinct_experts(count, top_k, shape.num_tokens))
        for symbol, rows in counts.items():
            if rows:
                num_bytes += self._once[symbol] + rows * self._bytes_per_row[symbol]
                flops += rows * self._flops_per_row[symbol]
        for kind, layers in self._attention.items():
            for num_new, length in shape.sequences_of(kind.rows):
                flops += layers * kind.flops * kind.seen(num_new, length)
                num_bytes += layers * kind.kv_bytes * kind.moved(num_new, length)
        return Work(num_bytes + states_moved(shape) * self._state_bytes, flops)

    def _add(self, program: Program, call: Call) -> None:
        if call.family in OVER_POSITIONS:
            self._attention[attention_of(program, call)] += 1
            return
        work = call_work(program, call)
        if call.family == "expert_linear":
            self._experts[experts_of(call)] += work.bytes_once
        else:
            self._once[call.rows] += work.bytes_once
        self._bytes_per_row[call.rows] += work.bytes_per_row
        self._flops_per_row[call.rows] += work.flops_per_row


def states_moved(shape: StepShape) -> int:
    """How often the state of a sequence is read or written."""
    return sum(1 if num_new == length else 2 for num_new, length in shape.sequences)


@dataclass(frozen=True, slots=True)
class CallWork:
    """What one call reads whenever it has rows, and what it reads and multiplies for each; activations aside.

    Of experts bytes_once are those of one, see distinct_experts().
    """

    bytes_once: int = 0
    bytes_per_row: int = 0
    flops_per_row: int = 0


def call_work(program: Program, call: Call) -> CallWork:
    """The least work of a call; attention's depends on positions and is not here."""
    if call.family == "embed":
        return CallWork(bytes_per_row=round(call.attrs["width"] * _itemsize(program, call.args["table"])))
    matrices = _matrix_elements(program, call)
    elements = sum(matrices.values())
    bytes_once = sum(round(count * _itemsize(program, call.args[role])) for role, count in matrices.items())
    vectors = ("bias", "v_bias", "q_norm", "k_norm", "gain", "a_log", "dt_bias", "skip")
    for role in (*vectors, *(() if elements else ("weight",))):
        if role in call.args:
            bytes_once += 4 * _vector_elements(program, call, role)
    return CallWork(bytes_once, 0, round(2 * elements * _product_cost(program, call)))


def _product_cost(program: Program, call: Call) -> float:
    """What a product of a call's matrix takes against one of the compute type, whose limit is measured.

    On a processor, products of 8-bit numbers are four to a lane, of bfloat16 two where there is an instruction for it,
    of float32 (and all else) one, and as many lanes start each cycle. A GPU's matrix units make twice as many of 8 bits
    as of 16; float32 products are made outside of them, 30 to 32 times fewer on A100 and H100.
    """
    x = program.buffers.get(call.args.get("x", ""))
    if x is None or x.dtype not in ROW_CODES:
        return 1.0
    attention = next((each.kernel for each in program.calls if each.family == "attention"), "")
    dtype = attention.split(".")[1] if attention else "float32"
    level = kernel_level(call)
    if level == GPU_LEVEL:
        return 1 / 32 if dtype == "float32" else 0.5
    # where integers have another instruction than bfloat16, as in AVX-512 without AMX, attention says that there is one
    has_instruction = level in BFLOAT16_LEVELS or attention.rpartition(".")[2] in BFLOAT16_LEVELS
    return 0.5 if dtype == "bfloat16" and has_instruction else 0.25


def kernel_level(call: Call) -> str:
    """The level of a call's kernel: what its identity, family.dtype.level, ends in."""
    return call.kernel.rpartition(".")[2]


def experts_of(call: Call) -> tuple[int, int]:
    """Experts, and experts of a token, of a call of theirs."""
    return int(call.attrs["num_experts"]), int(call.attrs["top_k"])


#: Families whose work is for each position that a row sees, or chooses among.
OVER_POSITIONS = ("attention", "choose_keys")


class AttentionWork(NamedTuple):
    """What an attention call does for each position it sees, or a choose_keys for each that it chooses among.

    Fields:
        window: None: all positions. So many that are chosen are counted as so many that are near.
        flops: a product with a key and one with a value for each head, two an element.
        kv_bytes: of the keys and values of a position, padding left out.
        both_ways: what is behind a row is seen, too. first_key, num_keys, in_chunks: see graph.ops; 0, False: nothing
            is said.
        enough: that a choose_keys chooses: of no more it takes all, whatever they are; 0: it is an attention.
        every: so many positions have one entry; window and enough are of entries.
    """

    rows: str
    window: int | None
    flops: int
    kv_bytes: int
    both_ways: bool = False
    first_key: int = 0
    num_keys: int = 0
    in_chunks: bool = False
    enough: int = 0
    every: int = 1

    def seen(self, num_new: int, length: int) -> int:
        """Positions, or entries, that num_new tokens at the end of a sequence look at, added up."""
        if length // self.every <= self.enough:
            return 0
        if self.every > 1:
            return positions_seen(num_new, length, self.window and self.window * self.every) // self.every
        if self.num_keys:
            return num_new * self.num_keys
        if self.window is not None and self.in_chunks:
            return _seen_in_chunks(length, self.window) - _seen_in_chunks(length - num_new, self.window)
        return positions_seen(num_new, length - self.first_key, self.window, self.both_ways)

    def moved(self, num_new: int, length: int) -> int:
        """Positions, or entries, that are read for them, once each, and written."""
        if length // self.every <= self.enough:
            return 0
        if self.every > 1:
            return positions_moved(num_new, length, self.window and self.window * self.every) // self.every
        if self.window is not None and self.in_chunks:
            return length - (length - num_new) // self.window * self.window
        return self.num_keys or positions_moved(num_new, length - self.first_key, self.window)


def attention_of(program: Program, call: Call) -> AttentionWork:
    """See AttentionWork; in a program, window 0 is none."""
    kv, a, every = program.kv, call.attrs, call.attrs.get("every", 1)
    if call.family == "choose_keys":
        of_key, flops = a["head_dim"] * itemsize(kv.dtype), 2 * a["num_heads"] * a["head_dim"]
        return AttentionWork(call.rows, None, flops, of_key, enough=keys_taken(a), every=every)
    elements = a["head_dim"] + a.get("value_dim", a["head_dim"])
    kv_bytes = kv.num_parts * a["num_kv_heads"] * (a["head_dim"] * itemsize(kv.dtype) + kv.scale_bytes)
    flops, both_ways = 2 * a["num_heads"] * elements, a.get("both_ways", False)
    seen = {key: a[key] for key in ("first_key", "num_keys", "in_chunks") if key in a}
    chosen = program.buffers[call.args["chosen"]].cols // lists_of(a) if "chosen" in call.args else 0
    return AttentionWork(call.rows, a["window"] or chosen or None, flops, kv_bytes, both_ways, every=every, **seen)


def _seen_in_chunks(length: int, size: int) -> int:
    """Positions that all tokens of a sequence look at, added up, where each looks at its own chunk alone."""
    whole, rest = divmod(length, size)
    return whole * (size * (size + 1) // 2) + rest * (rest + 1) // 2


def positions_seen(num_new: int, length: int, window: int | None, both_ways: bool = False) -> int:
    """Positions that num_new tokens at the end of a sequence look at, added up."""
    if both_ways:
        return num_new * (length if window is None else min(length, 2 * window - 1))
    first = length - num_new + 1
    if window is None or length <= window:
        return (first + length) * num_new // 2
    num_short = min(num_new, max(0, window - first + 1))
    return (2 * first + num_short - 1) * num_short // 2 + (num_new - num_short) * window


def positions_moved(num_new: int, length: int, window: int | None) -> int:
    """Positions read of the past, once each, and written for the new tokens."""
    return length if window is None else min(length, window - 1 + num_new)


def shape_of(plan: StepPlan) -> StepShape:
    """The shape of a planned step; full logits for all rows when one task needs them, as the runner does it."""
    works = plan.work
    num_rows = sum(1 + work.num_drafts for work in works if work.samples)
    num_prompt_rows = sum(len(work.prompt_targets) for work in works if work.prompt_logprobs is not None)
    needs_logits = num_prompt_rows > 0 or any(task.params.needs_logits for work in works for task in work.samples)
    return StepShape(
        num_tokens=plan.num_tokens,
        num_logit_rows=num_rows + num_prompt_rows if needs_logits else 0,
        num_top_rows=0 if needs_logits else num_rows,
        sequences=tuple((len(work.token_ids), work.num_computed_tokens + len(work.token_ids)) for work in works),
        num_drafts=plan.num_drafts,
    )


def _matrix_elements(program: Program, call: Call) -> dict[str, int]:
    """Elements of a call's weight matrices by role, padding left out; none for a call without one."""
    if call.family in (*_LINEARS, "head_top"):
        return {"weight": _num_columns(call) * int(call.attrs["k"])}
    if call.family in ("head_linear", "head_rows"):
        return {"weight": int(call.attrs["num_heads"] * call.attrs["n"] * call.attrs["k"])}
    if call.family == "qkv_rope_kv":
        found = {role: program.constants[call.args[role]] for role in ("weight", "v_weight") if role in call.args}
        return {role: matrix.rows * matrix.cols for role, matrix in found.items()}
    return {}


def _vector_elements(program: Program, call: Call, role: str) -> int:
    """Elements of a bias, a norm's weight, or a convolution's, padding left out."""
    is_padded = role == "bias" and call.family in _LINEARS
    constant = program.constants[call.args[role]]
    return _num_columns(call) if is_padded else constant.rows * constant.cols


def _num_columns(call: Call) -> int:
    """Columns a linear multiplies: gate and up are two for each that comes out."""
    return int(call.attrs["n"]) * (2 if is_gated(call.attrs.get("act", "none")) else 1)


def _itemsize(program: Program, name: str) -> float:
    """Bytes of one element, padding left out."""
    dtype = program.constants[name].packing.partition(".")[2]
    return ENCODINGS[dtype].bytes_per_weight if dtype in ENCODINGS else itemsize(dtype)
