"""Values of embeddings -> the bytes that base64 holds: float32, or fewer bits, in either order.

Used by the endpoints for embeddings and pooling. Rounding is to the nearest, to even where two are as near.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.server.errors import HttpError, unsupported
from albireo.server.protocol.pooling import EncodedFields

_DTYPES = ("float32", "float16", "bfloat16")
_ORDERS = ("native", "little", "big")


@dataclass(frozen=True, slots=True)
class Packing:
    """How values are written. Fields: dtype: one of _DTYPES."""

    dtype: str = "float32"
    is_big: bool = False

    @classmethod
    def of(cls, asked: EncodedFields) -> Packing | None:
        """None: as numbers. Raises: HttpError 400."""
        for name, given, known in (
            ("embed_dtype", asked.embed_dtype, _DTYPES),
            ("endianness", asked.endianness, _ORDERS),
        ):
            if given is not None and given not in known:
                raise unsupported(name, given, f"give one of {', '.join(known)}")
        found = cls(asked.embed_dtype or "float32", asked.endianness == "big")
        if asked.encoding_format == "base64":
            return found
        if found != cls():
            name = "embed_dtype" if found.dtype != "float32" else "endianness"
            words = f"{name}={getattr(asked, name)!r} needs encoding_format to be 'base64': numbers have no bytes"
            raise HttpError(400, words, param=name)
        return None

    def packed(self, raw: bytes) -> bytes:
        """Args: raw: float32, little-endian."""
        if self == Packing():
            return raw
        import numpy as np

        values = np.frombuffer(raw, "<f4")
        if self.dtype == "bfloat16":
            bits = values.view("<u4")
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            # what is no number would be rounded to another thing; it is kept, and quiet
            found = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype("<u2")
        else:
            with np.errstate(over="ignore"):  # what is too large is infinite
                found = values.astype("<f2" if self.dtype == "float16" else "<f4")
        return bytes((found.byteswap() if self.is_big else found).data)


def signs(raw: bytes, *, is_signed: bool) -> list[int]:
    """A bit a value, 1 for 0 and above, eight a number, the first in its highest place. Args: raw: float32,
    little-endian. is_signed: numbers are less by 128. Raises: HttpError 400 for values that do not fill the last."""
    import numpy as np

    values = np.frombuffer(raw, "<f4")
    if len(values) % 8:
        words = f"embedding_types of bits need embeddings of a multiple of 8 values; these have {len(values)}"
        raise HttpError(400, words, param="embedding_types")
    packed = np.packbits(values >= 0).astype(np.int16)
    found: list[int] = (packed - 128 if is_signed else packed).tolist()
    return found
