"""A tokenizer by the names that scripts know from transformers.

Called by api, for users: what LLM.get_tokenizer() gives. Does not know requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from albireo.errors import UnsupportedFeature, short
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.tokenizer import Tokenizer

#: What transformers' apply_chat_template() takes beside variables of the template, and there is not here.
_NOT_HERE = (
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
)
#: And what __call__() takes; masks are there anyway.
_SHAPES = (
    *("padding", "truncation", "max_length", "return_tensors", "text_pair", "stride", "pad_to_multiple_of"),
    *("return_offsets_mapping", "return_special_tokens_mask", "return_token_type_ids", "return_length", "verbose"),
    *("return_attention_mask", "return_overflowing_tokens", "is_split_into_words"),
)
_MEDIA = "apply_chat_template() writes texts alone; use LLM.chat(), which looks into them"


def _refuse(name: str, value: Any) -> None:
    """Raises: UnsupportedFeature for a value that asks for something."""
    if value and name not in ("return_attention_mask", "verbose"):
        raise UnsupportedFeature(f"{name}={short(value)} is not supported; leave it out")


class TokenIds(dict[str, Any]):
    """input_ids of a text, or of several, and attention_mask: a 1 for each."""

    def __init__(self, input_ids: list[Any]) -> None:
        are_several = any(isinstance(each, list) for each in input_ids)
        mask = [[1] * len(each) for each in input_ids] if are_several else [1] * len(input_ids)
        super().__init__(input_ids=input_ids, attention_mask=mask)

    @property
    def input_ids(self) -> list[Any]:
        """The ids."""
        found: list[Any] = self["input_ids"]
        return found

    @property
    def attention_mask(self) -> list[Any]:
        """A 1 for each."""
        found: list[Any] = self["attention_mask"]
        return found


class ScriptTokenizer(Tokenizer):
    """A tokenizer, which is not copied: nothing in it changes. Any number of threads may use it.

    decode() leaves special tokens out unless it is asked, which transformers does not.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.__dict__.update(vars(tokenizer))
        self._chats = ChatEncoder(tokenizer)

    def __call__(self, text: str | Sequence[str], *, add_special_tokens: bool = True, **shapes: Any) -> TokenIds:
        """Ids of a text, or of several.

        Args: shapes: transformers' padding, return_tensors and the like, that ask for nothing.
        Raises: as encode(); UnsupportedFeature for other shapes than lists.
        """
        for name, value in shapes.items():
            if name not in _SHAPES:
                raise TypeError(f"__call__() got an unexpected keyword argument {name!r}")
            _refuse(name, value)
        if isinstance(text, str):
            return TokenIds(self.encode(text, add_special_tokens))
        return TokenIds([self.encode(each, add_special_tokens) for each in text])

    def __len__(self) -> int:
        return self.vocab_size

    def decode(
        self, ids: int | Sequence[int], skip_special_tokens: bool = True, spaces_between_special_tokens: bool = True
    ) -> str:
        """As Tokenizer.decode(), and of one id its text."""
        given = [ids] if isinstance(ids, int) else ids
        return super().decode(given, skip_special_tokens, spaces_between_special_tokens)

    def batch_decode(
        self,
        sequences: Sequence[Sequence[int]],
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> list[str]:
        """decode() of each."""
        return [self.decode(ids, skip_special_tokens, spaces_between_special_tokens) for ids in sequences]

    def tokenize(self, text: str, add_special_tokens: bool = False) -> list[str | None]:
        """Names in the vocabulary of a text's tokens."""
        return [self._name(token_id) for token_id in self.encode(text, add_special_tokens)]

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        return_dict: bool = True,
        **variables: Any,
    ) -> str | list[int] | TokenIds:
        """A chat as the model's template writes it: with tokenize its ids, which return_dict makes a dictionary of.

        LLM.chat() does this and more: it looks into pictures, sounds and videos.

        Args: variables: of the template. Others: as ChatEncoder.encode() has them.
        Raises: TemplateError; UnsupportedFeature for what asks for other shapes than a list of ids.
        """
        for name in _NOT_HERE:
            _refuse(name, variables.pop(name, None))
        made = self._chats.encode(
            conversation,
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            documents=documents,
            chat_template_kwargs=variables,
            image_problem=_MEDIA,
            sound_problem=_MEDIA,
            video_problem=_MEDIA,
        )
        if not tokenize:
            return made.text
        return TokenIds(made.token_ids) if return_dict else made.token_ids

    @property
    def chat_template(self) -> str | None:
        """Source of the template that chats are written by, where one is the default."""
        return self.chat_templates.get("default")

    @property
    def all_special_ids(self) -> list[int]:
        """special_ids, in order."""
        return sorted(self.special_ids)

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts of all_special_ids."""
        return [self._backend.id_to_token(token_id) or "" for token_id in self.all_special_ids]

    def get_vocab(self) -> dict[str, int]:
        """As vocabulary()."""
        return self.vocabulary()

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """Names in the vocabulary, None where there is none; of one id its name."""
        return self._name(ids) if isinstance(ids, int) else [self._name(each) for each in ids]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Ids by names in the vocabulary, None where there is none; of one name its id."""
        return self.token_to_id(tokens) if isinstance(tokens, str) else [self.token_to_id(each) for each in tokens]

    def _name(self, token_id: int) -> str | None:
        # the library takes 32 bits without a sign
        return self.id_to_token(token_id) if 0 <= token_id < 2**32 else None
