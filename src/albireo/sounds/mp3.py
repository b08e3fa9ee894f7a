"""MP3 files that do not say how long they are, or say less: made to say more than they are.

Called by decode.py. The library reads as many frames as the first one says, and where it does not say, as many as it
guesses from that one's size: of a file whose frames differ, or of several in a row, it would leave out the end.
"""

from __future__ import annotations

import struct

#: As no file of allowed size has: frames, of 1152 samples at most, that 31 bits of samples hold.
_MANY_FRAMES = 2**20
_HAS_FRAMES, _HAS_BYTES = 1, 2
#: Of what a file states, how much more may be there: tags behind it.
_TOLERANCE = 1.05
_TAG_BYTES = 2**17
#: Bytes between the head of a frame and its mark, by (version is 1, mono).
_SIDE = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}
#: At which the frame that is put in front is long enough at any rate: kbit/s, by whether the version is 1.
_BIT_RATE_INDEX = {True: 9, False: 12}
_KBITS = 128
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def read_to_its_end(data: bytes) -> bytes:
    """The same file, or one whose first frame says it has very many; other layers and damage are left alone."""
    start = _frames_start(data)
    head = data[start : start + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[2] >> 2 & 3 == 3:
        return data
    version = head[1] >> 3 & 3
    if version not in _RATES:
        return data
    is_first = version == 3
    side = _SIDE[is_first, head[3] >> 6 == 3]
    mark = start + 4 + side
    if data[mark : mark + 4] in (b"Xing", b"Info"):
        return _corrected(data, start, mark)
    if data[start + 36 : start + 40] == b"VBRI":
        return data
    rate = _RATES[version][head[2] >> 2 & 3]
    # no checksum, and no padding
    first = bytes((0xFF, head[1] | 1, _BIT_RATE_INDEX[is_first] << 4 | head[2] & 0x0C, head[3]))
    size = (144 if is_first else 72) * _KBITS * 1000 // rate
    frame = first + bytes(side) + b"Xing" + struct.pack(">II", _HAS_FRAMES, _MANY_FRAMES)
    return data[:start] + frame.ljust(size, b"\0") + data[start:]


def _corrected(data: bytes, start: int, mark: int) -> bytes:
    """With very many frames where the file states far fewer bytes than are there."""
    if len(data) < mark + 16:
        return data
    flags, _, size = struct.unpack_from(">III", data, mark + 4)
    if flags & 3 != _HAS_FRAMES | _HAS_BYTES or len(data) - start <= size * _TOLERANCE + _TAG_BYTES:
        return data
    return data[: mark + 8] + struct.pack(">I", _MANY_FRAMES) + data[mark + 12 :]


def _frames_start(data: bytes) -> int:
    """Behind a tag in front."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if data[5] & 0x10 else 0)
