"""Transcripts as subtitles: SubRip (srt) and WebVTT (vtt).

Called by the commands and the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.outputs import Segment


def srt(segments: Sequence[Segment]) -> str:
    """SubRip; empty where nothing is said."""
    cues = (
        f"{number}\n{_time(each.start, ',')} --> {_time(each.end, ',')}\n{_line(each.text)}\n"
        for number, each in enumerate(segments, 1)
    )
    return "\n".join(cues)


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT."""
    cues = (f"{_time(each.start, '.')} --> {_time(each.end, '.')}\n{_escaped(_line(each.text))}\n" for each in segments)
    return "\n".join(("WEBVTT\n", *cues))


def _time(seconds: float, point: str) -> str:
    """hours:minutes:seconds and milliseconds."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def _line(text: str) -> str:
    """A cue ends with an empty line, and an arrow would begin one."""
    return " ".join(text.split()).replace("-->", "->")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
