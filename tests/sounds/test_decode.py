"""Bytes of sounds, written by soundfile and by the standard library; and bytes that are none."""

from __future__ import annotations

import io
import struct
import sys
import wave
from typing import Any

import numpy as np
import pytest
import soundfile

from albireo.errors import InvalidParams
from albireo.sounds import decode
from albireo.sounds.decode import as_sound, decoded
from albireo.sounds.resample import resampled
from in_turn import in_turn

RATE = 16000
TONE = (0.5 * np.sin(np.arange(4000) * 0.05)).astype(np.float32)
STEREO = np.stack([TONE, -0.5 * TONE], axis=1)


def written(samples: np.ndarray, kind: str, subtype: str, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "subtype", "within"),
    [
        ("WAV", "PCM_U8", 1 / 128),
        ("WAV", "PCM_16", 1 / 32768),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAVEX", "PCM_16", 1 / 32768),
        ("FLAC", "PCM_16", 1 / 32768),
        ("AIFF", "PCM_16", 1 / 32768),
        ("AU", "PCM_16", 1 / 32768),
        ("OGG", "VORBIS", 0.1),
        ("OGG", "OPUS", 0.2),
        ("MP3", "MPEG_LAYER_III", 0.2),
        ("WAV", "ULAW", 0.05),
        ("RF64", "PCM_16", 1 / 32768),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format(kind: str, subtype: str, within: float, channels: int) -> None:
    given = TONE if channels == 1 else STEREO
    data = written(given, kind, subtype)
    found = decoded(data)
    theirs, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert found.rate == rate and found.samples.dtype == np.float32 and found.samples.ndim == 1
    # a decoder of MP3 rounds as memory lies
    assert np.abs(found.samples - theirs.mean(axis=1, dtype=np.float32)).max() < 1e-6
    if len(found.samples) == len(TONE):
        wanted = TONE if channels == 1 else STEREO.mean(axis=1)
        assert np.abs(found.samples - wanted).max() <= within + 1e-7


def test_by_the_standard_library_and_without_soundfile(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes((TONE * 32767).astype("<i2").tobytes())
    monkeypatch.setitem(sys.modules, "soundfile", None)
    found = decoded(file.getvalue())
    assert found.rate == 8000 and found.seconds == pytest.approx(0.5)
    with pytest.raises(InvalidParams, match=r"albireo\[audio\]"):
        decoded(written(TONE, "FLAC", "PCM_16"))


def _wave(**changes: Any) -> bytes:
    """A header with anything in it."""
    said = {"tag": 1, "channels": 1, "rate": RATE, "bits": 16, "data": TONE[:100].astype("<i2").tobytes()} | changes
    width = said["channels"] * said["bits"] // 8
    head = struct.pack(
        "<HHIIHH", said["tag"], said["channels"], said["rate"], said["rate"] * width, width, said["bits"]
    )
    size = said.get("size", len(said["data"]))
    chunks = b"fmt " + struct.pack("<I", 16) + head + b"LIST\3\0\0\0abc\0" + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) + len(said["data"])) + b"WAVE" + chunks + said["data"]


def test_a_recording_that_was_cut_off() -> None:
    assert len(decoded(_wave(size=0xFFFFFFFF)).samples) == 100
    assert len(decoded(_wave(data=b"\0" * 201)).samples) == 100


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no bytes"),
        (b"RIFF\0\0\0\0WAVE", "no samples"),
        # a million parts before the samples, each of which was looked at
        (
            b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 10**6 + b"data\4\0\0\0\1\0\1\0",
            "1,024 parts and no samples among them",
        ),
        (b"RIFF\0\0\0\0WAVEfmt \4\0\0\0\1\0\1\0", "16 are needed"),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0\1\0\1\0", "before it says"),
        (_wave(channels=0), "0 channels"),
        (_wave(rate=0), "0 samples a second"),
        (_wave(rate=10**9), "1000000000 samples a second"),
        (_wave(channels=99), "99 channels"),
        (_wave(data=b""), "no samples"),
        (_wave(tag=3, bits=32, data=np.array([0, np.nan], "<f4").tobytes()), "sample 1"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "MP4 or M4A"),
        (b"\x1aE\xdf\xa3" + b"\0" * 40, "WebM"),
        (b"hello, world, this is no sound at all", "no sound"),
        (b"fLaC" + b"\1" * 60, "no sound"),
        (written(TONE, "FLAC", "PCM_16")[:60], "no sound|no samples"),
    ],
)
def test_what_is_no_sound(data: bytes, says: str) -> None:
    with pytest.raises(InvalidParams, match=says):
        decoded(data)


def test_damage_is_an_error_or_a_sound() -> None:
    rng = np.random.default_rng(1)
    files = [written(TONE, kind, sub) for kind, sub in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"))]
    refused = 0
    for turn in range(150):
        data = bytearray(files[turn % 3])
        for at in rng.integers(0, min(len(data), 200), 4):
            data[at] = rng.integers(256)
        try:
            found = decoded(bytes(data))
        except InvalidParams:
            refused += 1
        else:
            assert np.isfinite(found.samples).all() and len(found.samples)
    assert 0 < refused < 150


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_SOUND_SECONDS", 0.1)
    for kind in ("WAV", "FLAC"):
        with pytest.raises(InvalidParams, match="lasts"):
            decoded(written(TONE, kind, "PCM_16"))
    monkeypatch.setattr(decode, "MAX_SOUND_BYTES", 100)
    with pytest.raises(InvalidParams, match="bytes"):
        decoded(written(TONE, "WAV", "PCM_16"))


def test_arrays_as_vllm_takes_them() -> None:
    assert np.array_equal(as_sound((TONE, RATE)).samples, TONE)
    assert np.array_equal(as_sound((TONE.tolist(), np.int64(RATE))).samples, TONE)
    assert np.array_equal(as_sound((STEREO, RATE)).samples, as_sound((STEREO.T, float(RATE))).samples)
    assert as_sound((np.array([16384, -32768], np.int16), RATE)).samples.tolist() == [0.5, -1.0]
    assert as_sound((np.array([128, 0], np.uint8), RATE)).samples.tolist() == [0.0, -1.0]
    sound = decoded(written(TONE, "WAV", "FLOAT"))
    assert as_sound(sound) is sound


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            "talk.wav",
            3,
            (TONE,),
            (TONE, "16000"),
            (TONE, 0),
            (TONE, True),
            (TONE, 1.5),
            (TONE, np.nan),
            (TONE, np.inf),
            (np.zeros(0), 1),
        ),
        *((array, RATE) for array in (np.zeros((2, 2, 2)), np.array(["a"]), [[1.0], [1.0, 2.0]], np.array([np.inf]))),
    ],
)
def test_values_that_are_no_sound(value: Any) -> None:
    with pytest.raises(InvalidParams):
        as_sound(value)


def test_other_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    times = np.arange(44100) / 44100
    tone = np.sin(2 * np.pi * 440 * times).astype(np.float32)
    found = resampled(tone, 44100, RATE)
    wanted = np.sin(2 * np.pi * 440 * np.arange(len(found)) / RATE)
    assert len(found) == RATE and np.abs(found - wanted)[200:-200].max() < 1e-3
    assert resampled(tone, RATE, RATE) is tone
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(InvalidParams, match=r"44100 .* 16000 .*albireo\[audio\]"):
        resampled(tone, 44100, RATE)


def _mp3(samples: np.ndarray, level: float, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3", compression_level=level, bitrate_mode="CONSTANT")
    return file.getvalue()


def _without_length(data: bytes) -> bytes:
    """From the second frame on: the first one says how long the file is."""
    return data[data.index(data[:2], 4) :]


@in_turn(("rate", [8000, 16000, 24000, 48000]), ("num_channels", [1, 2]))
def test_an_mp3_is_read_to_its_end_whatever_it_says_of_its_length(rate: int, num_channels: int) -> None:
    noise = (np.random.default_rng(3).standard_normal((8 * rate, num_channels)) * 0.1).astype(np.float32)
    wide, narrow = (_mp3(noise, level, rate) for level in (0.0, 0.9))
    assert len(wide) > 2 * len(narrow)
    tag = b"ID3\4\0\0\0\0\1\x49" + bytes(0xC9)
    bare = _without_length(wide) + _without_length(narrow)
    for data in (bare, tag + bare, _without_length(narrow) + _without_length(wide), narrow + wide):
        assert decoded(data).seconds == pytest.approx(16, abs=0.5)
        with pytest.raises(InvalidParams, match="at most 12 s"):
            decoded(data, 12)
    # its samples are those of the file, but for frames at the ends
    found, whole = decoded(_without_length(narrow)).samples, decoded(narrow).samples
    middle = whole[rate : rate + 2000]
    place = int(np.argmax(np.correlate(found[: 2 * rate], middle, "valid")))
    assert np.abs(found[place : place + 2000] - middle).max() < 1e-4
