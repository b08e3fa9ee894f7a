"""llguidance as a backend, in this process.

Made by structured/compiler.py. The library works lazily: compiling takes about a millisecond, and states of the lexer
are made when a text meets them. So a grammar that is made to be large is refused here or, when it grows while a text
goes on, in the step where it passes a limit; that ends its own request only.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.kept import Kept
from albireo.structured.vocabulary import Vocabulary
from albireo.structured_params import StructuredOutputsParams

if TYPE_CHECKING:
    import llguidance

    from albireo.structured.llguidance.matcher import Matcher

#: What may be left out of a schema: a format of somebody's own is an annotation, as JSON Schema has it; a oneOf whose
#: branches overlap is an anyOf.
_TOLERATED = ("Unknown format", "oneOf not fully supported")
#: Grammars kept compiled, and the requests that share one: they also share its lexer's states, which are limited.
MAX_KEPT, MAX_SHARED = 16, 16
#: llguidance's limits. Work of one mask: 200,000 units of lexer fuel are about 14 ms, 20,000 items mostly 4 ms, and 130
#: in the most ambiguous of grammars; an object of 600 properties that may be left out needs as many. A state of the
#: lexer takes up to 2 kB.
_LIMITS = {
    "initial_lexer_fuel": 1_000_000,
    "max_grammar_size": 500_000,
    "max_items_in_row": 5_000,
    "max_lexer_states": 20_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 20_000,
    "verbose_errors": False,
}


class Constraint:
    """A compiled grammar; implements step.TokenConstraint. Threads may share it."""

    def __init__(
        self, template: llguidance.LLMatcher, eos_token_ids: tuple[int, ...], tokenizer: llguidance.LLTokenizer
    ) -> None:
        self._template, self._tokenizer = template, tokenizer
        self._eos_token_ids = eos_token_ids

    def is_spent(self) -> bool:
        """Whether those who share it have used up what its lexer may hold. Cost: 20 µs."""
        copy = self._template.deep_copy()
        copy.compute_bitmask()
        return copy.is_error()

    def matcher(self) -> Matcher:
        """See step.TokenConstraint. Cost: 10 µs; nothing is compiled again."""
        from albireo.structured.llguidance.matcher import Matcher

        return Matcher(self._template.deep_copy, self._eos_token_ids, self._tokenizer.tokenize_bytes)


class LLGuidance:
    """Implements compiler.Backend. Threads may share it; what is costly is made when first asked for."""

    def __init__(self, vocabulary: Vocabulary, deadline_s: float) -> None:
        self._vocabulary = vocabulary
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._kept: Kept[Constraint] = Kept(MAX_KEPT, MAX_SHARED)

    def compile(self, params: StructuredOutputsParams) -> Constraint:
        """See compiler.Backend. Cost: about 1 ms; seconds when first called, for the vocabulary."""
        grammar, tokenizer = self._grammar(params)
        constraint = self._kept.get(grammar)
        if constraint is not None:
            return constraint
        with self._lock:
            pool = self._pool = self._pool or ThreadPoolExecutor(2, "albireo-grammar")
        work = pool.submit(self._compile, params.kind, grammar, tokenizer)
        try:
            return self._kept.put(grammar, work.result(self._deadline_s))
        except TimeoutError:
            work.cancel()
            raise InvalidParams(
                f"structured_outputs.{params.kind} takes longer than {self._deadline_s:g} s to compile; make it simpler"
            ) from None

    def _grammar(self, params: StructuredOutputsParams) -> tuple[str, llguidance.LLTokenizer]:
        try:
            import llguidance  # noqa: F401 - missing is told here, for all that follows

            from albireo.structured.llguidance.grammar_text import grammar_text
        except ImportError as error:
            raise UnsupportedFeature(
                f"structured_outputs need llguidance, which is missing ({error}): pip install albireo[structured]"
            ) from None
        with self._lock:
            tokenizer = self._tokenizer = self._tokenizer or self._read_tokenizer()
        added = self._vocabulary.added
        special = {text: token_id for text, token_id in added.items() if tokenizer.is_special_token(token_id)}
        return grammar_text(params, special), tokenizer

    def _read_tokenizer(self) -> llguidance.LLTokenizer:
        import llguidance

        vocabulary = self._vocabulary
        try:
            return llguidance.LLTokenizer(
                vocabulary.serialized(), n_vocab=vocabulary.vocab_size, eos_token=list(vocabulary.eos_token_ids)
            )
        except ValueError as error:
            raise UnsupportedFeature(f"structured_outputs do not work with this model's tokenizer: {error}") from None

    def _compile(self, kind: str, grammar: str, tokenizer: llguidance.LLTokenizer) -> Constraint:
        import llguidance

        from albireo.structured.llguidance.matcher import reason

        limits: dict[str, Any] = _LIMITS
        template = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=llguidance.LLParserLimits(**limits))
        # The first mask is computed here, so that a step does not pay for it, and what cannot begin is refused.
        mask = b"" if template.is_error() else template.compute_bitmask()
        if template.is_error():
            raise InvalidParams(f"structured_outputs.{kind} cannot be used: {reason(template.get_error())}")
        if not any(mask):
            raise InvalidParams(f"structured_outputs.{kind} allows no token of this model to begin with")
        refused = [warning for warning in template.get_grammar_warnings() if not warning.startswith(_TOLERATED)]
        if refused:
            raise UnsupportedFeature(f"structured_outputs.{kind} asks for what is not supported: {'; '.join(refused)}")
        return Constraint(template, self._vocabulary.eos_token_ids, tokenizer)
