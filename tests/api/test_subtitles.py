"""Subtitles: times to the millisecond, and text that could end a cue."""

from __future__ import annotations

from albireo.api.transcribe.subtitles import srt, vtt
from albireo.outputs import Segment


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(0, start, end, text, [], 0.0, None, 1.0)


PARTS = [
    segment(0.0, 1.9999, " Hello <b>& all"),
    segment(59.9996, 3599.5, "a\n\nb --> c"),
    segment(36610.007, 36611, ""),
]


def test_subrip() -> None:
    assert srt(PARTS) == (
        "1\n00:00:00,000 --> 00:00:02,000\nHello <b>& all\n\n"
        "2\n00:01:00,000 --> 00:59:59,500\na b -> c\n\n"
        "3\n10:10:10,007 --> 10:10:11,000\n\n"
    )


def test_webvtt() -> None:
    assert vtt(PARTS[:2]) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.000\nHello &lt;b&gt;&amp; all\n\n"
        "00:01:00.000 --> 00:59:59.500\na b -&gt; c\n"
    )


def test_nothing_is_said() -> None:
    assert srt([]) == "" and vtt([]) == "WEBVTT\n"
