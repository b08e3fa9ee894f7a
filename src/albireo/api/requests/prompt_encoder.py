"""A prompt's text -> token ids, as many as the model's context and the request's parameters keep.

Owned by admission.py; threads may share it. Does not know what becomes of a prompt.
"""

from __future__ import annotations

from albireo.api.requests.prompts import Prompt
from albireo.engine.settings import EngineSettings
from albireo.errors import InvalidParams, PromptTooLong, UnsupportedFeature
from albireo.params import SamplingParams
from albireo.text.encoded import Cut
from albireo.text.infill import InfillMarks, infill_marks
from albireo.text.tokenizer import Tokenizer

#: A text of so many is encoded, and counted, within a second or so.
FEW_CHARS = 1 << 20


class PromptEncoder:
    """Of one model."""

    def __init__(self, tokenizer: Tokenizer | None, settings: EngineSettings) -> None:
        """Args: tokenizer: None: prompts are token ids."""
        self._tokenizer = tokenizer
        self._max_model_len, self._hears = settings.max_model_len, bool(settings.sound_positions)

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises: InvalidParams when there is none."""
        if self._tokenizer is None:
            raise InvalidParams("a text prompt needs a tokenizer and skip_tokenizer_init is set; give token ids")
        return self._tokenizer

    def ids(self, prompt: Prompt, params: SamplingParams) -> list[int]:
        """Token ids of a prompt, as many as params keep. Raises: as encode()."""
        if prompt.token_ids is not None:
            return self.kept(prompt.token_ids, params)
        assert prompt.text is not None, "a prompt has text or ids"
        # a model that hears is told by the first tokens what to write: what a tokenizer puts round texts is in the way
        return self.encode(prompt.text, params, add_special_tokens=not self._hears)

    def encode(self, text: str, params: SamplingParams, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, as many as params keep.

        Raises: InvalidParams when it cannot be encoded; PromptTooLong when cutting leaves nothing of it.
        """
        most = self._num_kept(params)
        if most is None:
            self.check_length(text, params)
            return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        cut = Cut(most, from_start=params.truncation_side != "right")
        return self.tokenizer.encode_prompt(text, add_special_tokens=add_special_tokens, cut=cut).ids

    def kept(self, ids: list[int], params: SamplingParams) -> list[int]:
        """As many of a prompt's tokens as params keep."""
        most = self._num_kept(params)
        return ids[:most] if params.truncation_side == "right" else ids[-(most or 0) :]

    def check_cut(self, most: int | None, max_tokens: int | None = None) -> None:
        """Args: max_tokens: of the output, which -1 leaves room for. Raises: InvalidParams where more tokens are to be
        kept than there can be, or what fits is none."""
        limit = self._max_model_len
        if most == -1 and max_tokens is not None and max_tokens >= limit:
            raise InvalidParams(
                f"truncate_prompt_tokens=-1 keeps what max_tokens={max_tokens} leaves of max_model_len={limit} tokens, "
                "which is nothing; ask for fewer, or say how many to keep"
            )
        if most is not None and most > limit:
            raise InvalidParams(
                f"truncate_prompt_tokens={most} is more than max_model_len={limit}; ask for fewer, or for -1, which "
                "keeps what fits"
            )

    def infill_marks(self) -> InfillMarks:
        """How a gap in a text is filled. Raises: UnsupportedFeature where the model has no known marks for it."""
        marks = infill_marks(self.tokenizer.added_tokens())
        if marks is None:
            raise UnsupportedFeature(
                "suffix needs a model that was trained to fill a gap, and the tokenizer of this one has no known marks "
                "for it; leave it out"
            )
        return marks

    def infilled(
        self,
        marks: InfillMarks,
        prefix: str,
        suffix: str,
        *,
        add_special_tokens: bool = True,
        before: str = "",
        begun: str = "",
    ) -> list[int]:
        """Token ids of what stands round a gap. Args: before, begun: see InfillMarks.ids(). Raises: as encode()."""
        self.check_length(f"{before}{prefix}{suffix}{begun}", SamplingParams())
        special = add_special_tokens
        return marks.ids(self.tokenizer, prefix, suffix, add_special_tokens=special, before=before, begun=begun)

    def _num_kept(self, params: SamplingParams) -> int | None:
        """Most tokens of a prompt, at least one; None: all."""
        most = params.truncate_prompt_tokens
        return most if most != -1 else max(1, self._max_model_len - (params.max_tokens or 1))

    def check_length(self, text: str, params: SamplingParams) -> None:
        """Refuse what cannot fit and is not cut, before seconds are spent on it. Raises: PromptTooLong."""
        if len(text) <= FEW_CHARS or self._num_kept(params) is not None:
            return
        limit = self.tokenizer.most_chars(self._max_model_len)
        if limit is None or len(text) <= limit:
            return
        if not self.tokenizer.takes_blanks or sum(map(len, text.split())) > limit:
            raise PromptTooLong(
                f"the prompt has {len(text):,} characters, and no text of more than {limit:,} fits "
                f"max_model_len={self._max_model_len} tokens; shorten it, or set truncate_prompt_tokens"
            )
