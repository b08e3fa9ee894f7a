"""What tasks ask of the sampler, as arrays in device memory: filled on the host once a step, and sent in three copies.

Filled from SampleTasks by whoever runs a step, read by kernels/sample.py. Does not know logits, nor in which order the
parameters take effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.kernels.parts.weights import FIELDS
from albireo.backends.cuda.kernels.sample_adjust import (
    BANNED,
    BIASED,
    CHANGES,
    COUNT,
    END,
    KEEPS_END,
    MASKED,
    SEEN,
    tile_of,
)
from albireo.errors import InvariantError
from albireo.step import SampleTask, TokenLogprobs

_MASK64 = (1 << 64) - 1
#: Arrays of S tasks by type, widest first so that each begins at a multiple of its size.
_ARRAYS = {
    "temperature": np.float64,
    "top_p": np.float64,
    "min_p": np.float64,
    "seed": np.int64,
    "position": np.int64,
    "rows": np.int32,
    "flags": np.int32,
    "top_k": np.int32,
    "mask_rows": np.int32,
    "repetition": np.float32,
    "frequency": np.float32,
    "presence": np.float32,
    "first_edit": np.int32,  # of S + 1
}


@dataclass(frozen=True, slots=True)
class SamplingTensors:
    """S tasks, those behind the last one of a step greedy on row 0; kernels/sample_*.py say what the arrays mean.

    Fields:
        adjusts, has_top_k, has_top_p: whether a task of this step asks for it, so that launches can be left out.
    """

    temperature: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    seed: torch.Tensor
    position: torch.Tensor
    rows: torch.Tensor
    flags: torch.Tensor
    top_k: torch.Tensor
    mask_rows: torch.Tensor
    repetition: torch.Tensor
    frequency: torch.Tensor
    presence: torch.Tensor
    first_edit: torch.Tensor
    masks: torch.Tensor
    edit_ids: torch.Tensor
    edit_kinds: torch.Tensor
    edit_biases: torch.Tensor
    adjusts: bool
    has_top_k: bool
    has_top_p: bool


@dataclass(frozen=True, slots=True)
class SampleWorkspace:
    """Scratch of kernels/sample_*.py for S tasks; arrived is zeros between launches, work is there if tasks adjust."""

    num_tasks: int
    work: torch.Tensor
    alive: torch.Tensor
    best: torch.Tensor
    partial: torch.Tensor
    strict: torch.Tensor
    ties: torch.Tensor
    state: torch.Tensor
    arrived: torch.Tensor

    @classmethod
    def allocate(cls, num_tasks: int, vocab: int, device: torch.device, adjusts: bool = True) -> SampleWorkspace:
        tiles = -(-vocab // tile_of(vocab))

        def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            num_tasks,
            work=zeros(torch.float32, num_tasks if adjusts else 0, vocab),
            alive=zeros(torch.int32, num_tasks, tiles),
            best=zeros(torch.int64, num_tasks, tiles),
            partial=zeros(torch.int64, num_tasks, tiles, 128),
            strict=zeros(torch.int64, num_tasks, tiles),
            ties=zeros(torch.int32, num_tasks, tiles),
            state=zeros(torch.int64, num_tasks, FIELDS),
            arrived=zeros(torch.int32, num_tasks),
        )


class SamplingStaging:
    """Room for the tasks of the largest step; its device tensors keep their addresses.

    Args:
        num_tasks: S. vocab_size: V.
        max_edits: most ids that all tasks of a step change: prompt and output ids where repetition is penalised,
            output ids where frequency or presence is, biases, bad words, early ends.
    """

    def __init__(self, num_tasks: int, vocab_size: int, max_edits: int, device: torch.device) -> None:
        self._num_tasks, self._vocab_size, self._max_edits = num_tasks, vocab_size, max_edits
        sizes = {name: (num_tasks + (name == "first_edit")) * np.dtype(kind).itemsize for name, kind in _ARRAYS.items()}
        self._host, self._device = _twice((sum(sizes.values()),), torch.uint8, device)
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._tensors: dict[str, torch.Tensor] = {}
        at = 0
        for name, kind in _ARRAYS.items():
            part = slice(at, at + sizes[name])
            self._arrays[name] = self._host[part].numpy().view(kind)
            self._tensors[name] = self._device[part].view(_TORCH[kind])
            at += sizes[name]
        self._host_masks, self._masks = _twice((num_tasks, -(-vocab_size // 32)), torch.int32, device)
        self._host_edits, self._edits = _twice((3, max_edits), torch.int32, device)

    def fill(self, tasks: Sequence[SampleTask], rows: Sequence[int], ahead: int = 0) -> SamplingTensors:
        """Send tasks to the device; task i reads row rows[i] of the logits. The copies may still run.

        Args: ahead: tokens of each task that are drawn but not among its output yet.
        The step before must have ended: its arrays are overwritten.
        Raises: InvalidParams naming the sequence whose grammar gives up; InvariantError when there is no room.
        Cost: O(ids changed) a task, sorted; nothing of V but a mask's V / 8 bytes.
        """
        if len(tasks) > self._num_tasks:
            raise InvariantError(f"{len(tasks)} tasks to sample; memory is planned for {self._num_tasks}")
        arrays = self._arrays
        for name, array in arrays.items():
            array[len(tasks) :] = 1 if name in ("top_p", "repetition") else 0
        num_edits = num_masks = 0
        for i, (task, row) in enumerate(zip(tasks, rows, strict=True)):
            params = task.params
            arrays["temperature"][i] = 0.0 if params.is_greedy else params.temperature
            arrays["top_p"][i], arrays["min_p"][i] = params.top_p, params.min_p
            arrays["seed"][i] = np.uint64(task.seed & _MASK64).astype(np.int64)
            arrays["position"][i], arrays["rows"][i] = len(task.output_token_ids) + ahead, row
            arrays["top_k"][i] = params.top_k if params.top_k < self._vocab_size else 0
            arrays["repetition"][i] = params.repetition_penalty
            arrays["frequency"][i], arrays["presence"][i] = params.frequency_penalty, params.presence_penalty
            arrays["first_edit"][i] = num_edits
            mask = allowed_words(task, self._vocab_size)
            if mask is not None:
                self._host_masks.numpy()[num_masks] = mask
                arrays["mask_rows"][i] = num_masks
                num_masks += 1
            edits = edits_of(task, self._vocab_size)
            num_edits = self._put_edits(num_edits, edits)
            arrays["flags"][i] = (CHANGES if mask is not None or edits[0].size else 0) | (
                MASKED if mask is not None else 0
            )
            arrays["flags"][i] |= KEEPS_END if task.matcher is not None else 0
        arrays["first_edit"][len(tasks) :] = num_edits
        self._device.copy_(self._host, non_blocking=True)
        self._masks[:num_masks].copy_(self._host_masks[:num_masks], non_blocking=True)
        self._edits[:, :num_edits].copy_(self._host_edits[:, :num_edits], non_blocking=True)
        draws = [task.params for task in tasks if not task.params.is_greedy]
        return SamplingTensors(
            **self._tensors,
            masks=self._masks,
            edit_ids=self._edits[0],
            edit_kinds=self._edits[1],
            edit_biases=self._edits[2].view(torch.float32),
            adjusts=bool(arrays["flags"].any()),
            has_top_k=any(0 < params.top_k < self._vocab_size for params in draws),
            has_top_p=any(params.top_p < 1.0 for params in draws),
        )

    def _put_edits(self, first: int, edits: Edits) -> int:
        end = first + edits[0].size
        if end > self._max_edits:
            raise InvariantError(f"tasks change more than the {self._max_edits} logits that memory is planned for")
        room = self._host_edits.numpy()
        room[0, first:end], room[1, first:end] = edits[0], edits[1]
        room[2, first:end] = edits[2].view(np.int32)
        return end


#: ids, kinds, biases of one task; an id once.
Edits = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


def edits_of(task: SampleTask, vocab_size: int) -> Edits:
    """What a task changes of single logits, in no order of effects; see kernels/sample_adjust.py."""
    params = task.params
    output = np.asarray(task.output_token_ids, np.int64)
    repeats = params.repetition_penalty != 1.0
    seen = np.concatenate((np.asarray(task.prompt_token_ids, np.int64), output)) if repeats else output[:0]
    counted = output if params.frequency_penalty or params.presence_penalty else output[:0]
    banned = np.array(task.bad_word_ends, np.int64)
    # A model's own EOS ids may lie beyond the rows of its head; such an id cannot be drawn anyway.
    ends = np.array([token_id for token_id in task.early_ends if token_id < vocab_size], np.int64)
    biased = np.array(list(params.logit_bias or ()), np.int64)
    ids = np.unique(np.concatenate((seen, counted, banned, ends, biased)))
    kinds, biases = np.zeros(ids.size, np.int32), np.zeros(ids.size, np.float32)
    for places, bit in ((seen, SEEN), (banned, BANNED), (ends, END), (biased, BIASED)):
        kinds[np.searchsorted(ids, places)] |= bit
    once, counts = np.unique(counted, return_counts=True)
    kinds[np.searchsorted(ids, once)] += (counts * COUNT).astype(np.int32)
    biases[np.searchsorted(ids, biased)] = np.array(list((params.logit_bias or {}).values()), np.float32)
    return ids.astype(np.int32), kinds, biases


def allowed_words(task: SampleTask, vocab_size: int) -> NDArray[np.int32] | None:
    """[ceil(V / 32)] the tokens that the grammar and allowed_token_ids leave, a bit each; None: all.

    Raises: InvalidParams naming the sequence when its grammar gives up.
    """
    grammar, listed = task.token_mask(vocab_size), task.params.allowed_token_ids
    if grammar is None and listed is None:
        return None
    num_bytes = -(-vocab_size // 32) * 4
    mask = np.full(num_bytes, 0xFF, np.uint8)
    if grammar is not None:
        given = np.frombuffer(grammar, np.uint8)[:num_bytes]
        mask[: given.size] = given
    if listed is not None:
        allowed = np.zeros(num_bytes * 8, np.bool_)
        allowed[list(listed)] = True
        mask &= np.packbits(allowed, bitorder="little")
    return mask.view("<i4")


def token_logprobs(
    token_id: int,
    num: int,
    best: NDArray[np.int32],
    logprobs: NDArray[np.float64],
    ranks: NDArray[np.int32],
) -> TokenLogprobs:
    """What the API reports of a task, from what kernels/top_logprobs.py found; num: of the best, at most MAX_TOP.

    Raises: InvariantError when the row is damaged.
    """
    if not np.isfinite(logprobs[0]) and np.isnan(logprobs).any():
        raise InvariantError(f"token {token_id} has no log-probability; the model's output is damaged")
    kept = [i for i in range(num) if best[i] >= 0 and best[i] != token_id]
    return TokenLogprobs(
        [token_id, *(int(best[i]) for i in kept)],
        [float(logprobs[0]), *(float(logprobs[1 + i]) for i in kept)],
        [int(ranks[0]), *(int(ranks[1 + i]) for i in kept)],
    )


_TORCH = {np.float64: torch.float64, np.float32: torch.float32, np.int64: torch.int64, np.int32: torch.int32}


def _twice(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Room on the host, page-locked where there is a GPU, and on the device."""
    host = torch.zeros(shape, dtype=dtype, pin_memory=device.type == "cuda")
    return host, torch.zeros(shape, dtype=dtype, device=device)
