"""Kernels run in Triton's interpreter here, on CPU tensors; that is decided before they are imported."""

from __future__ import annotations

import os

import pytest

os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton", reason="the CUDA backend needs Triton, which is there for Linux only")
