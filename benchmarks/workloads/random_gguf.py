"""A GGUF file in Q4_K_M whose blocks are drawn: python random_gguf.py dense|mixture FILE [TYPE]

dense: the shape of Llama-3.2-1B; mixture: six layers of Qwen3-30B-A3B's. TYPE: of all matrices in layers. Written
without a checkpoint, since neither the gguf package nor llama-cpp-python writes K types. The tokens have no meaning.
For measuring only. Runs in the environment of the tests.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

#: Where a block has its float16 scales, and about how large these are in a model.
_SCALES = {"Q4_K": ((0, 2), 2e-5), "Q6_K": ((208,), 1e-5)}
_SCALES |= {kind: ((0,), 1e-4) for kind in ("IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S")}
#: Blocks that are drawn of a matrix; they repeat behind that.
_MOST_DRAWN = 200_000
_COMMON = {"vocabulary": 128256, "width": 2048}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "dense": {**_COMMON, "arch": "llama", "layers": 16, "heads": 32, "kv_heads": 8, "head_dim": 64, "ffn": 8192},
    "mixture": {
        **_COMMON,
        **{"arch": "qwen3moe", "layers": 6, "heads": 32, "kv_heads": 4, "head_dim": 128, "ffn": 768},
        **{"experts": 128, "used": 8},
    },
}


class File:
    """A file that is written, and what its numbers are drawn from."""

    def __init__(self, path: Path, shape: Mapping[str, Any], kind: str | None) -> None:
        self.shape, self.kind, self.numbers = shape, kind, np.random.default_rng(0)
        self.writer = gguf.GGUFWriter(str(path), shape["arch"], use_temp_file=True)

    def matrix(self, name: str, kind: str, *dims: int) -> None:
        """Args: dims: rows, or experts and rows; then columns."""
        quant = gguf.GGMLQuantizationType[kind]
        size, num_bytes = gguf.GGML_QUANT_SIZES[quant]
        count = int(np.prod(dims)) // size
        drawn = self.numbers.integers(0, 256, (min(count, _MOST_DRAWN), num_bytes), np.uint8)
        places, typical = _SCALES[kind]
        for place in places:
            scales = np.abs(self.numbers.standard_normal(len(drawn)) * typical).astype("<f2")
            drawn[:, place : place + 2] = scales[:, None].view(np.uint8)
        blocks = np.resize(drawn, (count, num_bytes))
        self.writer.add_tensor(f"{name}.weight", blocks.reshape(*dims[:-1], -1), raw_dtype=quant)

    def vector(self, name: str, length: int) -> None:
        self.writer.add_tensor(f"{name}.weight", np.ones(length, np.float32))

    def settings(self) -> None:
        writer, s = self.writer, self.shape
        writer.add_name("random")
        writer.add_block_count(s["layers"])
        writer.add_context_length(8192)
        writer.add_embedding_length(s["width"])
        writer.add_feed_forward_length(s["ffn"])
        writer.add_head_count(s["heads"])
        writer.add_head_count_kv(s["kv_heads"])
        writer.add_key_length(s["head_dim"])
        writer.add_value_length(s["head_dim"])
        writer.add_rope_freq_base(500000.0)
        writer.add_rope_dimension_count(s["head_dim"])
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_vocab_size(s["vocabulary"])
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
        if "experts" in s:
            writer.add_expert_count(s["experts"])
            writer.add_expert_used_count(s["used"])
            writer.add_expert_feed_forward_length(s["ffn"])
        letters = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
        tokens = [*letters, "ab", *(f"[{i}]" for i in range(s["vocabulary"] - len(letters) - 1))]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(tokens)
        writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(len(tokens) - 2)
        writer.add_eos_token_id(len(tokens) - 1)
        writer.add_add_bos_token(False)

    def layer(self, i: int) -> None:
        s, name, width = self.shape, f"blk.{i}", self.shape["width"]
        # as llama.cpp's preset gives more bits to some layers' values and down projections
        eighth = s["layers"] // 8
        more = "Q6_K" if i < eighth or i >= 7 * s["layers"] // 8 or (i - eighth) % 3 == 2 else "Q4_K"
        most = self.kind or "Q4_K"
        more = self.kind or more
        for norm in ("attn_norm", "ffn_norm"):
            self.vector(f"{name}.{norm}", width)
        rows, kv_rows = s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
        self.matrix(f"{name}.attn_q", most, rows, width)
        self.matrix(f"{name}.attn_k", most, kv_rows, width)
        self.matrix(f"{name}.attn_v", more, kv_rows, width)
        self.matrix(f"{name}.attn_output", most, width, rows)
        experts, end = ((s["experts"],), "_exps") if "experts" in s else ((), "")
        if experts:
            for norm in ("attn_q_norm", "attn_k_norm"):
                self.vector(f"{name}.{norm}", s["head_dim"])
            router = self.numbers.standard_normal((s["experts"], width)) * 0.05
            self.writer.add_tensor(f"{name}.ffn_gate_inp.weight", router.astype(np.float32))
        for part in ("gate", "up"):
            self.matrix(f"{name}.ffn_{part}{end}", most, *experts, s["ffn"], width)
        self.matrix(f"{name}.ffn_down{end}", more, *experts, width, s["ffn"])


def write(path: Path, shape: Mapping[str, Any], kind: str | None = None) -> None:
    file = File(path, shape, kind)
    file.settings()
    is_tied = "experts" not in shape
    file.matrix("token_embd", "Q6_K" if is_tied else "Q4_K", shape["vocabulary"], shape["width"])
    if not is_tied:
        file.matrix("output", "Q6_K", shape["vocabulary"], shape["width"])
    file.vector("output_norm", shape["width"])
    for i in range(shape["layers"]):
        file.layer(i)
    file.writer.write_header_to_file()
    file.writer.write_kv_data_to_file()
    file.writer.write_tensors_to_file()
    file.writer.close()


if __name__ == "__main__":
    shape, file, *kinds = [*sys.argv[1:], "", ""][: max(2, len(sys.argv) - 1)]
    if shape not in SHAPES or not file or len(kinds) > 1 or not {*kinds} <= {*_SCALES}:
        raise SystemExit(__doc__)
    write(Path(file), SHAPES[shape], *kinds)
