"""How much a file may say of sounds: several times what any model has, so that what is made of it stays small.

Used by the families. Bands of frequencies are a matrix, of which a few are held while it is made, and a frame is many
numbers before it is few: of keys that are each possible, the product may take gigabytes before anything is heard.
"""

from __future__ import annotations

from albireo.json_file import Fields

#: Models hear 16,000 samples a second, a few 24,000: what a request sends is resampled to it.
MAX_RATE = 2**16
#: Frames have 400 to 1,024 samples, and become 80 to 128 bands. The matrix between both has 8 MiB at most.
MAX_FFT, MAX_BANDS = 2**12, 2**9
#: Windows have 30 s, of Qwen2.5-Omni 300, which are 4.8 million samples; 8.4 million are 32 MiB.
MAX_WINDOW_S, MAX_WINDOW = 2**9, 2**23
#: Of each second: numbers of its bands, which are 12,800 at most; and of its frames, 102,400. Of the longest window
#: 256 MiB of the first, and of a minute 128 MiB of the second.
_MAX_HEARD, _MAX_HELD = 2**16, 2**18


def check_frames(fields: Fields, key: str, rate: int, hop: int, fft: int, bands: int) -> None:
    """Args: key: that says how far frames are apart. hop: samples of that. fft: samples of a frame.

    Raises: ModelError where frames are so near to each other that they take too much memory.
    """
    for count, most, what in ((bands, _MAX_HEARD, "bands"), (fft, _MAX_HELD, "samples")):
        if rate * count > most * hop:
            frames = rate / hop
            fields.fail(
                key,
                fields.raw(key),
                f"makes {frames:,.0f} frames a second of {count:,} {what}; {most:,} numbers a second are allowed",
            )
