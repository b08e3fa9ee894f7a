"""Prompt and parameters of one caller -> what the engine takes, or the reason why not.

Called by llm.py and async_llm.py, from any thread. Does not know what else runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from albireo.api.beam_search import sampling_of
from albireo.api.grammar_compiler import grammar_compiler
from albireo.api.media import open_reader
from albireo.api.places import Placed, Places
from albireo.api.prompts import Prompt
from albireo.api.scoring import Part, ScorePlan, check_pairs, plan_cosines, plan_pairs, texts_of
from albireo.api.transcribers import open_transcriber
from albireo.beam_search_params import BeamSearchParams
from albireo.config import GENERATION_NAMES, EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError, InvalidParams, PromptTooLong, UnsupportedFeature
from albireo.image_input import MEDIA_KINDS, GivenImage, GivenSound, GivenVideo, ImageInput, MediaKind
from albireo.models.generation import GenerationDefaults
from albireo.models.pooling_rule import Task
from albireo.params import PoolingParams, SamplingParams, ThinkingMarks
from albireo.parsers.output_parser import detect_reasoning_parser, reasoning_tags
from albireo.parsers.reasoning import ReasoningTags, is_open
from albireo.sampling.validation import validate
from albireo.step import ThinkingBudget, TokenConstraint
from albireo.structured_params import StructuredOutputsParams
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.encoded import Cut
from albireo.text.infill import InfillMarks, infill_marks
from albireo.text.thinking_budget import ThinkingMeter
from albireo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from albireo.api.load import Loaded
    from albireo.api.media import MediaReader
    from albireo.api.transcription import Transcriber

#: Of a request whose prompt is pooled.
NO_SAMPLING = SamplingParams(temperature=0.0, seed=0, max_tokens=None, detokenize=False)
#: A text of so many is encoded, and counted, within a second or so.
FEW_CHARS = 1 << 20
_DEFAULTED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")


@dataclass(frozen=True, slots=True)
class Submission:
    """One request, ready for the engine.

    Fields:
        prompt: its text, None when token ids were given.
        constraint: params.structured_outputs, compiled; see Admission.constrained().
        pooling: the prompt's embedding or scores are wanted, and nothing else; params are NO_SAMPLING then.
        budget: makes what watches params.thinking_token_budget; see Admission.budgeted().
        adapter: the number of its adapter.
        images: what its tokens are that stand for pictures.
    """

    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    cache_salt: str | None = None
    constraint: TokenConstraint | None = None
    pooling: PoolingParams | None = None
    budget: Callable[[], ThinkingBudget] | None = None
    adapter: int | None = None
    images: tuple[ImageInput, ...] = ()


class Admission:
    """Prepares requests for one model. Keeps no state about them; threads may share it."""

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
        self._reasoning, self._media = reasoning, media
        self._chats = None if tokenizer is None else ChatEncoder(tokenizer, self.mark("image"))
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
        self._check_cut(params.truncate_prompt_tokens)
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
        ids, images = self._placed(self._ids(prompt, params), prompt.images, prompt.sounds, prompt.videos)
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

    def check_task(self, task: Task) -> None:
        """Raises: UnsupportedFeature when what becomes of a prompt is something else."""
        rule = self._settings.pooling_rule
        if self._settings.sound_positions:
            raise UnsupportedFeature("this model writes down what it hears; it gives no embeddings, and no classes")
        if rule.task != task:
            writes = "writes text (generate, chat) and " if self._settings.generates else ""
            lacks = "gives no embeddings" if task == "embed" else "is no classifier"
            raise UnsupportedFeature(f"this model {writes}{rule.says}; it {lacks}")

    def embedding(self, prompt: Prompt, params: PoolingParams | None, *, add_special_tokens: bool = True) -> Submission:
        """Join a prompt with what its embedding is to be; None: the defaults.

        Raises: InvalidParams when the text cannot be encoded; PromptTooLong when cutting leaves nothing of it;
            UnsupportedFeature when the model gives none.
        """
        self.check_task("embed")
        return self._pooled(prompt, params, add_special_tokens)

    def classification(
        self, prompt: Prompt, params: PoolingParams | None, *, add_special_tokens: bool = True
    ) -> Submission:
        """Join a prompt with how it is classified. Raises: as embedding()."""
        self.check_task("classify")
        return self._pooled(prompt, params, add_special_tokens)

    def scoring(self, data_1: Any, data_2: Any, params: PoolingParams | None) -> tuple[ScorePlan, list[Submission]]:
        """What scores are made of, and what is run for it, one a prompt of the plan.

        Args: data_1: a text for all of data_2, or a list of as many; data_2: a text or a list of texts.
        Raises: InvalidParams; PromptTooLong when cutting leaves nothing of a text; UnsupportedFeature.
        """
        firsts, seconds = texts_of(data_1, "data_1"), texts_of(data_2, "data_2")
        check_pairs(len(firsts), len(seconds), "data_1", "data_2")
        plan = self.score_plan(firsts, seconds)
        return plan, [self.scored(parts, params) for parts in plan.prompts]

    def score_plan(self, firsts: Sequence[Part], seconds: Sequence[Part]) -> ScorePlan:
        """How pairs are scored by this model: check_pairs() found that they are some.

        Raises: UnsupportedFeature when it gives several scores of a pair.
        """
        rule = self._settings.pooling_rule
        if rule.task == "embed":
            return plan_cosines(firsts, seconds)
        if len(rule.labels) > 1:
            raise UnsupportedFeature(f"this model {rule.says}; a score of two texts is that of one label")
        return plan_pairs(firsts, seconds)

    def scored(self, parts: tuple[Part, ...], params: PoolingParams | None, salt: str | None = None) -> Submission:
        """A prompt of a plan, ready for the engine. Args: salt: of the prefix cache. Raises: as embedding()."""
        if len(parts) == 1:
            (part,) = parts
            return self._pooled(Prompt(part.text, None, salt), params, max_text_tokens=part.max_tokens)
        pooling, most = self._pooling(params)
        first, second = parts
        cut = Cut(most, first.max_tokens, second.max_tokens, from_start=pooling.truncation_side == "left")
        encoded = self._encodes().encode_prompt(first.text, second.text, cut=cut)
        if encoded.type_start >= 0 and self._settings.num_token_types > 1:
            pooling = replace(pooling, type_start=encoded.type_start)
        return Submission(None, encoded.ids, NO_SAMPLING, salt, pooling=pooling)

    def _pooled(
        self,
        prompt: Prompt,
        params: PoolingParams | None,
        add_special_tokens: bool = True,
        max_text_tokens: int | None = None,
    ) -> Submission:
        """Args: max_text_tokens: a longer text is cut to so many, what is put round it aside."""
        if prompt.images or prompt.sounds or prompt.videos:
            given = "images" if prompt.images else "a sound" if prompt.sounds else "a video"
            raise UnsupportedFeature(f"the prompt has {given}; embeddings and scores are those of text")
        pooling, most = self._pooling(params)
        is_left = pooling.truncation_side == "left"
        if prompt.token_ids is not None:
            ids = prompt.token_ids[-(most or 0) :] if is_left else prompt.token_ids[:most]
        else:
            assert prompt.text is not None, "a prompt has text or ids"
            cut = Cut(most, max_text_tokens, from_start=is_left)
            ids = self._encodes().encode_prompt(prompt.text, add_special_tokens=add_special_tokens, cut=cut).ids
        return Submission(prompt.text, ids, NO_SAMPLING, prompt.cache_salt, pooling=pooling)

    def _pooling(self, given: PoolingParams | None) -> tuple[PoolingParams, int | None]:
        """What is wanted of a prompt, and the most tokens that are kept of it; None: all."""
        pooling = PoolingParams() if given is None else given
        if not isinstance(pooling, PoolingParams):
            raise InvalidParams(f"pooling_params must be PoolingParams, got {type(pooling).__name__}")
        most, limit = pooling.truncate_prompt_tokens, self._settings.max_model_len
        self._check_cut(most)
        return pooling, limit if most == -1 else most

    def _check_cut(self, most: int | None) -> None:
        limit = self._settings.max_model_len
        if most is not None and most > limit:
            raise InvalidParams(
                f"truncate_prompt_tokens={most} is more than max_model_len={limit}; ask for fewer, or for -1, which "
                "keeps what fits"
            )

    def _num_kept(self, params: SamplingParams) -> int | None:
        """Most tokens of a prompt; None: all. Where none fit it is left to be refused."""
        most = params.truncate_prompt_tokens
        return most if most != -1 else max(1, self._settings.max_model_len - (params.max_tokens or 1))

    def _kept(self, ids: list[int], params: SamplingParams) -> list[int]:
        """As many of a prompt's tokens as params keep."""
        most = self._num_kept(params)
        return ids[:most] if params.truncation_side == "right" else ids[-(most or 0) :]

    def encode(self, text: str, params: SamplingParams, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, as many as params keep.

        Raises: InvalidParams when it cannot be encoded; PromptTooLong when cutting leaves nothing of it.
        """
        most = self._num_kept(params)
        if most is None:
            self._check_length(text)
            return self._encodes().encode(text, add_special_tokens=add_special_tokens)
        cut = Cut(most, from_start=params.truncation_side != "right")
        return self._encodes().encode_prompt(text, add_special_tokens=add_special_tokens, cut=cut).ids

    def infill_marks(self) -> InfillMarks:
        """How a gap in a text is filled. Raises: UnsupportedFeature where the model has no known marks for it."""
        marks = infill_marks(self._encodes().added_tokens())
        if marks is None:
            raise UnsupportedFeature(
                "suffix needs a model that was trained to fill a gap, and the tokenizer of this one has no known marks "
                "for it; leave it out"
            )
        return marks

    def infilled(self, marks: InfillMarks, prefix: str, suffix: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of what stands round a gap. Raises: as encode()."""
        self._check_length(prefix + suffix)
        return marks.ids(self._encodes(), prefix, suffix, add_special_tokens=add_special_tokens)

    def _check_length(self, text: str) -> None:
        """Refuse what cannot fit, before seconds are spent on it. Raises: PromptTooLong."""
        if len(text) <= FEW_CHARS:
            return
        limit = self._encodes().most_chars(self._settings.max_model_len)
        if limit is not None and len(text) > limit:
            raise PromptTooLong(
                f"the prompt has {len(text):,} characters, and no text of more than {limit:,} fits "
                f"max_model_len={self._settings.max_model_len} tokens; shorten it, or set truncate_prompt_tokens"
            )

    def _encodes(self) -> Tokenizer:
        if self._tokenizer is None:
            raise InvalidParams("a text prompt needs a tokenizer and skip_tokenizer_init is set; give token ids")
        return self._tokenizer

    def _ids(self, prompt: Prompt, params: SamplingParams) -> list[int]:
        if prompt.token_ids is not None:
            return self._kept(prompt.token_ids, params)
        assert prompt.text is not None, "a prompt has text or ids"
        # a model that hears is told by the first tokens what to write: what a tokenizer puts round texts is in the way
        return self.encode(prompt.text, params, add_special_tokens=not self._settings.sound_positions)

    def chat(self, messages: Sequence[Any], params: SamplingParams, options: dict[str, Any]) -> Submission:
        """Render a chat with the model's template; options are those of ChatEncoder.encode().

        Raises: TemplateError; ConfigError without a tokenizer; UnsupportedFeature when the model writes no text.
        """
        self.check_text()
        if self._chats is None:
            raise ConfigError("chat() needs a tokenizer and skip_tokenizer_init is set; leave it out")
        problems = {f"{kind}_problem": self._problem(kind) for kind in MEDIA_KINDS}
        chat = self._chats.encode(messages, **(options | problems))
        if chat.images or chat.sounds or chat.videos:
            _check_whole(params)
        ids, placed = self._placed(self._kept(chat.token_ids, params), chat.images, chat.sounds, chat.videos)
        return self.constrained(self.budgeted(Submission(chat.text, ids, params, images=placed), is_chat=True))

    def _placed(
        self,
        ids: list[int],
        pictures: Sequence[GivenImage],
        sounds: Sequence[GivenSound],
        videos: Sequence[GivenVideo],
    ) -> Placed:
        """A prompt with its pictures, sounds and videos in place, or behind its sound.

        Raises: UnsupportedFeature where none are read; InvalidParams.
        """
        media: dict[MediaKind, Sequence[Any]] = {"image": pictures, "sound": sounds, "video": videos}
        for kind, given in media.items():
            if given and (problem := self._problem(kind)):
                raise UnsupportedFeature(f"the prompt has {len(given)} {kind}s, and {problem}")
        if self._media is None:
            return ids, ()
        if isinstance(self._media, Places):
            return self._media.placed(ids, media)
        return self._media.placed(ids, sounds)

    def mark(self, kind: MediaKind) -> str | None:
        """What a text says where one of a kind is; None where none are read."""
        place = self._media.kinds.get(kind) if isinstance(self._media, Places) else None
        return None if place is None else place.mark

    def _problem(self, kind: MediaKind) -> str:
        """Why prompts have none of a kind; empty: they may have some."""
        settings = self._settings
        problems = {"image": settings.image_problem, "sound": settings.sound_problem, "video": settings.video_problem}
        problem = problems[kind]
        if self._media is None and not problem:
            return "they need a tokenizer and skip_tokenizer_init is set; leave it out"
        return problem

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
