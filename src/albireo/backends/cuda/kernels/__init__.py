"""The Triton kernels of the CUDA backend, one a file; what several are made of is in parts/.

A kernel file holds

- its contract: shapes, types, what is read and written, what a padding row does;
- the `@triton.jit` kernel, which computes the same bits for a row whatever the other rows are;
- a launcher: a plain function of tensors (views of the arena, the KV cache, the constants) and numbers, which computes
  the grid from shapes only, allocates nothing and never reads a value back, so that it can be captured in a CUDA graph;
- `aot_cases()`: what tests compile ahead of time and look at (see ../aot.py).

The same launchers run under Triton's interpreter on CPU tensors (TRITON_INTERPRET=1), which is how tests check the
numbers where there is no GPU; parts/arithmetic.py holds the helpers that make both agree.
"""
