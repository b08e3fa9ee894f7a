"""Which prefixes an engine has in its KV cache, as far as can be remembered from what it was given.

Used by router.py. The keys are those of the engine's own prefix cache, salt included, and as many are remembered as it
has blocks, so what it must have forgotten is forgotten here, too. A guess: the engine looks for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

from albireo.engine.prefix_cache import next_key, root_key
from albireo.image_input import ImageInput, keys_within


def block_keys(
    token_ids: list[int], block_size: int, cache_salt: str | None, images: Sequence[ImageInput] = ()
) -> list[bytes]:
    """Keys of the full blocks of these tokens, in order. Cost: one SHA-256 a block."""
    keys, parent = [], root_key(cache_salt)
    for start in range(0, len(token_ids) - block_size + 1, block_size):
        end = start + block_size
        parent = next_key(parent, token_ids[start:end], keys_within(images, start, end))
        keys.append(parent)
    return keys


class Prefixes:
    """Invariant: at most num_blocks keys, those used last."""

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def num_held(self, keys: Sequence[bytes]) -> int:
        """How many of them, from the first on, are held."""
        return sum(1 for _ in takewhile(self._keys.__contains__, keys))

    def add(self, keys: Sequence[bytes]) -> None:
        """The engine computes these blocks, or has them: used now, the first one last, so that it is kept longest."""
        for key in reversed(keys):
            self._keys[key] = None
            self._keys.move_to_end(key)
        while len(self._keys) > self._num_blocks:
            self._keys.popitem(last=False)

    def clear(self) -> None:
        """Its memory is gone."""
        self._keys.clear()
