"""Triton's interpreter in about half the time: it prepares the language for a function once a launch.

Triton 3.9 does so whenever one function calls another, tl.sum and tl.zeros included, and each time looks at every name
of the language, which is most of what interpreting a kernel takes.
"""

from __future__ import annotations

from typing import Any

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

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = prepare_new, launch_anew
    interpreter._prepares_once = True
