"""SVG by hand: shapes, text that fits its place, and the colours, in two themes.

Used by the pictures of this room. Every text passes escape(), so names from model files stay text. Does not know what
is drawn.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

#: Colours of groups, in turn; they read on both themes.
HUES = ("#3b7dd8", "#e8833a", "#3f9f5f", "#c8508f", "#2b9aa3", "#8a63c9", "#b8901f", "#d1524a")
#: What XML cannot hold: control characters and halves of surrogate pairs.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Width of a letter in parts of the font size, in the widest font of either list; of plain text on average.
_MONO, _SANS = 0.602, 0.56

STYLE = """
.alb{--paper:#fff;--ink:#1c2128;--soft:#636c76;--line:#8c959f;--box:#f6f8fa;--edge:#c9d1d9;--accent:#b35900;
font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){.alb{--paper:#0d1117;--ink:#e6edf3;--soft:#9198a1;--line:#6e7681;--box:#161b22;
--edge:#3d444d;--accent:#f0a35e}}
.alb text{fill:var(--ink);font-size:12px}
.alb .soft{fill:var(--soft)}
.alb .mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:10.5px}
.alb .bold{font-weight:650}
.alb .paper{fill:var(--paper)}
.alb .box{fill:var(--paper);stroke:var(--edge)}
.alb .gone{fill:none;stroke:var(--line);stroke-dasharray:4 3}
.alb .wire{fill:none;stroke:var(--line);stroke-width:1.4}
.alb .tip{fill:var(--line)}
.alb .barrier{stroke:var(--accent);stroke-width:1.4;stroke-dasharray:5 4}
.alb .warn{fill:var(--accent)}
.alb .before{fill:var(--line);fill-opacity:.45}
.alb .grid{stroke:var(--edge)}
"""


def escape(text: str) -> str:
    """Text for the inside of an element or an attribute."""
    return html.escape(_ILLEGAL.sub("\ufffd", text), quote=True)


def fit(text: str, width: float, size: float = 10.5, *, mono: bool = True) -> str:
    """Text cut in the middle, so that it takes at most width pixels at this font size."""
    most = max(1, int(width / (size * (_MONO if mono else _SANS))))
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def wrap(text: str, width: float, size: float) -> list[str]:
    """Lines of at most width pixels; longer words stand alone."""
    most, lines = int(width / (size * _SANS)), [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= most or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def num_bytes(count: float) -> str:
    """Bytes for reading, in three digits or so: 1.6 MiB, 352 KiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def number(value: float) -> str:
    """A coordinate: at most one decimal, the same on every machine."""
    return f"{round(value, 1):g}"


def rect(x: float, y: float, width: float, height: float, kind: str, *, radius: float = 6, more: str = "") -> str:
    """more: further attributes, already escaped."""
    at = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect class="{kind}" {at} rx="{number(radius)}"{_space(more)}/>'


def text(x: float, y: float, words: str, kind: str = "", *, anchor: str = "start", more: str = "") -> str:
    """One line of text; more: further attributes, already escaped."""
    classed = f' class="{kind}"' if kind else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text{classed} x="{number(x)}" y="{number(y)}"{place}{_space(more)}>{escape(words)}</text>'


def path(data: str, kind: str, more: str = "") -> str:
    return f'<path class="{kind}" d="{data}"{_space(more)}/>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return path(f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}", kind)


def tip_down(x: float, y: float) -> str:
    """The head of an arrow that points down to (x, y)."""
    return path(f"M{number(x)} {number(y)}l-4 -7h8z", "tip")


def tip_right(x: float, y: float) -> str:
    """The head of an arrow that points right to (x, y)."""
    return path(f"M{number(x)} {number(y)}l-7 -4v8z", "tip")


def document(width: float, height: float, title: str, parts: Sequence[str], *, style: bool = True) -> str:
    """A whole SVG file. style: False where a page around it has STYLE already."""
    size = f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" height="{number(height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="alb" {size} role="img">'
    sheet = [f"<style>{STYLE}</style>"] if style else []
    paper = rect(0, 0, width, height, "paper", radius=0)
    return "\n".join([head, f"<title>{escape(title)}</title>", *sheet, paper, *parts, "</svg>"]) + "\n"


def _space(more: str) -> str:
    return f" {more}" if more else ""
