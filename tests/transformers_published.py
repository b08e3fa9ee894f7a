"""Models that were published with code of their own and that transformers has no class of, but whose layers it has:
what their keys and tensors are called, and which rows lie together.

Imported by transformers_models.py; published_families.py says the families.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

State = dict[str, Any]
_TABLES = ("embed_tokens.weight", "wte.weight")
#: Experts in memory.
_EXPERTS = (".experts.gate_up_proj", ".experts.down_proj")


class Joined(NamedTuple):
    """Modules in memory whose rows lie in one as published, one below the other; by_head: the same head of each in
    turn, heads of so many rows."""

    published: str
    parts: tuple[str, ...]
    by_head: bool = False


class Layout(NamedTuple):
    """Parts of names in memory -> as published; modules that lie together; and whether experts are one by one, which in
    memory are one."""

    names: Mapping[str, str]
    joined: tuple[Joined, ...] = ()
    has_experts: bool = False


def as_published(config: Any, layout: Layout, state: Mapping[str, Any]) -> State:
    """What is in memory, by the names of files."""
    found = dict(state)
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    for published, parts, by_head in layout.joined:
        for name in [name for name in found if f".{parts[0]}." in name]:
            rows = [found.pop(name.replace(parts[0], part)) for part in parts]
            if by_head:
                rows = [torch.stack([each.unflatten(0, (-1, config.head_dim)) for each in rows], 1).flatten(0, 2)]
            found[name.replace(parts[0], published)] = torch.cat(rows)
    for name in [name for name in found if name.endswith(_EXPERTS)]:
        block, whole = name.rpartition(".")[0], found.pop(name)
        for i, each in enumerate(whole):
            parts = each.chunk(2) if name.endswith(_EXPERTS[0]) else (each,)
            called = ("gate_proj", "up_proj") if name.endswith(_EXPERTS[0]) else ("down_proj",)
            found |= {f"{block}.{i}.{part}.weight": value for part, value in zip(called, parts, strict=True)}
    return {_renamed(name, layout.names): value for name, value in found.items()}


def in_memory(config: Any, layout: Layout, rows_of: Mapping[str, int], state: Mapping[str, Any]) -> State:
    """The other way. Args: rows_of: how many rows each tensor in memory has."""
    back = {published: name for name, published in layout.names.items()}
    found = {_renamed(name, back): value for name, value in state.items()}
    for published, parts, by_head in layout.joined:
        for name in [name for name in found if f".{published}." in name]:
            names, whole = [name.replace(published, part) for part in parts], found.pop(name)
            if by_head:
                heads = whole.unflatten(0, (-1, len(parts), config.head_dim))
                found |= {each: heads[:, i].flatten(0, 1) for i, each in enumerate(names)}
            else:
                found |= dict(zip(names, whole.split([rows_of[each] for each in names]), strict=True))
    return _with_experts_together(found) if layout.has_experts else found


def _with_experts_together(state: State) -> State:
    found, blocks = dict(state), {name.partition(".experts.")[0] for name in state if ".experts." in name}
    for block in blocks:
        count = 1 + max(int(name.split(".experts.")[1].split(".")[0]) for name in state if f"{block}.experts." in name)
        gate, up, down = (
            torch.stack([found.pop(f"{block}.experts.{i}.{part}_proj.weight") for i in range(count)])
            for part in ("gate", "up", "down")
        )
        found |= {f"{block}.experts.gate_up_proj": torch.cat([gate, up], 1), f"{block}.experts.down_proj": down}
    return found


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The longest first, of which others may be a part."""
    either = "|".join(re.escape(each) for each in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<!\w)({either})", lambda found: names[found[0]], name) if either else name


class _Published:
    """Beside a class of transformers that writes text: reads and writes by names of files."""

    layout: Layout
    config: Any

    @classmethod
    def from_pretrained(cls, directory: Any, *_: Any, config: Any, dtype: Any = None, **options: Any) -> Any:
        from safetensors.torch import load_file

        model: Any = cls._from_config(  # type: ignore[attr-defined]
            config, attn_implementation=options.get("attn_implementation", "eager"), dtype=torch.float32
        )
        stored: State = {}
        for path in sorted(Path(directory).glob("*.safetensors")):
            stored |= load_file(path)
        lost = model.load_state_dict(stored, strict=False)
        info = {"missing_keys": lost.missing_keys, "unexpected_keys": lost.unexpected_keys, "mismatched_keys": []}
        made = model.to(dtype or torch.float32).eval()
        return (made, info) if options.get("output_loading_info") else made

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        own = self.state_dict()  # type: ignore[attr-defined]
        rows = {name: value.shape[0] for name, value in own.items() if value.ndim}
        held = in_memory(self.config, self.layout, rows, state)
        if self.config.tie_word_embeddings:
            held["lm_head.weight"] = next(held[name] for name in held if name.endswith(_TABLES))
        return super().load_state_dict(held, strict=strict)  # type: ignore[misc]

    def save_pretrained(self, directory: Any, **options: Any) -> None:
        state = as_published(self.config, self.layout, self.state_dict())  # type: ignore[attr-defined]
        parts = {name: value.clone() for name, value in state.items()}
        super().save_pretrained(directory, state_dict=parts, **options)  # type: ignore[misc]


def publish(
    model_type: str,
    class_name: str,
    base: str,
    defaults: Mapping[str, Any],
    read: Callable[[dict[str, Any]], dict[str, Any]],
    layout: Layout,
    writer: type | None = None,
) -> None:
    """Makes transformers know a family.

    Args: base: what its layers are of. defaults: what its files may leave out. read: keys of a file -> keys of base.
        writer: what writes text, where it is not base's.
    """
    of_base, writes = getattr(transformers, f"{base}Config"), writer or getattr(transformers, f"{base}ForCausalLM")

    def create(self: Any, **said: Any) -> None:
        given = {**defaults, **said}
        same = {key: said.get(key) for key in _IDS} | {key: said[key] for key in said if key in _ALL}
        of_base.__init__(self, **{**same, **read(given)})
        plain = {key: value for key, value in given.items() if key not in _OWN and not isinstance(value, Path)}
        object.__setattr__(self, "_given", {key: plain[key] for key in plain if not key.startswith("_")})

    def written(self: Any) -> dict[str, Any]:
        whole = of_base.to_dict(self)
        return {**self._given, **{key: whole[key] for key in _OWN if key in whole}, "model_type": model_type}

    def text(self: Any, use_diff: bool = True) -> str:
        return json.dumps(written(self), indent=2) + "\n"

    named = {"model_type": model_type, "__init__": create, "to_dict": written, "to_diff_dict": written}
    config = type(f"{class_name}Config", (of_base,), {**named, "to_json_string": text})
    model = type(f"{class_name}Model", (getattr(transformers, f"{base}Model"),), {"config_class": config})
    writes = type(class_name, (_Published, writes), {"config_class": config, "layout": layout})
    transformers.AutoConfig.register(model_type, config)
    transformers.AutoModel.register(config, model)
    transformers.AutoModelForCausalLM.register(config, writes)


#: Keys that are the same in all files; and of these what a model that was read says anew.
_OWN = ("architectures", "dtype", "torch_dtype", "transformers_version", "name_or_path", "experts_implementation")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ALL = (*_OWN, *_IDS, "torch_dtype", "tie_word_embeddings")
