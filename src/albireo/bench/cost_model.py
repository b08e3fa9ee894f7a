"""How long a step will take: for each kind of call its bytes and flops, at the fraction of the machine's limits that
kernels of its family reach.

Called by plan.py before a weight is read, and by report.py beside what was measured. Knows programs and limits, not
clocks. Every constant has its source: measured on 2 cores of an AMD EPYC (avx512bf16), at limits of 95 GB/s with 1,150
Gflop/s and of 46 GB/s with 565, on models A (Qwen2.5-0.5B shape) and B (Llama-3.2-1B shape), bfloat16, the limits
probed beside each call; docs/journal.md says how far off the whole is. Not modelled: ALBIREO_ISA_MAX below what the
processor can do, processes that compete for the cores, and threads that outnumber a matrix's panels or a prompt's
heads.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from albireo.bench.roofline import (
    BFLOAT16_LEVELS,
    OVER_POSITIONS,
    AttentionWork,
    Limits,
    Roofline,
    StepShape,
    attention_of,
    call_work,
    distinct_experts,
    experts_of,
    kernel_level,
    states_moved,
)
from albireo.dtypes import itemsize
from albireo.encodings import ENCODINGS
from albireo.graph.program import Call, Program

#: Weights of a linear, read by few rows, against the read probe: 0.90 to 0.93 in every matrix of A and B.
READ_FRACTION = 0.92
#: Flops of a linear of many rows against the dot probe, K far above what comes next: A's down projection (K = 4,864)
#: 0.90, B's (8,192) 0.94.
DOT_FRACTION = 0.93
#: What is done to each element that comes out (residual, activation, store; rotation and the KV write) costs as much as
#: so many products more. Linears: A (K = 896) 0.84 to 0.89 of the probe, B (2,048) 0.90 to 0.93, the bundled model
#: (256) 0.57 to 0.83; q/k/v: 0.77, 0.89, 0.47.
OUTPUT_PRODUCTS = 60
QKV_OUTPUT_PRODUCTS = 200
#: Products of 8-bit numbers in groups: the end of a group, where whole numbers become float32 and are scaled, costs as
#: much as so many products more; nibbles become bytes first. 4,096 x 2,048, 128 and 256 rows, one thread, against int8
#: without groups: int4-g32 1.38, -g64 1.25, -g128 1.18, q4_k 1.31, q5_k 1.33, q6_k 1.70, q2_k 1.62, q3_k 1.67.
GROUP_PRODUCTS, NIBBLE_FRACTION = 10, 0.05
#: The same without VNNI, where no instruction adds four products of bytes: what one takes, and what a group's end adds,
#: against a quarter of a float32 product. AVX2, 2,048 x 4,096, 256 rows, one thread, of three runs the median, in
#: float32 peaks: int8 1.2, of groups of 128, 64, 32, 16 1.1, 0.94, 0.69, 0.62; int4-g128, -g64, -g32 1.9, 1.5, 1.3;
#: MXFP4 1.2, NVFP4 0.8. AVX-512 without VNNI was not measured. K types against int4-g32's time, on a processor with
#: AVX-512 that keeps to AVX2: q4_k 1.01, q5_k 1.12, q2_k 1.42, q3_k 1.50, q6_k 1.71.
VNNI_LEVELS = ("avx512vnni", "avxvnni", "neondot", *BFLOAT16_LEVELS)
NARROW_PRODUCTS = {"int8": (3.0, 64), "int4": (1.9, 38), "fp4": (1.3, 60)}
NARROW_PRODUCTS |= {"q2_k": (2.0, 38), "q3_k": (2.3, 38), "q4_k": (1.9, 38), "q5_k": (2.3, 38), "q6_k": (2.9, 38)}
#: Its codes are too large for what the other K types are added with; not measured by itself.
NARROW_PRODUCTS["iq4_xs"] = NARROW_PRODUCTS["int8"]
#: Codes of six or sixteen small numbers; taken for those of as many bits, not measured.
NARROW_PRODUCTS |= {name: NARROW_PRODUCTS["q4_k"] for name in ("iq3_xxs", "iq3_s")}
NARROW_PRODUCTS |= {name: NARROW_PRODUCTS["q3_k"] for name in ("iq2_xxs", "iq2_s", "iq1_s", "iq1_m")}
#: In tile registers, against their peak, which a core's caches do not feed. Fitted to prompts of 128, 512 and 2,048
#: tokens of A and B in bfloat16, int8, int4-g64 and fp8 on two threads of a Xeon, 0.90 to 1.10 but for A in int4
#: (0.79 to 0.88: K = 896 is no whole number of four groups); other groups in proportion to linears of 480 rows on one.
#: Groups: of numbers of either sign, and of those with zeros or offsets (docs/isa-levels.md). What is done to each
#: output costs as much as so many products more. Attention of 2,048 and 8,192 tokens 0.13 to 0.20.
TILE_LEVEL = "amx"
TILE_FRACTION, TILE_BYTES_FRACTION, TILE_FP8_FRACTION, TILE_ATTENTION_FRACTION = 0.32, 0.28, 0.26, 0.17
TILE_GROUP_FRACTIONS = {128: (0.25, 0.18), 64: (0.17, 0.12), 32: (0.11, 0.08), 16: (0.07, 0.06)}
TILE_OUTPUT_PRODUCTS = 1100
#: Attention over a long prompt, 2,048 tokens, its diagonal included below: A 0.67 in all, B 0.67.
ATTENTION_DOT_FRACTION = 0.70
#: A prompt's row costs as many positions more than it sees: tiles that the diagonal cuts, softmax states. Of 2,048
#: tokens 52, of 512 95, of 128 115 (A); 16 prompts of 128 67.
ATTENTION_EXTRA_POSITIONS = 80
#: The KV cache read by a decoding row against the read probe: A 0.42 to 0.44 (7 query heads to one), B 0.48 to 0.51.
KV_READ_FRACTION = 0.47
#: Rows copied, normed and embedded, their activations in and out: 2,048 rows A 0.83, B 0.78 of the read probe.
ROWS_READ_FRACTION = 0.75
#: Reading and multiplying overlap, but not perfectly where both take about as long: the time is the norm of this order
#: of the two. Fitted to A's gate/up with 8, 12, 16, 24 and 64 rows; errors 1 to 5 %.
OVERLAP_ORDER = 4
#: The same of tile registers, which wait for what they load: prompts of 128 tokens.
TILE_OVERLAP_ORDER = 2
#: A call: waking, sharing out, the barrier. Left over in calls of a few microseconds: matrices and attention 1.5 to
#: 4.5, calls on rows 0.5 to 0.8.
CALL_S, ROWS_CALL_S = 2e-6, 0.7e-6
#: Drawing from full logits: a row, and each entry of the vocabulary. 0.080 to 0.089 ms of 151,936 with AVX-512, of
#: 4,096 0.015; that threads share many rows is not in it.
SAMPLING_ROW_S, SAMPLING_ENTRY_S = 13e-6, 0.5e-9
#: A number of a state takes, of each token, as long as so many flops of dot products: 0.21 to 0.28 ns of one thread of
#: AVX2, whose probe made 104 Gflop/s; of the state space of Mamba 2 0.57 of that, of Mamba 1, of which each number is
#: left at a rate of its own, 4.2 times that (docs/journal.md).
STATE_FLOPS = {"gated_delta_rule": 26, "selective_state": 15, "selective_scan": 110}
#: How far runs of A and B were off at most while the limits stayed what they were (12 %), rounded up: docs/journal.md.
MODEL_ERROR = 0.15


@dataclass(frozen=True, slots=True)
class PythonCosts:
    """A step in Python: its arrays, and what is outside of executing it (scheduling, text); a part a sequence.

    head_s: what hands hidden states to a head that drafts, and takes what it leaves, around a step of it.
    """

    step_s: float
    step_sequence_s: float
    outside_s: float
    outside_sequence_s: float
    head_s: float


#: With 1, 16 and 64 sequences, A: inside 0.13, 0.15, 0.22 ms, outside 0.07, 0.16, 0.48 ms. The bundled model: inside
#: 0.026, 0.038, 0.081, outside 0.018, 0.06, 0.26: its weights leave the caches to Python. A head of Qwen 3.5 0.8B's
#: shape 0.28 ms, of the bundled model's 0.11 (both on AVX2).
STREAMED = PythonCosts(130e-6, 1.5e-6, 70e-6, 6e-6, 280e-6)
CACHED = PythonCosts(26e-6, 0.9e-6, 16e-6, 3.7e-6, 110e-6)
#: Weights of a step beyond this push everything else out of the caches.
CACHE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class _Kind:
    """Calls that cost the same."""

    family: str
    rows: str
    bytes_once: int
    #: of products, and what is done to their results, as flops
    flops_per_row: int
    output_flops_per_row: int
    bytes_per_row: int
    activation_bytes: int
    overlap_order: int
    #: experts, and experts of a token; None: bytes_once are read once, not once for each of them that a step has
    experts: tuple[int, int] | None = None


class CostModel:
    """The time of any step of one program, or of the programs of all ranks.

    Ranks share the machine whose limits are measured, so their bytes and flops add up. That they wait for each other is
    not modelled.
    Cost of a question: O(kinds of calls + sequences * distinct windows).
    """

    def __init__(
        self, program: Program, vocab_size: int, *other_ranks: Program, beside: CostModel | None = None
    ) -> None:
        """Args: beside: of a program whose steps are between those of this one, and leave the caches as they do."""
        self._vocab_size, self._top_k = vocab_size, program.top_k
        #: Family -> bytes of a slot that its calls keep.
        self._state_bytes: Counter[str] = Counter()
        self._kinds: Counter[_Kind] = Counter()
        #: what attention_of() says -> calls
        self._attention: Counter[AttentionWork] = Counter()
        self._python = STREAMED if Roofline(program, *other_ranks).decode_bytes > CACHE_BYTES else CACHED
        if beside is not None and beside._python is STREAMED:
            self._python = STREAMED
        for each in (program, *other_ranks):
            for call in each.calls:
                if "state" in call.attrs:
                    self._state_bytes[call.family] += each.states.sizes[call.attrs["state"]]
                if call.family in OVER_POSITIONS:
                    self._attention[_attention_of(each, call)] += 1
                else:
                    self._kinds[_kind(each, call)] += 1

    def step_s(self, shape: StepShape, limits: Limits) -> float:
        """Seconds of executing a step: its calls, its arrays, and sampling."""
        return sum(self.parts(shape, limits).values())

    def outside_s(self, shape: StepShape) -> float:
        """Seconds of a step outside of executing it: scheduling, and text."""
        return self._python.outside_s + self._python.outside_sequence_s * len(shape.sequences)

    @property
    def head_s(self) -> float:
        """Seconds around a step of a head that drafts, which is not in step_s()."""
        return self._python.head_s

    @property
    def draw_s(self) -> float:
        """Seconds of drawing from one row of full logits, which step_s() counts for each."""
        return SAMPLING_ROW_S + self._vocab_size * SAMPLING_ENTRY_S

    def state_s(self, limits: Limits) -> float:
        """Seconds of writing once more what a sequence keeps beside the KV cache."""
        return sum(self._state_bytes.values()) / (limits.read_bytes_per_s * READ_FRACTION)

    def parts(self, shape: StepShape, limits: Limits) -> dict[str, float]:
        """Seconds of a step by family of calls, of sampling, and of Python; parts that take none are left out."""
        num_logits, num_top = shape.num_logit_rows, shape.num_top_rows
        rows_of = {"T": shape.num_tokens, "R": num_logits, "G": num_top, "S": num_logits + num_top}
        rows_of["P"] = shape.num_tokens * self._top_k
        found: defaultdict[str, float] = defaultdict(float)
        for kind, calls in self._kinds.items():
            rows = rows_of[kind.rows]
            if rows:
                found[kind.family] += calls * _call_s(kind, rows, limits)
        for work, calls in self._attention.items():
            if rows_of[work.rows]:
                found["attention"] += calls * _attention_s(shape.sequences_of(work.rows), work, limits)
        for family, num_bytes in self._state_bytes.items():
            found[family] += states_moved(shape) * num_bytes / (limits.read_bytes_per_s * READ_FRACTION)
        if num_logits:
            found["sampling"] = num_logits * self.draw_s
        found["python"] = self._python.step_s + self._python.step_sequence_s * len(shape.sequences)
        return dict(found)


def _attention_of(program: Program, call: Call) -> AttentionWork:
    work = attention_of(program, call)
    if kernel_level(call) != TILE_LEVEL:
        return work
    return work._replace(flops=round(work.flops * ATTENTION_DOT_FRACTION / TILE_ATTENTION_FRACTION))


def _attention_s(sequences: Sequence[tuple[int, int]], work: AttentionWork, limits: Limits) -> float:
    """Each sequence reads its cache or multiplies, whichever takes longer; threads take them in turns."""
    total = CALL_S
    for num_new, length in sequences:
        moved = work.kv_bytes * work.moved(num_new, length)
        seen = work.seen(num_new, length) + ATTENTION_EXTRA_POSITIONS * num_new
        reading = moved / (limits.read_bytes_per_s * KV_READ_FRACTION)
        total += max(reading, _dot_s(work.flops * seen, ATTENTION_DOT_FRACTION, limits))
    return total


def _call_s(kind: _Kind, rows: int, limits: Limits) -> float:
    times = 1.0
    if kind.experts is not None:
        count, top_k = kind.experts
        times = distinct_experts(count, top_k, rows // top_k)
    reading = (times * kind.bytes_once + rows * kind.bytes_per_row) / (limits.read_bytes_per_s * READ_FRACTION)
    copying = rows * kind.activation_bytes / (limits.read_bytes_per_s * ROWS_READ_FRACTION)
    if not kind.flops_per_row:
        return ROWS_CALL_S + reading + copying
    dots = _dot_s(rows * (kind.flops_per_row + kind.output_flops_per_row), DOT_FRACTION, limits)
    return CALL_S + overlapped(reading, dots, kind.overlap_order)


def overlapped(reading: float, dots: float, order: int = OVERLAP_ORDER) -> float:
    """Seconds of reading and multiplying at once: the longer, and more where they are near."""
    longer, shorter = max(reading, dots), min(reading, dots)
    return longer * (1 + (shorter / longer) ** order) ** (1 / order) if longer else 0.0


def _dot_s(flops: int, fraction: float, limits: Limits) -> float:
    """Seconds of multiplying; none where the machine's limit is not known."""
    return flops / (limits.dot_flops_per_s * fraction) if limits.dot_flops_per_s else 0.0


def _kind(program: Program, call: Call) -> _Kind:
    work = call_work(program, call)
    x = program.buffers.get(call.args.get("x", ""))
    is_tiled = kernel_level(call) == TILE_LEVEL
    products = QKV_OUTPUT_PRODUCTS if call.family == "qkv_rope_kv" else OUTPUT_PRODUCTS
    if is_tiled:
        products = TILE_OUTPUT_PRODUCTS
    flops_per_row = round(work.flops_per_row * _product_factor(program, call))
    if call.family in STATE_FLOPS:
        flops_per_row = STATE_FLOPS[call.family] * math.prod(program.states.shapes[call.attrs["state"]])
    return _Kind(
        family=call.family,
        rows=call.rows,
        bytes_once=work.bytes_once,
        flops_per_row=flops_per_row,
        output_flops_per_row=work.flops_per_row // x.cols * products if x else 0,
        bytes_per_row=work.bytes_per_row,
        # Beside a matrix its activations stay in a cache.
        activation_bytes=0 if flops_per_row else _activation_bytes(program, call),
        overlap_order=TILE_OVERLAP_ORDER if is_tiled else OVERLAP_ORDER,
        experts=experts_of(call) if call.family == "expert_linear" else None,
    )


def _product_factor(program: Program, call: Call) -> float:
    """What a product of codes takes against the least; int4p is multiplied as if it were int8 in no groups."""
    weight = program.constants.get(call.args.get("weight", ""))
    coding = ENCODINGS.get(weight.packing.partition(".")[2]) if weight is not None else None
    is_tiled = kernel_level(call) == TILE_LEVEL
    if coding is None or coding.kind == "float":
        fraction = TILE_FRACTION if coding is None else TILE_FP8_FRACTION
        return DOT_FRACTION / fraction if is_tiled else 1.0
    is_progressive = coding.kind == "progressive"
    if is_tiled:
        if coding.group is None or is_progressive:
            return DOT_FRACTION / TILE_BYTES_FRACTION
        has_zeros = "affine" in coding.kind or (coding.kind == "integer" and coding.bits == 8)
        return DOT_FRACTION / TILE_GROUP_FRACTIONS[coding.group][has_zeros]
    groups = 1 / coding.group if coding.group and not is_progressive else 0.0
    if kernel_level(call) in VNNI_LEVELS:
        return 1 + GROUP_PRODUCTS * groups + (NIBBLE_FRACTION if coding.bits < 8 else 0)
    product, group_end = NARROW_PRODUCTS["int8" if is_progressive else coding.name.partition(".")[0]]
    return product + group_end * groups


def _activation_bytes(program: Program, call: Call) -> int:
    """Of a row, read and written; of the best logits only as many as are wanted, which is next to nothing."""
    buffers = (program.buffers.get(name) for role, name in call.args.items() if role not in ("ids", "values"))
    return sum(buffer.cols * itemsize(buffer.dtype) for buffer in buffers if buffer is not None)
