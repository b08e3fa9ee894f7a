"""Other programs as peers of embeddings.py: each takes a checkpoint, and embeds token ids on the same weights.

Each gets texts sorted by length in padded batches of 32, as sentence-transformers does, and gives the mean of their
hidden states, which is part of what it compiles. onnxruntime wants `pip install onnx onnxscript onnxruntime`, OpenVINO
`pip install openvino`, beside the torch and the transformers of the tests; float32 is asked for by name, since OpenVINO
takes bfloat16 by itself where a processor has products of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

#: Token ids of texts to an array [num_texts, width].
Embed = Callable[[list[list[int]]], np.ndarray]
#: A checkpoint and a number of threads.
Peer = Callable[[Path, int], Embed]

BATCH = 32
INPUTS = ("input_ids", "attention_mask")


class Means(torch.nn.Module):  # type: ignore[misc]  # torch is not read
    """An encoder and the mean of its hidden states, [num_texts, width], of ids and mask [num_texts, num_tokens]."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype, attention: str) -> None:
        super().__init__()
        self.encoder = transformers.AutoModel.from_pretrained(
            checkpoint, dtype=dtype, attn_implementation=attention
        ).eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        mask = attention_mask[:, :, None].float()
        sums: torch.Tensor = (hidden * mask).sum(1)
        return sums / mask.sum(1)


def batched(means: Callable[[np.ndarray, np.ndarray], np.ndarray], prompts: list[list[int]]) -> np.ndarray:
    """Means of padded batches, in the order of the prompts."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    rows: list[Any] = [None] * len(prompts)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        ids: np.ndarray = np.zeros((len(chosen), len(prompts[chosen[0]])), np.int64)
        mask = np.zeros_like(ids)
        for row, i in enumerate(chosen):
            ids[row, : len(prompts[i])], mask[row, : len(prompts[i])] = prompts[i], 1
        for i, mean in zip(chosen, means(ids, mask), strict=True):
            rows[i] = mean
    stacked: np.ndarray = np.stack(rows)
    return stacked


def of_transformers(checkpoint: Path, threads: int, dtype: torch.dtype) -> Embed:
    torch.set_num_threads(threads)
    model = Means(checkpoint, dtype, "sdpa")

    def means(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            rows: np.ndarray = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return rows

    return partial(batched, means)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """What a model is traced with: two texts, one of them padded."""
    mask = torch.ones(2, 24, dtype=torch.long)
    mask[1, 17:] = 0
    return torch.full_like(mask, 7), mask


def of_onnxruntime(checkpoint: Path, threads: int, is_int8: bool) -> Embed:
    """Args: is_int8: weights are rounded a channel each, activations as they come (its quantize_dynamic)."""
    import onnxruntime

    model = Means(checkpoint, torch.float32, "eager")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.onnx"
        dims = {
            0: torch.export.Dim("texts"),
            1: torch.export.Dim("tokens", max=model.encoder.config.max_position_embeddings),
        }
        torch.onnx.export(
            model, example(), file, dynamo=True, dynamic_shapes=(dims, dims), input_names=INPUTS, verbose=False
        )
        if is_int8:
            from onnxruntime.quantization import quantize_dynamic

            quantize_dynamic(file, f"{folder}/int8.onnx", per_channel=True)
            file = f"{folder}/int8.onnx"
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])

    def means(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rows: np.ndarray = session.run(None, dict(zip(INPUTS, (ids, mask), strict=True)))[0]
        return rows

    return partial(batched, means)


def of_openvino(checkpoint: Path, threads: int, precision: str) -> Embed:
    import openvino

    traced = openvino.convert_model(Means(checkpoint, torch.float32, "sdpa"), example_input=example())
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.compile_model(traced, "CPU", options).create_infer_request()

    def means(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rows: np.ndarray = request.infer([ids, mask])[0]
        return rows

    return partial(batched, means)


PEERS: dict[str, Peer] = {
    "transformers": partial(of_transformers, dtype=torch.float32),
    "transformers-bf16": partial(of_transformers, dtype=torch.bfloat16),
    "onnxruntime": partial(of_onnxruntime, is_int8=False),
    "onnxruntime-int8": partial(of_onnxruntime, is_int8=True),
    "openvino": partial(of_openvino, precision="f32"),
    "openvino-bf16": partial(of_openvino, precision="bf16"),
}
