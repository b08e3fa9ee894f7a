"""Triton's interpreter in about half the time: it prepares the language for a function once a launch.

Triton 3.9 does so whenever one function calls another, tl.sum and tl.zeros included, and each time looks at every name
of the language, which is most of what interpreting a kernel takes. With Triton 3.6, which GPU machines have, it does
what 3.9's does: bounds of loops are numbers to numpy 2.4, and a product and a sum that are one operation round once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from triton.runtime import interpreter


def prepare_once() -> None:
    """From here on, in this process. May be called again."""
    if getattr(interpreter, "_prepares_once", False):
        return
    prepare, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    prepared: set[int] = set()

    def prepare_new(function: Any) -> Any:
        # what is prepared follows from the module that the function is of
        module = id(function.__globals__)
        if module in prepared:
            return interpreter._LangPatchScope()
        prepared.add(module)
        return prepare(function)

    def launch_anew(self: Any, *args: Any, **kwargs: Any) -> None:
        # what the launch before prepared was undone at its end
        prepared.clear()
        launch(self, *args, **kwargs)

    def patch_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    patch = interpreter._patch_lang_tensor
    interpreter._patch_lang_tensor = patch_tensor
    interpreter._patch_lang, interpreter.GridExecutor.__call__ = prepare_new, launch_anew
    if not hasattr(interpreter._interpreter, "fma_fp32"):
        interpreter.InterpreterBuilder.create_fma = _create_fma
    interpreter._prepares_once = True


def _create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
    """Products of float32 are exact in float64; the sum there is rounded so far behind that it hardly ever matters."""
    wide = x.data.astype(np.float64) * y.data + z.data
    return interpreter.TensorHandle(wide.astype(z.data.dtype), z.dtype.scalar)
