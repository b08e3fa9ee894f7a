"""Text <-> token ids, over the tokenizers library.

Called by api and chat_prompt.py; detokenizer.py reads its pieces. Does not know models, requests or templates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.errors import InvalidParams, ModelError, UnsupportedFeature
from albireo.params import is_unicode
from albireo.text import tiktoken_file
from albireo.text.encoded import WHOLE, Cut, Encoded, encoded
from albireo.text.panics import is_panic, panics_as, told
from albireo.text.pieces import Pieces
from albireo.text.plain_encoder import PlainEncoder
from albireo.text.tokenizer_files import TokenizerFiles, read_tokenizer_files

if TYPE_CHECKING:
    import tokenizers

#: Characters of all beginnings of added tokens, twice. Those of 65,000 marks of sounds have 10 million.
_MAX_BEGINNINGS = 2**27


class Tokenizer:
    """One model's tokenizer. Nothing in it changes after loading, so any number of threads may use it.

    tokenizer.json decides what is added round a prompt, as in transformers 5. One departure: a tokenizer.json without
    any post-processor beside a tokenizer_config.json with "add_bos_token": true gets its BOS, where transformers 5
    drops the key without a word. add_eos_token is left alone: a prompt to continue does not end with EOS.

    Attributes:
        named_tokens: role -> text, as chat templates see them ("bos_token" -> "<s>").
        bos_token, eos_token, pad_token: texts, or None; *_token_id: their ids, None when not in the vocabulary.
        vocab_size: number of tokens, added ones included; ids may have gaps, a model may have more rows.
        special_ids: ids that skip_special_tokens leaves out, and that text inside a chat message never becomes.
        chat_templates: name -> source.
        sorts_tools: keys of tools are put in order before a template sees them, as the model was trained.
    """

    def __init__(self, backend: tokenizers.Tokenizer, files: TokenizerFiles) -> None:
        _check_added(backend, files.tokenizer)
        self._backend = backend
        self.named_tokens = dict(files.named)
        self.chat_templates = dict(files.chat_templates)
        self.sorts_tools = files.class_name == tiktoken_file.KIMI
        self.bos_token, self.bos_token_id = self._named("bos_token")
        self.eos_token, self.eos_token_id = self._named("eos_token")
        self.pad_token, self.pad_token_id = self._named("pad_token")
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        added = backend.get_added_tokens_decoder()
        self._added = {token.content: token_id for token_id, token in added.items()}
        specials = {token.content for token in added.values() if token.special}
        specials.update(text for text in files.named.values() if text in self._added)
        self.special_ids = frozenset(self._added[text] for text in specials)
        self.pieces = Pieces(backend)
        wants_bos = files.add_bos_token is True and backend.post_processor is None
        self._prefix = [self.bos_token_id] if wants_bos and self.bos_token_id is not None else []

    @classmethod
    def from_directory(cls, directory: str | Path) -> Tokenizer:
        """Load from a directory in Hugging Face layout.

        Raises: ModelError naming the file that is missing or damaged, and the problem.
        Cost: 0.2 s for a tokenizer.json of 150,000 tokens, with the interpreter lock released: load it beside the
            weights. See what vocabularies.py names for the others.
        """
        import tokenizers

        files = read_tokenizer_files(Path(directory))
        backend = _load(files)
        try:
            found = {token.content for token in backend.get_added_tokens_decoder().values()}
            # at once: each call makes the search for all of them anew
            backend.add_tokens(
                [
                    tokenizers.AddedToken(entry.content, special=entry.special, **entry.flags)
                    for entry in files.added
                    if entry.content not in found
                ]
            )
            for entry in files.added:
                if backend.token_to_id(entry.content) != entry.token_id:
                    raise ModelError(
                        f"{files.tokenizer.with_name('tokenizer_config.json')}: says that token {entry.content!r} has "
                        f"id {entry.token_id}, {files.tokenizer.name} makes it {backend.token_to_id(entry.content)}; "
                        "the files belong to different models"
                    )
            _add_named(backend, files)
            # What is done to a prompt is the caller's choice, not a left-over of training.
            backend.no_truncation()
            backend.no_padding()
            return cls(backend, files)
        except (ValueError, OverflowError) as error:
            raise ModelError(f"{files.tokenizer}: is not a usable tokenizer: {told(error)}") from None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of a prompt. The text of a special token becomes that token.

        Args:
            add_special_tokens: put round it what the model was trained with (BOS, mostly).

        Raises: InvalidParams for text that is not Unicode (a half surrogate).
        """
        try:
            with panics_as(InvalidParams, "encode a text"):
                ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError:
            raise InvalidParams(_not_text(text)) from None
        return [*self._prefix, *ids] if add_special_tokens and self._prefix else ids

    def encode_prompt(
        self, first: str, second: str | None = None, *, add_special_tokens: bool = True, cut: Cut = WHOLE
    ) -> Encoded:
        """A text, or a pair of them as the model was trained with (BERT: [CLS] first [SEP] second [SEP]).

        Args:
            add_special_tokens: see encode().
            cut: how much stays; see encoded.py.
        Raises: InvalidParams for text that is not Unicode; PromptTooLong when what has to stay is too much;
            UnsupportedFeature for a tokenizer that numbers the texts of a pair in its own way.
        """
        try:
            with panics_as(InvalidParams, "encode a text"):
                found = self._backend.encode(first, second, add_special_tokens=add_special_tokens)
        except TypeError:
            is_first = second is None or not isinstance(first, str) or not is_unicode(first)
            raise InvalidParams(_not_text(first if is_first else second)) from None
        return encoded(found, self._prefix if add_special_tokens else [], cut)

    def places(self, text: str, add_special_tokens: bool = True) -> list[tuple[int, int | None, int | None]]:
        """Ids of a prompt as encode() has them, each with the bytes of the text's UTF-8 that it is made of, from and
        to; None of special tokens. Raises: InvalidParams for text that is not Unicode."""
        try:
            with panics_as(InvalidParams, "encode a text"):
                found = self._backend.encode(text, add_special_tokens=add_special_tokens)
        except TypeError:
            raise InvalidParams(_not_text(text)) from None
        # places come in characters
        at = [0]
        for char in text:
            at.append(at[-1] + len(char.encode()))
        placed: list[tuple[int, int | None, int | None]] = [
            (token, None, None) if token in self.special_ids else (token, at[start], at[stop])
            for token, (start, stop) in zip(found.ids, found.offsets, strict=True)
        ]
        prefix = self._prefix if add_special_tokens else []
        return [*((token, None, None) for token in prefix), *placed]

    def plain_encoder(self, tokens: Iterable[str]) -> PlainEncoder:
        """An encoder that takes the given added tokens for text, unless they are marked."""
        return PlainEncoder(self._backend, tokens)

    def decode(
        self, ids: Sequence[int], skip_special_tokens: bool = True, spaces_between_special_tokens: bool = True
    ) -> str:
        """Text of a whole sequence. Ids outside the vocabulary are left out.

        Args:
            spaces_between_special_tokens: False joins added tokens without a space. It matters only to a tokenizer
                whose decoder puts spaces between tokens; byte-level and SentencePiece ones put none.
        """
        if spaces_between_special_tokens or self.pieces.kind != "whole":
            return self._decoded(list(ids), skip_special_tokens)
        added = set(self._added.values())
        parts: list[str] = []
        run: list[int] = []
        for token_id in ids:
            if token_id not in added:
                run.append(token_id)
                continue
            parts.append(self._decoded(run, False) if run else "")
            run = []
            if not (skip_special_tokens and token_id in self.special_ids):
                parts.append(self._backend.id_to_token(token_id) or "")
        parts.append(self._decoded(run, False) if run else "")
        return "".join(parts)

    def _decoded(self, ids: list[int], skip_special_tokens: bool) -> str:
        with panics_as(ModelError, "decode tokens"):
            return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def token_to_id(self, token: str) -> int | None:
        """Id of a token by its name in the vocabulary ("Ġthe", "<s>")."""
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """Name of a token in the vocabulary, or None."""
        return self._backend.id_to_token(token_id)

    def token_strings(self, ids: Iterable[int]) -> list[str]:
        """Text of each token by itself, as log-probabilities show it: with its leading space, special tokens
        included, bytes that are no character alone as U+FFFD, ids outside the vocabulary as nothing."""
        if self.pieces.kind == "whole":
            return [self._decoded([token_id], False) for token_id in ids]
        found = (self.pieces.piece(token_id) for token_id in ids)
        return [piece.data.decode("utf-8", "replace") if piece else "" for piece in found]

    def added_tokens(self) -> dict[str, int]:
        """Text -> id of the tokens that are found in a text before it is split."""
        return dict(self._added)

    def cutting_tokens(self) -> dict[str, int]:
        """Text -> id of the added tokens that cut a text before anything else is done to it; none where some of them
        take blanks along, or are found between other letters alone."""
        added = self._backend.get_added_tokens_decoder().items()
        first = {token.content: (token_id, token) for token_id, token in added if not token.normalized}
        if any(token.lstrip or token.rstrip or token.single_word for _, token in first.values()):
            return {}
        return {text: token_id for text, (token_id, _) in first.items()}

    def serialized(self) -> str:
        """The tokenizer as the text of a tokenizer.json, with the added tokens as they are here. Cost: 0.1 s."""
        return str(self._backend.to_str())

    def token_bytes(self) -> list[bytes]:
        """Bytes of each token's text by its id; none for special tokens, and for ids without a token.

        Raises: UnsupportedFeature for a tokenizer whose tokens have no bytes of their own. Cost: 0.2 s for 150,000.
        """
        if self.pieces.kind == "whole":
            raise UnsupportedFeature(
                "structured_outputs by xgrammar do not work with this model's tokenizer, which is neither byte-level "
                "nor byte-fallback"
            )
        found = []
        for token_id in range(self.vocab_size):
            piece = None if token_id in self.special_ids else self.pieces.piece(token_id)
            found.append(b"" if piece is None else piece.data)
        return found

    def vocabulary(self) -> dict[str, int]:
        """Name -> id of every token. Cost: builds the dictionary anew, 0.1 s for 150,000 tokens."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    def most_chars(self, num_tokens: int) -> int | None:
        """Characters that no text of so many tokens has more of; None: no length says, as spaces may be dropped, or any
        unknown word may be one token. Cost: as vocabulary()."""
        return None if self.pieces.kind == "whole" else num_tokens * max(map(len, self.vocabulary()), default=1)

    @property
    def takes_blanks(self) -> bool:
        """Whether an added token may have any number of blanks beside it, as Phi-3's; most_chars() knows none."""
        added = self._backend.get_added_tokens_decoder().values()
        return any(token.lstrip or token.rstrip for token in added)

    def to_files(self) -> dict[str, bytes]:
        """File name -> contents, of files that from_directory() makes this tokenizer of."""
        config: dict[str, Any] = dict(self.named_tokens)
        if self._prefix:
            config["add_bos_token"] = True
        if self.sorts_tools:
            config["tokenizer_class"] = tiktoken_file.KIMI
        if set(self.chat_templates) == {"default"}:
            config["chat_template"] = self.chat_templates["default"]
        elif self.chat_templates:
            config["chat_template"] = [{"name": k, "template": v} for k, v in self.chat_templates.items()]
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        return {"tokenizer.json": self._backend.to_str().encode(), "tokenizer_config.json": text.encode()}

    def _named(self, role: str) -> tuple[str | None, int | None]:
        text = self.named_tokens.get(role)
        return text, None if text is None else self._backend.token_to_id(text)


def _check_added(backend: tokenizers.Tokenizer, path: Path) -> None:
    """Raises: ModelError for added tokens whose beginnings, which are told from what a user types, take gigabytes."""
    lengths = [len(token.content) for token in backend.get_added_tokens_decoder().values()]
    if sum(length**2 for length in lengths) > _MAX_BEGINNINGS:
        raise ModelError(
            f"{path}: its {len(lengths):,} added tokens have up to {max(lengths):,} characters; the squares of their "
            f"lengths may be {_MAX_BEGINNINGS:,} together"
        )


def _load(files: TokenizerFiles) -> tokenizers.Tokenizer:
    import tokenizers

    path = files.tokenizer
    try:
        if files.vocabulary is not None:
            return files.vocabulary.build(files.named)
        return tokenizers.Tokenizer.from_file(str(path))
    except ModelError:
        raise
    except BaseException as error:
        # The library panics on some damaged files; its panic is not an Exception.
        if isinstance(error, Exception) or is_panic(error):
            raise ModelError(f"{path}: is not a usable tokenizer: {told(error)}") from None
        raise


def _add_named(backend: tokenizers.Tokenizer, files: TokenizerFiles) -> None:
    """Make special what the config names and the vocabulary has.

    A named token that the vocabulary lacks is not added: the model has no row for it.
    """
    import tokenizers

    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    named = dict.fromkeys((*files.named.values(), *files.extra_special))
    lacking = [text for text in named if text and text not in known and backend.token_to_id(text) is not None]
    backend.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in lacking])


def _not_text(text: object) -> str:
    if isinstance(text, str):
        return "the prompt is not valid Unicode text: it holds half of a surrogate pair"
    return f"the prompt must be a string, got {type(text).__name__}"
