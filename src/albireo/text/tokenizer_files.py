"""What a model directory says about its tokenizer beside its vocabulary: special tokens and chat templates.

Called by tokenizer.py, and by whoever asks which files those are. Does not know the tokenizers library. Everything read
here is data: keys that name code (auto_map) are not looked at, because no code of a model directory is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from reprlib import Repr
from typing import Any

from albireo.errors import ModelError
from albireo.json_file import require_few_values, require_regular_file
from albireo.text.vocabularies import (
    CONVERT,
    SOUND_FILES,
    TOKENIZER_JSON,
    VOCABULARIES,
    Vocabulary,
    read_vocabulary,
    vocabulary_files,
)

#: A tokenizer_config.json with a thousand added tokens has 200 KB, a tokenizer.json of 260,000 tokens 35 MB. In memory
#: the latter may have ten times its bytes while it is read.
MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES = 16 * 2**20, 128 * 2**20

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class AddedTokenEntry:
    """One entry of added_tokens_decoder: a token and the id it must have."""

    token_id: int
    content: str
    special: bool
    flags: dict[str, bool]


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """Fields:
    tokenizer: path of the file with the vocabulary, the first of those in vocabularies.py.
    named: role -> text, as templates see them ("bos_token" -> "<s>").
    extra_special: texts that are special without a role.
    added: tokens with their ids, from tokenizer_config.json.
    add_bos_token: the config's wish; None when it says nothing.
    chat_templates: name -> source; "default" is the usual one.
    vocabulary: how a tokenizer is built of it; None of a tokenizer.json, which the library reads.
    class_name: tokenizer_class, where it is said.
    """

    tokenizer: Path
    named: dict[str, str]
    extra_special: tuple[str, ...]
    added: tuple[AddedTokenEntry, ...]
    add_bos_token: bool | None
    chat_templates: dict[str, str]
    vocabulary: Vocabulary | None = None
    class_name: str | None = None


def read_tokenizer_files(directory: Path) -> TokenizerFiles:
    """Read the small files round the vocabulary.

    Raises: ModelError naming the file and what is wrong with it.
    """
    found = vocabulary_files(directory)
    if not found:
        raise ModelError(_missing(directory))
    tokenizer = directory / found[0]
    _require_file(tokenizer, MAX_TOKENIZER_BYTES)
    config_path = directory / "tokenizer_config.json"
    config = _read_json(config_path) if lexists(config_path) else {}
    tokens = dict(config)
    legacy_path = directory / "special_tokens_map.json"
    if "added_tokens_decoder" not in config and lexists(legacy_path):
        # As transformers: the older file speaks only where the newer one has no list of added tokens.
        tokens.update(_read_json(legacy_path))
    add_bos_token = config.get("add_bos_token")
    if add_bos_token is not None and not isinstance(add_bos_token, bool):
        raise ModelError(f"{config_path}: add_bos_token={_short(add_bos_token)} must be true or false")
    added = _added_tokens(config.get("added_tokens_decoder"), config_path)
    if not added and tokenizer.name != TOKENIZER_JSON:
        added = _added_by_name(directory / "added_tokens.json", tokens)
    vocabulary = read_vocabulary(tokenizer, config)
    templates = _chat_templates(directory, config, config_path)
    if vocabulary is not None and vocabulary.chat_template and not templates:
        templates = {"default": vocabulary.chat_template}
    return TokenizerFiles(
        tokenizer=tokenizer,
        named=_named_tokens({**(vocabulary.roles if vocabulary else {}), **tokens}, config_path),
        extra_special=_extra_tokens(tokens, config_path),
        added=added,
        add_bos_token=add_bos_token,
        chat_templates=templates,
        vocabulary=vocabulary,
        class_name=name if isinstance(name := config.get("tokenizer_class"), str) else None,
    )


def _missing(directory: Path) -> str:
    if not directory.is_dir():
        return f"{directory}: is not a directory; give a directory in Hugging Face layout"
    pairs = dict.fromkeys(name for names in VOCABULARIES if len(names) > 1 for name in names)
    halves = [name for name in pairs if (directory / name).exists() and name not in SOUND_FILES]
    if halves:
        return f"{directory / TOKENIZER_JSON}: is missing; {', '.join(halves)} alone cannot be read. {CONVERT}"
    others = ", ".join(dict.fromkeys(names[0] for names in VOCABULARIES[1:]))
    return (
        f"{directory / TOKENIZER_JSON}: is missing, and so is every other vocabulary ({others}); copy it from the "
        "model's repository, or name another directory as tokenizer, or set skip_tokenizer_init and give token ids"
    )


def _content(value: Any, key: str, where: Path) -> str:
    """Text of a token given as a string or as an object with content."""
    text = value.get("content") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        raise ModelError(f"{where}: {key}={_short(value)} must be a string, or an object with a string as content")
    return text


def _named_tokens(tokens: Mapping[str, Any], where: Path) -> dict[str, str]:
    named = {key: _content(tokens[key], key, where) for key in _NAMED if tokens.get(key) is not None}
    for key, value in tokens.items():
        # Tokens of one family of models ("image_token"); templates may use them by these names.
        if key.endswith("_token") and key not in _NAMED and isinstance(value, (str, Mapping)):
            named[key] = _content(value, key, where)
    return named


def _extra_tokens(tokens: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    texts: list[str] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = tokens.get(key) or []
        items = list(value.values()) if isinstance(value, Mapping) else value
        if not isinstance(items, list):
            raise ModelError(f"{where}: {key}={_short(value)} must be a list of tokens")
        texts += [_content(item, key, where) for item in items]
    return tuple(dict.fromkeys(texts))


def _added_tokens(value: Any, where: Path) -> tuple[AddedTokenEntry, ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise ModelError(f"{where}: added_tokens_decoder={_short(value)} must be an object of id -> token")
    entries = []
    for key, token in value.items():
        if not key.isdecimal() or not key.isascii() or len(key) > 9 or not isinstance(token, Mapping):
            raise ModelError(f"{where}: added_tokens_decoder has the entry {_short(key)}: {_short(token)}")
        flags = {name: token.get(name, False) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        if not all(isinstance(flag, bool) for flag in flags.values()):
            raise ModelError(f"{where}: added_tokens_decoder[{key}] has a flag that is not true or false")
        special = flags.pop("special")
        content = _content(token, f"added_tokens_decoder[{key}]", where)
        entries.append(AddedTokenEntry(int(key), content, special, flags))
    return tuple(sorted(entries, key=lambda entry: entry.token_id))


def _added_by_name(path: Path, tokens: Mapping[str, Any]) -> tuple[AddedTokenEntry, ...]:
    """Tokens of an added_tokens.json, as older models have it: id by text. Those that have a role are special."""
    if not lexists(path):
        return ()
    special = {_content(value, key, path) for key, value in tokens.items() if key in _NAMED and value is not None}
    special.update(_extra_tokens(tokens, path))
    ids = _read_json(path)
    for text, token_id in ids.items():
        if type(token_id) is not int or not 0 <= token_id < 10**9:
            raise ModelError(f"{path}: {_short(text)} has the id {_short(token_id)}")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return tuple(AddedTokenEntry(ids[text], text, text in special, flags) for text in sorted(ids, key=ids.__getitem__))


def _chat_templates(directory: Path, config: Mapping[str, Any], where: Path) -> dict[str, str]:
    """Templates by name. Files of their own win over tokenizer_config.json, as in transformers."""
    templates: dict[str, str] = {}
    single = directory / "chat_template.jinja"
    if lexists(single):
        templates["default"] = _read_text(single)
    folder = directory / "additional_chat_templates"
    if folder.is_dir():
        for path in sorted(folder.glob("*.jinja")):
            templates[path.stem] = _read_text(path)
    if templates:
        return templates
    value, source = config.get("chat_template"), where
    if value is None and lexists(directory / "chat_template.json"):
        source = directory / "chat_template.json"
        value = _read_json(source).get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    entries = value if isinstance(value, list) else [{"name": k, "template": v} for k, v in _items(value, source)]
    for entry in entries:
        if not isinstance(entry, Mapping) or not all(isinstance(entry.get(k), str) for k in ("name", "template")):
            raise ModelError(f"{source}: chat_template has the entry {_short(entry)}; it needs name and template")
        templates[entry["name"]] = entry["template"]
    return templates


def _items(value: Any, where: Path) -> Any:
    if not isinstance(value, Mapping):
        raise ModelError(f"{where}: chat_template={_short(value)} must be a string or a list of named templates")
    return value.items()


def _require_file(path: Path, limit: int) -> None:
    require_regular_file(path)
    size = path.stat().st_size
    if size > limit:
        raise ModelError(f"{path}: has {size} bytes; at most {limit} are read")


def _read_text(path: Path) -> str:
    _require_file(path, MAX_CONFIG_BYTES)
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: is not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    require_few_values(text.encode(), str(path))
    try:
        value = json.loads(text)
    except RecursionError:
        raise ModelError(f"{path}: is nested too deeply to be a real file") from None
    except ValueError as error:
        raise ModelError(f"{path}: is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds a {type(value).__name__}, not an object")
    return value


def _short(value: Any) -> str:
    cutter = Repr()
    cutter.maxstring = cutter.maxother = 60
    return cutter.repr(value)
