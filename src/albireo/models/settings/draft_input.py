"""What a layer that guesses reads beside tokens: a hidden state of the model that it guesses for.

Part of ModelConfig, read by blocks/layers.py. Does not know who runs it, nor where hidden states are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Modules of such a layer, whatever files call them: what joins a token's embedding and a hidden state, and their
#: norms.
JOINING, EMBEDDING_NORM, STATE_NORM = "draft.fc", "draft.embedding_norm", "draft.state_norm"
#: model_type of Gemma 4's assistants.
ASSISTANT = "gemma4_assistant"
#: Rows of the model's head, where it guesses among some of its tokens.
FEW_LOGITS = "draft.head.weight"


@dataclass(frozen=True, slots=True)
class DraftInput:
    """Fields:
    is_state_first: a hidden state stands before the embedding where both are joined, not behind it.
    leaves_normed: what it leaves is what the last norm gave, as the model's own states are; else what that norm read.
    num_ids: it guesses among so many of the model's tokens, whichever; None: among all.
    """

    is_state_first: bool = False
    leaves_normed: bool = True
    num_ids: int | None = None
