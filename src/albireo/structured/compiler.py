"""StructuredOutputsParams -> a constraint that sequences can follow, by one of the backends, within its limits.

Called by api when a request is admitted, never in a step. Does not know requests or logits, nor how a backend works.
"""

from __future__ import annotations

from typing import Protocol

from albireo.errors import ConfigError, UnsupportedFeature
from albireo.step import TokenConstraint
from albireo.structured.llguidance.backend import LLGuidance
from albireo.structured.vocabulary import Vocabulary
from albireo.structured.xgrammar.backend import MISSING, XGrammar, is_installed
from albireo.structured_params import StructuredOutputsParams

#: Seconds a grammar may take to compile; with llguidance one at the limits of size takes half a second.
DEADLINE_S = 10.0


def require_xgrammar() -> None:
    """Raises: ConfigError when xgrammar is not installed."""
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
        self._backends: dict[str, Backend] = {
            "llguidance": LLGuidance(vocabulary, deadline_s),
            "xgrammar": XGrammar(vocabulary, deadline_s),
        }

    def compile(self, params: StructuredOutputsParams) -> TokenConstraint:
        """The constraint for one request, by the backend that it names, or the default.

        "auto" is llguidance; and for what that one does not do xgrammar, where it is installed and does.

        Raises: as Backend.compile().
        """
        if not self._has_end:
            raise UnsupportedFeature("structured_outputs end with an EOS token, and this model names none")
        name = params.backend or self._default
        if name != "auto":
            return self._backends[name].compile(params)
        try:
            return self._backends["llguidance"].compile(params)
        except UnsupportedFeature as error:
            if not is_installed():
                raise
            try:
                return self._backends["xgrammar"].compile(params)
            except UnsupportedFeature:
                raise error from None
