"""An architecture of llama.cpp's: what its GGUF files call tensors, how settings are read, what converters did that is
put back.

Made by the tables (dense_table.py and its like), read by names.py and config.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf import name_maps
from albireo.models.gguf.name_maps import Names
from albireo.models.gguf.put_back import PutBack
from albireo.models.gguf.stored import Stored

#: Keys to add to a config. Args: fields: of the architecture; config: what all have.
Settings = Callable[[Fields, Stored, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """An architecture by its name in general.architecture.

    Fields:
        model_type: whose graph computes it, where settings do not say another.
        settings: reads what only some architectures have.
        names: what a graph calls a tensor of a layer, behind the layer's number, where not as llama does. A key may end
            with .weight or .bias, for one that a graph calls by a name without. {} is the number of an expert, or of
            another matrix of a stack, "+"
            stands between the two matrices that one tensor of all experts holds of each.
        ends: the same of tensors outside of layers. layer: what names of layers begin with.
        where: other names of files that have a certain tensor.
        put_back: what converters did to tensors, undone.
        keys: what its config.json calls keys, where not as llama's.
        is_layer_norm: which key says eps. has_biases: config.json says whether there are biases, which a file shows.
        is_latent: a head's width is told in parts. is_by_layer: settings read widths and heads, layer by layer.
        is_encoder: it embeds, and writes no text.
    """

    model_type: str
    settings: Settings = lambda fields, file, config: {}
    names: Names = field(default_factory=dict)
    ends: Names = field(default_factory=dict)
    layer: str = "model.layers"
    where: tuple[str, Names] = ("", {})
    put_back: tuple[PutBack, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    is_layer_norm: bool = False
    has_biases: bool = False
    is_latent: bool = False
    is_by_layer: bool = False
    is_encoder: bool = False

    @property
    def all_ends(self) -> Names:
        return {**name_maps.ENDS, **self.ends}

    def names_in(self, tensors: Iterable[str]) -> Names:
        """Of layers. Args: tensors: of the file."""
        tensor, names = self.where
        return {**name_maps.LAYER, **self.names, **(names if tensor and tensor in tensors else {})}
