"""Loses the GPU to this process, and says what a step of a model is told then: of parts/lost.py.

An index outside of a tensor ends a kernel of torch by an assertion, behind which every call of the process fails; the
GPU itself, and other processes, do not notice. Prints the name of the error.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]


def main() -> None:
    import torch
    from model import blocks_for, make_step, random_model, vocabulary
    from setup import Setup

    device = torch.device("cuda")
    model = random_model(
        Setup(device, False, float("inf")), "bf16", {"T": 16, "R": 4, "G": 4}, 64, blocks_for(20, 4), layers=1
    )
    step = make_step(1, 8, 4, vocabulary(model))
    model.run(step)
    torch.zeros(4, device=device)[torch.tensor([9], device=device)]
    try:
        model.run(step)
    except Exception as error:
        print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main()
