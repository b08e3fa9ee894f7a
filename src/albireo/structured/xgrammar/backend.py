"""xgrammar as a backend: what it compiles, and gives masks of, in processes of its own.

Made by structured/compiler.py. The library compiles ahead, and both that and a mask may take any time and memory in
native code that nothing interrupts; so it runs where the kernel can end it. Nothing of it is imported here.
"""

from __future__ import annotations

import importlib.util
import threading

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.kept import Kept
from albireo.structured.vocabulary import Vocabulary
from albireo.structured.xgrammar.host import GrammarProcess, Host, Limits
from albireo.structured.xgrammar.matcher import Matcher
from albireo.structured.xgrammar.request import job_of
from albireo.structured_params import StructuredOutputsParams

#: Grammars kept compiled beside those in use.
MAX_KEPT = 8
#: Processor seconds of a mask; one of a plain schema takes less than a thousandth of it.
MASK_S = 0.2
MEMORY_BYTES = 512 << 20
MISSING = "xgrammar is missing: pip install albireo[xgrammar]"
_PARTS = ("xgrammar", "tvm_ffi")


def is_installed() -> bool:
    """Whether its packages are there; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in _PARTS)


class Constraint:
    """A compiled grammar; implements step.TokenConstraint. Threads may share it."""

    def __init__(self, process: GrammarProcess, eos_token_ids: tuple[int, ...]) -> None:
        self._process = process
        self._eos_token_ids = eos_token_ids

    def is_spent(self) -> bool:
        """Whether its process has ended."""
        return self._process.has_ended

    def matcher(self) -> Matcher:
        return Matcher(self._process, self._eos_token_ids)


class XGrammar:
    """Implements compiler.Backend. Threads may share it; its process begins when first asked for."""

    def __init__(self, vocabulary: Vocabulary, deadline_s: float) -> None:
        self._vocabulary = vocabulary
        self._limits = Limits(deadline_s, MASK_S, MEMORY_BYTES)
        self._lock = threading.Lock()
        self._host: Host | None = None
        self._kept: Kept[Constraint] = Kept(MAX_KEPT)

    def compile(self, params: StructuredOutputsParams) -> Constraint:
        """See compiler.Backend. Cost: a fork, and what the library takes: 0.1 s to seconds with 150,000 tokens."""
        if not is_installed():
            raise UnsupportedFeature(f"structured_outputs.{params.kind}: {MISSING}")
        vocabulary = self._vocabulary
        special = {text: token_id for text, token_id in vocabulary.added.items() if token_id in vocabulary.special_ids}
        job = job_of(params, special)
        key = repr(job)
        constraint = self._kept.get(key)
        if constraint is not None:
            return constraint
        what = f"structured_outputs.{params.kind}"
        process = self._open().grammar(job, what, self._limits)
        if not any(process.first_mask):
            raise InvalidParams(f"{what} allows no token of this model to begin with")
        return self._kept.put(key, Constraint(process, vocabulary.eos_token_ids))

    def _open(self) -> Host:
        with self._lock:
            if self._host is None:
                vocabulary = self._vocabulary
                self._host = Host(_token_bytes(vocabulary), vocabulary.vocab_size, vocabulary.eos_token_ids)
            return self._host


def _token_bytes(vocabulary: Vocabulary) -> list[bytes]:
    """Bytes of each token. xgrammar never allows one that has none: a special token has a byte that no text has, so
    that who names it by its id gets it, and nobody else."""
    special = vocabulary.special_ids
    return [b"\xff" if idx in special else data for idx, data in enumerate(vocabulary.token_bytes())]
