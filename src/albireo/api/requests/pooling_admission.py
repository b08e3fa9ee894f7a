"""Prompt and parameters of one caller -> what is pooled to an embedding, classes or a score, or the reason why not.

Owned by admission.py, which is for text that is written. Keeps no state about requests; threads may share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from albireo.api.requests.prompt_encoder import PromptEncoder
from albireo.api.requests.prompt_media import PromptMedia
from albireo.api.requests.prompts import Prompt
from albireo.api.requests.scored_content import parts_of
from albireo.api.requests.scoring import Part, ScorePlan, check_pairs, plan_cosines, plan_pairs
from albireo.api.requests.submission import NO_SAMPLING, Submission
from albireo.api.requests.written_pair import written_pair
from albireo.engine.pooling import token_width
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError, InvalidParams, UnsupportedFeature, short
from albireo.image_input import MEDIA_KINDS
from albireo.params import POOLING_TASKS, PoolingParams, PoolingTaskName
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.encoded import Cut

#: What a model is said of that does not do a task.
_LACKS: Mapping[PoolingTaskName, str] = {
    "embed": "gives no embeddings of texts",
    "token_embed": "gives no embeddings of tokens",
    "classify": "is no classifier of texts",
    "token_classify": "is no classifier of tokens",
}
#: A chat as a text, of models that know none: nothing but what messages say.
_CONTENTS = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] if part['type'] == 'text' else '' }}{% endfor %}"
    "{% endif %}{% endfor %}"
)


class PoolingAdmission:
    """Prepares requests for one model."""

    def __init__(
        self, settings: EngineSettings, prompts: PromptEncoder, chats: ChatEncoder | None, media: PromptMedia
    ) -> None:
        """Args: chats: None: there is no tokenizer. media: puts pictures, sounds and videos into prompts, or says why
        they have none."""
        self._settings, self._prompts, self._chats, self._media = settings, prompts, chats, media

    def check_task(self, task: PoolingTaskName) -> None:
        """Raises: UnsupportedFeature when what becomes of a prompt is something else."""
        rule = self._settings.pooling_rule
        if self._settings.sound_positions:
            raise UnsupportedFeature("this model writes down what it hears; it gives no embeddings, and no classes")
        if task not in rule.tasks:
            writes = "writes text (generate, chat) and " if self._settings.generates else ""
            raise UnsupportedFeature(f"this model {writes}{rule.says}; it {_LACKS[task]}")
        head = rule.token_head(task)
        if head is not None and head.problem:
            raise UnsupportedFeature(f"{task} of this model: {head.problem}")

    def embedding(
        self,
        prompt: Prompt,
        params: PoolingParams | None,
        *,
        add_special_tokens: bool = True,
        prompt_name: str | None = None,
    ) -> Submission:
        """Join a prompt with what its embedding is to be; None: the defaults.

        Args: prompt_name: of what the model wants in front of such a text; None: nothing.
        Raises: InvalidParams when the text cannot be encoded, and for a name that the model does not know;
            PromptTooLong when cutting leaves nothing of it; UnsupportedFeature when the model gives none.
        """
        self._check_asked("embed", params)
        prompt = self.begun(prompt, prompt_name)
        if params is not None and getattr(params, "pooling_type", None) == "all":
            raise InvalidParams(
                "pooling_type=all gives each token its own embedding: that is encode() with pooling_task token_embed, "
                "or /pooling with this task"
            )
        return self._pooled(prompt, params, add_special_tokens)

    def classification(
        self, prompt: Prompt, params: PoolingParams | None, *, add_special_tokens: bool = True
    ) -> Submission:
        """Join a prompt with how it is classified. Raises: as embedding()."""
        self._check_asked("classify", params)
        return self._pooled(prompt, params, add_special_tokens)

    def pooled(
        self,
        prompt: Prompt,
        params: PoolingParams | None,
        task: PoolingTaskName | None = None,
        *,
        add_special_tokens: bool = True,
        prompt_name: str | None = None,
    ) -> Submission:
        """Join a prompt with what is to become of it.

        Args: task: None: what the model does. prompt_name: see embedding().
        Raises: as embedding(), and InvalidParams for a task that is none, or one that params contradict.
        """
        if task is not None and task not in POOLING_TASKS:
            raise InvalidParams(f"pooling_task={short(task)} is unknown; it must be {' or '.join(POOLING_TASKS)}")
        kind, said = getattr(params, "pooling_type", None), getattr(params, "task", None)
        if task is not None and said not in (None, task):
            raise InvalidParams(f"pooling_task={task}, and pooling_params say task={said}; say one of both")
        task = task or said
        if task is None:
            tasks = self._settings.pooling_rule.tasks
            task = "token_embed" if kind == "all" and "token_embed" in tasks else tasks[0]
        self.check_task(task)
        prompt = self.begun(prompt, prompt_name)
        if task == "embed":
            return self.embedding(prompt, params, add_special_tokens=add_special_tokens)
        if task == "classify":
            return self.classification(prompt, params, add_special_tokens=add_special_tokens)
        if kind not in (None, "all"):
            raise InvalidParams(f"pooling_type={kind}: {task} is of all tokens; leave it out")
        pooling, _ = self._pooling(params)
        return self._pooled(prompt, replace(pooling, pooling_type="all", task=task), add_special_tokens)

    def _check_asked(self, task: PoolingTaskName, params: PoolingParams | None) -> None:
        """Raises: InvalidParams where params want another task; else as check_task()."""
        said = getattr(params, "task", None)
        if said not in (None, task):
            raise InvalidParams(f"task={said}: this is {task}; ask for it by encode(), or leave it out")
        self.check_task(task)

    def chat_prompt(self, messages: Sequence[Any], options: Mapping[str, Any]) -> Prompt:
        """What the model's template makes of a chat; options are those of ChatEncoder.encode().

        Raises: TemplateError, for media that are not read, too; ConfigError without a tokenizer.
        """
        if self._chats is None:
            raise ConfigError("a chat needs a tokenizer and skip_tokenizer_init is set; leave it out")
        problems = {f"{kind}_problem": self._media.problem(kind) for kind in MEDIA_KINDS}
        if self._settings.pooling_rule.is_of_pictures:
            # a text, whose tokenizer puts round it what such models know
            template = options.get("chat_template") or _CONTENTS
            made = self._chats.encode(messages, **{**options, **problems, "chat_template": template})
            return Prompt(made.text, None, options.get("cache_salt"), made.images)
        made = self._chats.encode(messages, **{**options, **problems})
        return Prompt(None, made.token_ids, options.get("cache_salt"), made.images, made.sounds, made.videos)

    def scoring(self, data_1: Any, data_2: Any, params: PoolingParams | None) -> tuple[ScorePlan, list[Submission]]:
        """What scores are made of, and what is run for it, one a prompt of the plan.

        Args: data_1: a text for all of data_2, or a list of as many; data_2: a text or a list of texts. In place of a
            text there may be {"content": […]} of texts and pictures, where the model scores such.
        Raises: InvalidParams; PromptTooLong when cutting leaves nothing of a text; UnsupportedFeature.
        """
        problem = self.content_problem()
        firsts, seconds = parts_of(data_1, "data_1", problem), parts_of(data_2, "data_2", problem)
        check_pairs(len(firsts), len(seconds), "data_1", "data_2")
        pooling, _ = self._pooling(params)
        plan = self.score_plan(firsts, seconds, pooling)
        return plan, [self.scored(parts, params) for parts in plan.prompts]

    def content_problem(self) -> str:
        """Why what is scored is text alone; empty: it may have pictures."""
        if self._settings.pooling_rule.is_of_pictures or self._writes_pairs():
            return self._media.problem("image")
        return "only texts are scored"

    def _writes_pairs(self) -> bool:
        """Whether the model's chat template writes pairs that are scored."""
        return self._settings.pooling_rule.is_of_logits and self._chats is not None and self._chats.writes_pairs()

    def score_plan(self, firsts: Sequence[Part], seconds: Sequence[Part], params: PoolingParams) -> ScorePlan:
        """How pairs are scored by this model: check_pairs() found that they are some.

        Args: params: of each prompt: how many values come of it, and whether of each token.
        Raises: UnsupportedFeature when it gives several scores of a pair.
        """
        rule = self._settings.pooling_rule
        if rule.task == "embed":
            are_of_tokens = (params.pooling_type or rule.pooling_type) == "all"
            if are_of_tokens:
                self._check_asked("token_embed", params)
            width = params.dimensions or token_width(params, self._settings)
            if rule.similarity not in ("cosine", "dot", "maxsim"):
                raise UnsupportedFeature(
                    f"this model's files say that embeddings are compared by {short(rule.similarity)}; scores are "
                    "their cosine, their product (dot), or of tokens the sum of the nearest (maxsim): compare "
                    "embeddings yourself"
                )
            return plan_cosines(firsts, seconds, width if are_of_tokens else 0, is_dot=rule.similarity == "dot")
        if len(rule.labels) > 1 or rule.pooling_type == "all":
            raise UnsupportedFeature(f"this model {rule.says}; a score of two texts is that of one label")
        return plan_pairs(firsts, seconds)

    def scored(self, parts: tuple[Part, ...], params: PoolingParams | None, salt: str | None = None) -> Submission:
        """A prompt of a plan, ready for the engine. Args: salt: of the prefix cache. Raises: as embedding()."""
        if len(parts) == 1:
            (part,) = parts
            prompt = Prompt(part.text, None, salt, part.images)
            return self._pooled(prompt, params, max_text_tokens=part.max_tokens)
        pooling, most = self._pooling(params)
        first, second = parts
        if self._chats is not None and self._writes_pairs():
            ids, images = written_pair(self._chats, self._prompts.tokenizer, first, second, most)
            ids, placed = self._media.placed(ids, images, (), ()) if images else (ids, ())
            return Submission(None, ids, NO_SAMPLING, salt, pooling=pooling, images=placed)
        cut = Cut(most, first.max_tokens, second.max_tokens, from_start=pooling.truncation_side == "left")
        encoded = self._prompts.tokenizer.encode_prompt(first.text, second.text, cut=cut)
        if encoded.type_start >= 0 and self._settings.num_token_types > 1:
            pooling = replace(pooling, type_start=encoded.type_start)
        return Submission(None, encoded.ids, NO_SAMPLING, salt, pooling=pooling)

    def begun(self, prompt: Prompt, name: str | None) -> Prompt:
        """A prompt with what the model wants in front of a text. Raises: InvalidParams, see embedding()."""
        if name is None:
            return prompt
        known = dict(self._settings.pooling_rule.prompts)
        if name not in known:
            names = ", ".join(known)
            raise InvalidParams(
                f"prompt_name={short(name)} is none of this model's; its files name "
                + (names or "none: write in front of a text what is to be there")
            )
        if prompt.text is None:
            raise InvalidParams(f"prompt_name={short(name)} goes with a text, and there are token ids; leave it out")
        return replace(prompt, text=known[name] + prompt.text)

    def _pooled(
        self,
        prompt: Prompt,
        params: PoolingParams | None,
        add_special_tokens: bool = True,
        max_text_tokens: int | None = None,
    ) -> Submission:
        """Args: max_text_tokens: a longer text is cut to so many, what is put round it aside."""
        pooling, most = self._pooling(params)
        has_media = bool(prompt.images or prompt.sounds or prompt.videos)
        if has_media and most is not None:
            raise InvalidParams(
                f"truncate_prompt_tokens={pooling.truncate_prompt_tokens} is for text: a prompt with images, sounds or "
                "videos is not cut; leave it out"
            )
        is_left = pooling.truncation_side == "left"
        if prompt.token_ids is not None:
            ids = prompt.token_ids[-(most or 0) :] if is_left else prompt.token_ids[:most]
        else:
            assert prompt.text is not None, "a prompt has text or ids"
            cut = Cut(most, max_text_tokens, from_start=is_left)
            text = self._media.marked(prompt).text or ""
            ids = self._prompts.tokenizer.encode_prompt(text, add_special_tokens=add_special_tokens, cut=cut).ids
        ids, placed = self._media.placed(ids, prompt.images, prompt.sounds, prompt.videos) if has_media else (ids, ())
        ids = ids if has_media else self._padded(ids)
        return Submission(prompt.text, ids, NO_SAMPLING, prompt.cache_salt, pooling=pooling, images=placed)

    def _padded(self, ids: list[int]) -> list[int]:
        """A text that is as long as the model's are, where it says how long that is.

        Raises: ConfigError where nothing says with which token."""
        missing = self._settings.pooling_rule.pads_to - len(ids)
        if missing <= 0:
            return ids
        token = self._prompts.tokenizer.pad_token_id
        if token is None:
            raise ConfigError(
                f"this model's texts are padded to {self._settings.pooling_rule.pads_to} tokens, and its tokenizer "
                "names no pad_token; copy tokenizer_config.json from where the checkpoint is from"
            )
        return [*ids, *[token] * missing]

    def _pooling(self, given: PoolingParams | None) -> tuple[PoolingParams, int | None]:
        """What is wanted of a prompt, and the most tokens that are kept of it; None: all."""
        pooling = PoolingParams() if given is None else given
        if not isinstance(pooling, PoolingParams):
            raise InvalidParams(f"pooling_params must be PoolingParams, got {type(pooling).__name__}")
        most, limit = pooling.truncate_prompt_tokens, self._settings.max_model_len
        self._prompts.check_cut(most)
        if pooling.pooling_type == "all" and pooling.task is None and self._settings.pooling_rule.task == "embed":
            pooling = replace(pooling, task="token_embed")
        return pooling, limit if most == -1 else most
