"""xgrammar's native library for one vocabulary, through tvm_ffi and without xgrammar's Python package.

Used by worker.py alone, in the process that is xgrammar's own. The package imports torch and transformers (265 MB) to
mask logits of its own; the native part needs neither, and fills any int32 array. Does not know requests.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: The release whose native constructors are called here: what they take may change with any release.
RELEASE = "0.2.9"
#: Characters of strings with a length, and of others. The library lets control characters pass in the first, which JSON
#: has as escapes only, and halves of surrogate pairs in both, which are no text.
_CHARACTERS = {
    r"[^\"\\\r\n]": r"[^\0-\x1f\"\\\ud800-\udfff]",
    r"[^\0-\x1f\"\\\r\n": r"[^\0-\x1f\"\\\ud800-\udfff",
}
#: A key that a schema does not name must not become one that it names by way of an escape.
_OTHER_KEY = re.compile(r"^\w*_addl_key\w* ::= .*$", re.MULTILINE)
#: The library writes characters of two hexadecimal digits so that a letter behind them may read as a third.
_TWO_DIGITS = re.compile(r"(?<!\\)((?:\\\\)*)\\x([0-9a-f]{2})")
_ESCAPED = r' | ("\\" basic_escape basic_string_sub)'


class Library:
    """Raises ImportError, or what the library raises, when it cannot be used."""

    def __init__(self, tokens: Sequence[bytes], vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """Args: tokens: bytes of each id; an empty one never stands in a text."""
        installed = importlib.metadata.version("xgrammar")
        if installed.partition(".post")[0] != RELEASE:
            raise ImportError(
                f"release {installed} is installed and {RELEASE} is called: pip install 'xgrammar=={RELEASE}'"
            )
        # tvm_ffi imports torch where there is one, and nothing here needs it.
        sys.modules["torch"] = None  # type: ignore[assignment]
        # numpy, which tvm_ffi imports, else begins threads that do not survive a fork.
        os.putenv("OPENBLAS_NUM_THREADS", "1")
        import tvm_ffi
        from tvm_ffi.libinfo import load_lib_module

        spec = importlib.util.find_spec("xgrammar")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("there is no xgrammar")
        places = [Path(place) for place in spec.submodule_search_locations]
        self._module = load_lib_module("xgrammar", "xgrammar_bindings", extra_lib_paths=places)

        def declared(name: str) -> Any:
            made = type(name, (tvm_ffi.Object,), {})
            return tvm_ffi.register_object(f"xgrammar.tvm_ffi_binding.{name}")(made)

        declared("CompiledGrammar")
        self._grammar, self._matcher = declared("Grammar"), declared("GrammarMatcher")
        raw_bytes, add_prefix_space = 0, False
        info = declared("TokenizerInfo")(list(tokens), raw_bytes, vocab_size, list(eos_token_ids), add_prefix_space)
        num_threads, has_cache, no_limit, fills_masks_late = 1, False, -1, False
        self._compiler = declared("GrammarCompiler")(info, num_threads, has_cache, no_limit, fills_masks_late)

    def compile(self, job: dict[str, Any]) -> Any:
        """A compiled grammar. Args: job: see request.py. Raises: RuntimeError and others of the library's."""
        kind = job["kind"]
        if kind == "regex":
            return self._compiler.compile_regex(job["regex"])
        if kind == "tag":
            tag = {"type": "structural_tag", "format": self._tree(job["format"], job["whitespace"])}
            return self._compiler.compile_structural_tag(json.dumps(tag))
        text = job["ebnf"] if kind == "ebnf" else self.ebnf(job["schema"], job["whitespace"])
        return self._compiler.compile_grammar_from_strings(text, "root")

    def matcher(self, compiled: Any) -> Any:
        """A matcher of a compiled grammar that has seen nothing."""
        return self._matcher(compiled, None, False, -1, None)

    def buffer(self, num_tokens: int) -> Any:
        """An array for the mask of so many tokens: [1, words] int32, all zero."""
        import numpy as np

        return np.zeros((1, (num_tokens + 31) // 32), np.int32)

    def ebnf(self, schema: str, whitespace: int) -> str:
        """The grammar of a JSON schema, with what the library gets wrong put right."""
        separators = None if whitespace else (",", ":")
        is_strict = any_order = False
        made = self._grammar.from_json_schema(
            schema, whitespace > 0, None, separators, is_strict, whitespace or None, any_order, False
        )
        text = str(made.to_string())
        for wrong, right in _CHARACTERS.items():
            text = text.replace(wrong, right)
        text = _TWO_DIGITS.sub(r"\1\\U000000\2", text)
        return _OTHER_KEY.sub(lambda found: found[0].replace(_ESCAPED, ""), text)

    def _tree(self, node: Any, whitespace: int) -> Any:
        if isinstance(node, list):
            return [self._tree(each, whitespace) for each in node]
        if not isinstance(node, dict):
            return node
        if node.get("type") == "json_schema":
            return {"type": "grammar", "grammar": self.ebnf(node["json_schema"], whitespace)}
        return {name: self._tree(each, whitespace) for name, each in node.items()}
