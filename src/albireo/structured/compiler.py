"""StructuredOutputsParams -> a constraint that sequences can follow, by one of the backends, within its limits.

Called by api when a request is admitted, never in a step. A backend is imported when it is first asked. Does not know
requests or logits, nor how a backend works.
"""

from __future__ import annotations

import threading
from typing import Protocol

from albireo.errors import ConfigError, UnsupportedFeature
from albireo.step import TokenConstraint
from albireo.structured.vocabulary import Vocabulary
from albireo.structured_params import StructuredOutputsParams

#: Seconds a grammar may take to compile; with llguidance one at the limits of size takes half a second.
DEADLINE_S = 10.0


def require_xgrammar() -> None:
    """Raises: ConfigError when xgrammar is not installed."""
    from albireo.structured.xgrammar.backend import MISSING, is_installed

    if not is_installed():
        raise ConfigError(f"structured_outputs_backend=xgrammar: {MISSING}")


class Backend(Protocol):
    """A grammar engine for one model. Threads may share it."""

    def compile(self, params: StructuredOutputsParams) -> TokenConstraint:
        """The constraint for one request. Waits at most for the deadline.

        Raises: InvalidParams when the grammar is wrong, too large, or allows no output; UnsupportedFeature for what the
            backend does not do, and without its library.
        """
        ...


class GrammarCompiler:
    """Compiles for one model. Threads may share it; what is costly is made when first asked for."""

    def __init__(self, vocabulary: Vocabulary, default: str = "llguidance", deadline_s: float = DEADLINE_S) -> None:
        """Args: default: the backend of requests that name none; "auto": see compile()."""
        self._has_end = bool(vocabulary.eos_token_ids)
        self._default = default
        self._vocabulary, self._deadline_s = vocabulary, deadline_s
        self._backends: dict[str, Backend] = {}
        self._lock = threading.Lock()

    def compile(self, params: StructuredOutputsParams) -> TokenConstraint:
        """The constraint for one request, by the backend that it names, or the default.

        "auto" is llguidance; and for what that one does not do xgrammar, where it is installed and does.

        Raises: as Backend.compile().
        """
        if not self._has_end:
            raise UnsupportedFeature("structured_outputs end with an EOS token, and this model names none")
        name = params.backend or self._default
        if name != "auto":
            return self._backend(name).compile(params)
        try:
            return self._backend("llguidance").compile(params)
        except UnsupportedFeature as error:
            from albireo.structured.xgrammar.backend import is_installed

            if not is_installed():
                raise
            try:
                return self._backend("xgrammar").compile(params)
            except UnsupportedFeature:
                raise error from None

    def _backend(self, name: str) -> Backend:
        with self._lock:
            if name not in self._backends:
                self._backends[name] = _opened(name, self._vocabulary, self._deadline_s)
            return self._backends[name]


def _opened(name: str, vocabulary: Vocabulary, deadline_s: float) -> Backend:
    if name == "xgrammar":
        from albireo.structured.xgrammar.backend import XGrammar

        return XGrammar(vocabulary, deadline_s)
    from albireo.structured.llguidance.backend import LLGuidance

    return LLGuidance(vocabulary, deadline_s)
