"""What attention to chosen positions costs on the processor, against attention to all of them.

    PYTHONPATH=tests python benchmarks/chosen_keys.py [--heads 128 --index-heads 64 | --blocks]

A layer's attention in the shape of DeepSeek V3.2 (GLM-5: --heads 64 --index-heads 32), or of MiniMax M3 (--blocks: each
of four KV heads chooses 16 blocks of 128 for 16 heads), random keys, one thread, bfloat16. Processor time, least of a
few runs: choosing 2,048 positions, seeing them, and what seeing all takes instead.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.compiler.pipeline import compile_graph
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from backends.cpu.test_gather import Stored, Weights
from step_batches import Work, make_step

COUNT, MOST, BLOCK = 2048, 1 << 17, 16
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 512,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "first_k_dense_replace": 0,
    "moe_intermediate_size": 32,
    "q_lora_rank": 256,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "index_head_dim": 128,
    "rope_scaling": None,
    "max_position_embeddings": MOST,
    "torch_dtype": "bfloat16",
}


#: Of one that chooses blocks.
BLOCKS = {
    **{"vocab_size": 128, "hidden_size": 512, "dense_intermediate_size": 64, "num_hidden_layers": 1},
    **{"intermediate_size": 32, "shared_intermediate_size": 32, "num_attention_heads": 64, "num_key_value_heads": 4},
    **{"head_dim": 128, "rotary_dim": 64, "layer_types": ["minimax_m3_sparse"], "mlp_layer_types": ["sparse"]},
    **{"index_n_heads": 4, "index_head_dim": 128, "index_block_size": 128},
    **{"max_position_embeddings": MOST, "torch_dtype": "bfloat16"},
}


def model(heads: int, index_heads: int, count: int) -> CpuModel:
    """count: of positions that are seen; the most there are: all, and nothing chooses. index_heads: 0: of blocks."""
    known = load_architecture("deepseek_v32" if index_heads else "minimax_m3_vl_text")
    shape = {**SHAPE, "num_attention_heads": heads, "index_n_heads": index_heads, "index_topk": count}
    shape = shape if index_heads else {**BLOCKS, "index_topk_blocks": count // 128}
    graph = build_graph(parse_config({**known.tiny, **shape}, known.rules), MOST)
    program = compile_graph(
        graph, CpuCatalog(isa_levels()), maxima={"T": 16, "R": 1, "G": 16}, block_size=BLOCK, max_positions=MOST
    )
    rows: dict[str, tuple[int, tuple[int, ...]]] = {}  # of each tensor, and what a row is
    for value in graph.constants.values():
        assert value.constant is not None
        for segment in value.constant.segments:
            assert segment.source is not None
            known_rows, _ = rows.get(segment.source, (0, ()))
            rows[segment.source] = max(known_rows, segment.stop), tuple(int(dim) for dim in value.type.dims[1:])
    rng, tensors = np.random.default_rng(0), {}
    for name, (count_of, row) in rows.items():
        drawn = rng.standard_normal((count_of, *row), np.float32) / np.float32(row[-1] ** 0.5 if row else 1)
        tensors[name] = Stored(drawn, "bfloat16")
    found = CpuModel(program, Weights(tensors), thread_pool(1), MOST // BLOCK)
    memory = found._kv.memory.view().view(np.uint16)  # all of it, so that each key is another
    keys = (rng.standard_normal(1 << 22, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    for start in range(0, len(memory), len(keys)):
        memory[start : start + len(keys)] = keys[: len(memory) - start]
    return found


def seconds(of: CpuModel, families: tuple[str, ...], context: int, rows: int) -> float:
    work = Work([3] * rows, context - rows, list(range(context // BLOCK)))
    step = make_step([work], BLOCK, "none", "last")
    of.run(step)
    run, found = of.runner([call for call in of.program.calls if call.family in families]), []
    for _ in range(5 if rows == 1 else 3):
        start = time.process_time()
        run(step)
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=128)
    parser.add_argument("--index-heads", type=int, default=64)
    parser.add_argument("--blocks", action="store_true")
    args = parser.parse_args()
    index_heads = 0 if args.blocks else args.index_heads
    choosing = model(args.heads, index_heads, COUNT)
    seeing_all = model(args.heads, index_heads, MOST)
    for rows in (1, 16):
        for context in (4096, 16384, 65536, 131072):
            choose = seconds(choosing, ("choose_keys",), context, rows)
            chosen = seconds(choosing, ("choose_keys", "attention"), context, rows) - choose
            every = seconds(seeing_all, ("attention",), context, rows)
            print(
                f"{rows:2d} rows, {context:7,d} positions: choosing {1e3 * choose:8.2f} ms, seeing {COUNT:,} "
                f"{1e3 * chosen:8.2f} ms; seeing all {1e3 * every:8.2f} ms, {every / (choose + chosen):.1f} times that",
                flush=True,
            )


if __name__ == "__main__":
    main()
