"""Prompt and parameters of one caller -> what the engine takes, or the reason why not.

Called by llm.py and async_llm.py, from any thread. Does not know what else runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from albireo.api.media.reader import open_reader
from albireo.api.requests.beam_search import sampling_of
from albireo.api.requests.grammar_compiler import grammar_compiler
from albireo.api.requests.pooling_admission import PoolingAdmission
from albireo.api.requests.prompt_encoder import PromptEncoder
from albireo.api.requests.prompt_media import PromptMedia
from albireo.api.requests.prompts import Prompt
from albireo.api.requests.submission import Submission
from albireo.api.transcribe.transcribers import open_transcriber
from albireo.beam_search_params import BeamSearchParams
from albireo.config import GENERATION_NAMES, EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError, InvalidParams, UnsupportedFeature
from albireo.image_input import MEDIA_KINDS, MediaKind
from albireo.models.settings.generation import GenerationDefaults
from albireo.params import SamplingParams, ThinkingMarks
from albireo.parsers.output_parser import detect_reasoning_parser, reasoning_tags
from albireo.parsers.reasoning import ReasoningTags, is_open
from albireo.sampling.validation import validate
from albireo.structured_params import StructuredOutputsParams
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.script_tokenizer import ScriptTokenizer
from albireo.text.thinking_budget import ThinkingMeter
from albireo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from albireo.api.load import Loaded
    from albireo.api.media.reader import MediaReader
    from albireo.api.transcribe.transcription import Transcriber

_DEFAULTED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")


class Admission:
    """Prepares requests for one model. Keeps no state about them; threads may share it.

    Fields: prompts: how their text is encoded. pooling: the admission of those whose prompts are pooled.
    """

    def __init__(
        self,
        config: EngineConfig,
        defaults: GenerationDefaults,
        settings: EngineSettings,
        tokenizer: Tokenizer | None,
        eos_token_ids: Sequence[int] | None = None,
        reasoning: ReasoningTags | None = None,
        media: MediaReader | None = None,
    ) -> None:
        """Args:
        eos_token_ids: None: grammars are compiled by the process that a submission goes to.
        reasoning: between what the model thinks; None: it does not.
        media: what reads pictures, sounds and videos; None where prompts have none; see settings.image_problem.
        """
        self._config = config
        self._defaults = defaults
        self._settings, self._vocab_size = settings, settings.vocab_size
        self._tokenizer = tokenizer
        self.prompts = PromptEncoder(tokenizer, settings)
        self._reasoning, self._media = reasoning, PromptMedia(settings, media)
        self._chats = None if tokenizer is None else self._chat_encoder(tokenizer)
        self.pooling = PoolingAdmission(settings, self.prompts, self._chats, self._media)
        self._transcriber: Transcriber | UnsupportedFeature
        try:
            self._transcriber = open_transcriber(media, tokenizer, self._chats, settings)
        except UnsupportedFeature as error:
            # without its traceback, whose frames would hold the model
            self._transcriber = UnsupportedFeature(str(error))
        self._grammars = None
        if tokenizer is not None and eos_token_ids is not None and settings.generates:
            backend = config.structured_outputs_backend
            self._grammars = grammar_compiler(tokenizer, settings.vocab_size, eos_token_ids, backend)

    @classmethod
    def of(cls, loaded: Loaded) -> Admission:
        """The admission of a loaded model."""
        tokenizer = loaded.tokenizer
        reasoning = None if tokenizer is None else _reasoning(tokenizer)
        settings = loaded.settings
        media = open_reader(loaded.config, loaded.config_directory, settings, tokenizer)
        return cls(loaded.config, loaded.defaults, settings, tokenizer, loaded.eos_token_ids, reasoning, media)

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises: ConfigError when there is none."""
        if self._tokenizer is None:
            raise ConfigError("there is no tokenizer: skip_tokenizer_init is set; leave it out")
        return self._tokenizer

    @cached_property
    def script_tokenizer(self) -> ScriptTokenizer:
        """The same by further names, for users. Raises: as tokenizer."""
        return ScriptTokenizer(self.tokenizer)

    @property
    def advice(self) -> dict[str, Any]:
        """Recommended sampling: the checkpoint's own unless generation_config is "vllm", and over it the caller's."""
        is_theirs = self._config.generation_config != "vllm"
        theirs = {name: getattr(self._defaults, name) for name in _DEFAULTED if is_theirs}
        ours = self._config.override_generation_config or {}
        assert isinstance(ours, Mapping), "the configuration reads its text"
        found = theirs | {GENERATION_NAMES[name]: value for name, value in ours.items()}
        return {name: value for name, value in found.items() if value is not None}

    def default_params(self) -> SamplingParams:
        """What is meant by no parameters."""
        return SamplingParams(**self.advice)

    def prepare(self, params: SamplingParams) -> SamplingParams:
        """Check parameters against the model, and turn bad words into token ids.

        Raises: InvalidParams naming field, value and limit.
        """
        if not isinstance(params, SamplingParams):
            raise InvalidParams(f"sampling_params must be SamplingParams, got {type(params).__name__}")
        self._check_logprobs("logprobs", params.logprobs)
        self._check_logprobs("prompt_logprobs", params.prompt_logprobs)
        self.prompts.check_cut(params.truncate_prompt_tokens, params.max_tokens)
        if params.stop and self._tokenizer is None:
            raise InvalidParams("stop strings need a tokenizer; use stop_token_ids, or leave skip_tokenizer_init out")
        if params.structured_outputs is not None and self._tokenizer is None:
            raise InvalidParams("structured_outputs need a tokenizer and skip_tokenizer_init is set; leave it out")
        if params.thinking_token_budget is not None:
            params = params.clone(thinking_marks=self._thinking_marks(params.thinking_token_budget))
        if params.bad_words:
            params = params.clone(bad_words_token_ids=self._bad_words(params.bad_words))
        validate(params, self._vocab_size)
        return params

    def submission(self, prompt: Prompt, params: SamplingParams) -> Submission:
        """Join a prompt with parameters that prepare() returned.

        Raises: InvalidParams when the text cannot be encoded; UnsupportedFeature when the model writes no text.
        """
        self.check_text()
        if prompt.images or prompt.sounds or prompt.videos:
            _check_whole(params)
        ids = self.prompts.ids(self._media.marked(prompt), params)
        ids, images = self._media.placed(ids, prompt.images, prompt.sounds, prompt.videos)
        made = Submission(prompt.text, ids, params, prompt.cache_salt, images=images)
        return self.constrained(self.budgeted(made))

    def beam_search(self, prompt: Prompt, asked: BeamSearchParams) -> Submission:
        """Join a prompt with a beam search whose log-probabilities are told. Raises: as prepare() and submission()."""
        params = self.prepare(sampling_of(asked))
        return self.submission(prompt, params.clone(logprobs=min(2 * params.n, self._vocab_size)))

    def check_text(self) -> None:
        """Raises: UnsupportedFeature when the model writes no text."""
        if not self._settings.generates:
            raise UnsupportedFeature(f"this model {self._settings.pooling_rule.says}; it writes no text")

    def chat(self, messages: Sequence[Any], params: SamplingParams, options: dict[str, Any]) -> Submission:
        """Render a chat with the model's template; options are those of ChatEncoder.encode().

        Raises: TemplateError; PromptTooLong for what is longer than any text that fits; ConfigError without a
            tokenizer; UnsupportedFeature when the model writes no text.
        """
        self.check_text()
        if self._chats is None:
            raise ConfigError("chat() needs a tokenizer and skip_tokenizer_init is set; leave it out")
        problems = {f"{kind}_problem": self.problem(kind) for kind in MEDIA_KINDS}
        check_text = partial(self.prompts.check_length, params=params)
        chat = self._chats.encode(messages, check_text=check_text, **(options | problems))
        if chat.images or chat.sounds or chat.videos:
            _check_whole(params)
        ids = self.prompts.kept(chat.token_ids, params)
        ids, placed = self._media.placed(ids, chat.images, chat.sounds, chat.videos)
        return self.constrained(self.budgeted(Submission(chat.text, ids, params, images=placed), is_chat=True))

    def mark(self, kind: MediaKind) -> str | None:
        """What a text says where one of a kind is; None where none are read."""
        place = self._media.place(kind)
        return None if place is None else place.mark

    def _chat_encoder(self, tokenizer: Tokenizer) -> ChatEncoder:
        place, of_videos = self._media.place("image"), self._media.place("video")
        if place is None:
            return ChatEncoder(tokenizer)
        template = None if of_videos is None else of_videos.chat_template
        return ChatEncoder(tokenizer, place.mark, place.written, place.opening, template)

    def problem(self, kind: MediaKind) -> str:
        """Why prompts have none of a kind; empty: they may have some."""
        return self._media.problem(kind)

    @property
    def transcriber(self) -> Transcriber:
        """Raises: UnsupportedFeature where sounds are not written down."""
        if isinstance(self._transcriber, UnsupportedFeature):
            raise UnsupportedFeature(str(self._transcriber))
        return self._transcriber

    def budgeted(self, submission: Submission, *, is_chat: bool = False) -> Submission:
        """Find out whether an output whose thinking is limited begins with thoughts; any other comes back as it is.

        Args: is_chat: a template wrote the prompt: one that opens the thinking ends with its mark, one that forbids it
            with the other. Else the last mark decides, so that thoughts can be gone on with.
        """
        params, tags, tokenizer = submission.params, self._reasoning, self._tokenizer
        marks, budget = params.thinking_marks, params.thinking_token_budget
        if marks is None or budget is None or tags is None or tokenizer is None:
            return submission
        prompt = submission.prompt
        if prompt is None or params.truncate_prompt_tokens is not None:
            prompt = tokenizer.decode(submission.prompt_token_ids, skip_special_tokens=False)
        if is_chat and prompt.rstrip().endswith(tags.end):
            # What follows is an answer, to the parsers too, and keeps any budget.
            return replace(submission, params=params.clone(thinking_token_budget=None, thinking_marks=None))
        if is_chat:
            opens = is_open(prompt, tags) or tags.is_implied
        else:
            opens = prompt.rfind(tags.begin) > prompt.rfind(tags.end)
        marks = replace(marks, is_open=opens)
        return replace(
            submission,
            params=params.clone(thinking_marks=marks),
            budget=partial(ThinkingMeter, tokenizer, marks, budget),
        )

    def constrained(self, submission: Submission) -> Submission:
        """Compile what the output's form is to be; a submission that asks for none comes back as it is.

        Raises: InvalidParams, UnsupportedFeature.
        Cost: about 1 ms, when first asked for seconds; at most GrammarCompiler's deadline.
        """
        form = submission.params.structured_outputs
        if form is None or submission.constraint is not None or self._grammars is None:
            return submission
        assert isinstance(form, StructuredOutputsParams), "SamplingParams makes it one"
        return replace(submission, constraint=self._grammars.compile(form))

    def _check_logprobs(self, name: str, asked: int | None) -> None:
        limit = self._vocab_size if self._config.max_logprobs == -1 else self._config.max_logprobs
        num = self._vocab_size if asked == -1 else asked
        if num is not None and num > limit:
            raise InvalidParams(
                f"{name}={asked} asks for {num} log-probabilities a token, max_logprobs={limit}; "
                "ask for fewer or raise max_logprobs (-1: no limit)"
            )

    def _thinking_marks(self, budget: int) -> ThinkingMarks:
        """Raises: InvalidParams when there is no thinking to limit."""
        tags, tokenizer = self._reasoning, self._tokenizer
        if tags is None or tokenizer is None:
            raise InvalidParams(
                f"thinking_token_budget={budget} needs a model that thinks, and this one has no known marks of "
                "reasoning; leave it out"
            )
        end = tuple(tokenizer.encode(tags.end, add_special_tokens=False))
        if max(end, default=self._vocab_size) >= self._vocab_size:
            raise InvalidParams(
                f"thinking_token_budget={budget} cannot be kept: {tags.end!r} is no text of this model's vocabulary; "
                "leave it out"
            )
        again = tags.then and tags.then + tags.begin
        return ThinkingMarks(begin=tags.begin, end=tags.end, end_token_ids=end, is_open=False, again=again)

    def _bad_words(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Token ids of each word as it stands at the beginning and, where that is another token, after a space.

        Source: the rule is vLLM's, so that the same words are forbidden.
        """
        if self._tokenizer is None:
            raise InvalidParams("bad_words need a tokenizer and skip_tokenizer_init is set; use logit_bias")
        found: list[tuple[int, ...]] = []
        for word in words:
            plain = tuple(self._tokenizer.encode(word.lstrip(), add_special_tokens=False))
            spaced = tuple(self._tokenizer.encode(" " + word.lstrip(), add_special_tokens=False))
            found.append(plain)
            if spaced[:1] != plain[:1] and len(spaced) == len(plain):
                found.append(spaced)
        return tuple(found)


def _check_whole(params: SamplingParams) -> None:
    """Raises: InvalidParams where a prompt with places of media is to be cut."""
    if params.truncate_prompt_tokens is not None:
        raise InvalidParams(
            f"truncate_prompt_tokens={params.truncate_prompt_tokens} is for text: a prompt with images, sounds or "
            "videos is not cut; leave it out"
        )


def _reasoning(tokenizer: Tokenizer) -> ReasoningTags | None:
    """How a model writes what it thinks, by its chat template."""
    templates = tokenizer.chat_templates
    name = detect_reasoning_parser(templates.get("tool_use") or templates.get("default") or "")
    return None if name is None else reasoning_tags(name)
