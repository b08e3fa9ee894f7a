"""The bytes of a sound -> its samples, one channel, from -1 to 1.

Called by the front doors. Bytes are hostile until decoded: their number, their format and how long it lasts are checked
first. WAV is read here, so that the commonest format needs nothing; soundfile, which reads the others, is imported here
only, and when it is needed. Does not know where bytes come from.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvalidParams, short
from albireo.media.medium import SOUND
from albireo.media_limits import MAX_SOUND_SECONDS
from albireo.sounds.mp3 import read_to_its_end

F32 = NDArray[np.float32]

MAX_SOUND_BYTES = SOUND.max_bytes
#: Frames that are decoded at once.
_AT_ONCE = 1 << 20
MIN_RATE, MAX_RATE, MAX_CHANNELS = 1000, 768_000, 64
FORMATS = ("WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64")
_ALLOWED = f"a whole sound in one of {', '.join(FORMATS)} is wanted"
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
#: Parts of a WAV file before its samples, of which a few are usual; of empty ones a file has room for tens of millions.
_MAX_CHUNKS = 2**10
#: First bytes of what is not read, and what it is.
_FOREIGN = ((4, b"ftyp", "MP4 or M4A"), (0, b"\x1aE\xdf\xa3", "WebM or Matroska"), (0, b"ADIF", "AAC"))


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Fields: samples: [n] float32, one channel, finite, n > 0. rate: of them a second."""

    samples: F32
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def decoded(data: bytes, max_seconds: float = MAX_SOUND_SECONDS) -> Sound:
    """The sound in data; of several channels their mean.

    Raises: InvalidParams for what is no sound, damaged, too long, or where soundfile is missing for it.
    """
    if len(data) > MAX_SOUND_BYTES:
        raise InvalidParams(f"a sound has {len(data):,} bytes; at most {MAX_SOUND_BYTES:,} are read: cut it")
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        found = _wave(data, max_seconds)
        if found is not None:
            return found
    return _by_soundfile(data, max_seconds)


def as_sound(value: Any, max_seconds: float = MAX_SOUND_SECONDS) -> Sound:
    """The sound that a caller gives: the bytes of a file, a Sound, or (samples, rate) as vLLM has it: numbers from -1
    to 1, [n] or of several channels [n, channels] or [channels, n].

    Raises: InvalidParams, as decoded(); also for anything else.
    """
    if isinstance(value, Sound):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return decoded(bytes(value), max_seconds)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InvalidParams(f"{short(value)} is no sound; the bytes of a file, or (samples, rate) is wanted")
    samples, rate = value
    is_number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if not is_number or not math.isfinite(rate) or rate != int(rate):
        raise InvalidParams(f"a sound has rate={short(rate)}; it must be a whole number of samples a second")
    rate = int(rate)
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise InvalidParams(f"the samples of a sound are no array of numbers: {short(str(error))}") from None
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.size:
        raise InvalidParams(
            f"an array {array.dtype} {list(array.shape)} is no sound; numbers [n], or of several channels, are wanted"
        )
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        array = (array.astype(np.float64) - (0 if info.min else 2 ** (info.bits - 1))) / 2 ** (info.bits - 1)
    return _checked(np.atleast_2d(array.astype(np.float32).T).T, rate)


def _checked(samples: NDArray[np.float32], rate: int) -> Sound:
    """Of samples [n, channels]."""
    frames, channels = samples.shape
    _check_size(frames, channels, rate, MAX_SOUND_SECONDS)
    mono = samples[:, 0] if channels == 1 else samples.mean(axis=1, dtype=np.float32)
    mono = np.ascontiguousarray(mono, np.float32)
    if not np.isfinite(mono).all():
        raise InvalidParams(f"sample {int(np.argmin(np.isfinite(mono)))} of a sound is no finite number")
    return Sound(mono, rate)


def _check_size(frames: int, channels: int, rate: int, max_seconds: float) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidParams(f"a sound has {rate} samples a second; from {MIN_RATE} to {MAX_RATE} are read")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidParams(f"a sound has {channels} channels; from 1 to {MAX_CHANNELS} are read")
    if frames < 1:
        raise InvalidParams("a sound has no samples; send one that lasts")
    if frames > max_seconds * rate:
        raise InvalidParams(f"a sound lasts {frames / rate:,.0f} s; at most {max_seconds:,.0f} s are read: cut it")


def _wave(data: bytes, max_seconds: float) -> Sound | None:
    """Of whole numbers or floats; None: it is of another kind.

    What says it is longer than the file is ends with it: recorders that were cut off leave such files, and those that
    write to a pipe do not know.
    """
    kind, at, end = None, 12, len(data)
    for _ in range(_MAX_CHUNKS):
        if at + 8 > end:
            break
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        body = at + 8
        if name == b"fmt ":
            kind = _wave_kind(data[body : min(end, body + size)])
            if kind is None:
                return None
        elif name == b"data":
            if kind is None:
                raise InvalidParams(f"a WAV file has samples before it says of what kind they are; {_ALLOWED}")
            tag, channels, rate, bits = kind
            width = channels * bits // 8
            frames = min(size, end - body) // width
            _check_size(frames, channels, rate, max_seconds)
            return _checked(_numbers(data[body : body + frames * width], tag, bits).reshape(frames, channels), rate)
        at = body + size + size % 2
    else:
        raise InvalidParams(f"a WAV file has {_MAX_CHUNKS:,} parts and no samples among them; {_ALLOWED}")
    raise InvalidParams(f"{len(data):,} bytes of a WAV file hold no samples; {_ALLOWED}")


def _wave_kind(chunk: bytes) -> tuple[int, int, int, int] | None:
    """Tag, channels, rate and bits of a sample."""
    if len(chunk) < 16:
        raise InvalidParams(f"a WAV file says in {len(chunk)} bytes what its samples are, 16 are needed; {_ALLOWED}")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        tag = struct.unpack_from("<H", chunk, 24)[0]
    if not channels:
        raise InvalidParams(f"a sound has 0 channels; from 1 to {MAX_CHANNELS} are read")
    return (tag, channels, rate, bits) if (tag, bits) in _KINDS else None


_KINDS = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}


def _numbers(data: bytes, tag: int, bits: int) -> F32:
    if tag == _FLOAT:
        return np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:  # these alone have no sign
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / 128.0
    if bits == 24:
        bytes_of = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(bytes_of), 4), np.uint8)
        wide[:, 1:] = bytes_of
        return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    return (np.frombuffer(data, f"<i{bits // 8}") / 2.0 ** (bits - 1)).astype(np.float32)


def _by_soundfile(data: bytes, max_seconds: float) -> Sound:
    for start, mark, name in _FOREIGN:
        if data[start : start + len(mark)] == mark:
            raise InvalidParams(f"{name} is not read; {_ALLOWED}: ffmpeg -i FILE sound.flac")
    if not data:
        raise InvalidParams(f"a sound has no bytes; {_ALLOWED}")
    try:
        import soundfile
    except (ImportError, OSError):
        raise InvalidParams(
            f"{len(data):,} bytes that begin with {short(data[:8])} are no WAV file, and other sounds need soundfile, "
            "which is not installed: pip install 'albireo[audio]'"
        ) from None
    try:
        with soundfile.SoundFile(io.BytesIO(read_to_its_end(data))) as file:
            said = 1 if file.format == "MP3" else max(1, file.frames)
            _check_size(said, file.channels, file.samplerate, max_seconds)
            # what a file says of its length is not trusted, and channels are not kept
            most, parts = int(max_seconds * file.samplerate) + 1, list[F32]()
            while most > 0 and len(part := file.read(min(most, _AT_ONCE), dtype="float32", always_2d=True)):
                parts.append(part.mean(axis=1, dtype=np.float32))
                most -= len(part)
            mono = np.concatenate(parts) if parts else np.zeros(0, np.float32)
            _check_size(len(mono), 1, file.samplerate, max_seconds)
            return _checked(mono[:, None], file.samplerate)
    except InvalidParams:
        raise
    except Exception:  # what decoders raise of damaged files is no closed list
        raise InvalidParams(
            f"{len(data):,} bytes that begin with {short(data[:8])} are no sound that can be read; {_ALLOWED}"
        ) from None
