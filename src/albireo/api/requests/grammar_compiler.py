"""The compiler of grammars for one model, from its tokenizer.

Called by admission.py, and by the engine process, which reads a vocabulary and no chats.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.structured.compiler import GrammarCompiler
from albireo.structured.vocabulary import Vocabulary
from albireo.text.tokenizer import Tokenizer


def grammar_compiler(
    tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Sequence[int], default: str
) -> GrammarCompiler:
    """The compiler of grammars for one model.

    Args: eos_token_ids: those that may end an output. default: EngineConfig.structured_outputs_backend.
    """
    return GrammarCompiler(
        Vocabulary(
            serialized=tokenizer.serialized,
            token_bytes=tokenizer.token_bytes,
            added=tokenizer.added_tokens(),
            special_ids=tokenizer.special_ids,
            # A model may have more rows than its tokenizer has tokens, or fewer.
            vocab_size=max(vocab_size, tokenizer.vocab_size),
            eos_token_ids=tuple(token_id for token_id in eos_token_ids if token_id < vocab_size),
        ),
        default,
    )
