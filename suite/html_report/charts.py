# SPDX-License-Identifier: Apache-2.0
"""Line charts as inline SVG, 360 units wide: a card on a phone is about as wide in pixels, so that
text keeps its size.  Colours are the page's variables; nothing is told by colour alone: each
line has a dash and a marker of its own, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from suite.html_report.scales import Axis

__all__ = ["Line", "Point", "Style", "line_chart", "swatch"]

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 34
COLOURS = 7
DASHES = ("", "6 3", "2 3", "8 3 2 3")
MARKERS = 7


@dataclass(frozen=True)
class Style:
    """How an allocator is drawn, everywhere on the page."""

    number: int
    """In the order of the page: no two of the first 7 * 4 look alike.  Below 0: no allocator."""

    @property
    def colour(self) -> str:
        return "var(--muted)" if self.number < 0 else f"var(--c{self.number % COLOURS})"

    @property
    def dash(self) -> str:
        return DASHES[self.number // COLOURS % len(DASHES)]

    @property
    def marker(self) -> int:
        return (self.number + self.number // COLOURS) % MARKERS


@dataclass(frozen=True)
class Point:
    """A value with its interval and where it comes from."""

    x: float
    y: float
    low: float | None
    high: float | None
    title: str
    samples: str
    """Places in the run's samples, for `data-s`."""
    metric: str = ""


@dataclass(frozen=True)
class Line:
    """An allocator's points, in the order of x."""

    name: str
    style: Style
    points: Sequence[Point]
    marked: bool = True


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _marker(kind: int, x: float, y: float) -> str:
    """Seven shapes of about the same size."""
    shapes = (
        f'<circle cx="{x}" cy="{y}" r="3.4"/>',
        f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>',
        f'<path d="M{x} {y - 4.2:.1f}l4 7.2h-8z"/>',
        f'<path d="M{x} {y - 4.4:.1f}l4.2 4.4l-4.2 4.4l-4.2 -4.4z"/>',
        f'<path d="M{x} {y + 4.2:.1f}l4 -7.2h-8z"/>',
        f'<path d="M{x - 1.2:.1f} {y - 4:.1f}h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z"/>',
        f'<rect x="{x - 4.2:.1f}" y="{y - 1.6:.1f}" width="8.4" height="3.2"/>',
    )
    return shapes[kind]


def _frame(x: Sequence[tuple[float, str]], y: Axis, x_label: str, y_label: str) -> list[str]:
    parts = []
    for share, label in y.ticks:
        at = _y(share)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 5}" y="{at + 3.5}" text-anchor="end">{label}</text>'
        )
    for share, label in x:
        at = _x(share)
        parts.append(
            f'<line class="grid" x1="{at}" x2="{at}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>'
        )
        anchor = "end" if share > 0.97 else "middle"
        parts.append(
            f'<text class="tick" x="{at}" y="{HEIGHT - BOTTOM + 15}" text-anchor="{anchor}">{label}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(
        f'<text class="axis" transform="translate(10 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    return parts


def _drawn(line: Line, place: dict[float, float] | Axis, y: Axis) -> str:
    def at(value: float) -> float:
        return _x(place.place(value) if isinstance(place, Axis) else place[value])

    marks = [(at(point.x), _y(y.place(point.y)), point) for point in line.points]
    parts = [
        f'<g class="line" data-allocator="{escape(line.name)}" style="--own:{line.style.colour}">'
    ]
    path = " ".join(f"{'L' if i else 'M'}{px} {py}" for i, (px, py, _) in enumerate(marks))
    dash = f' stroke-dasharray="{line.style.dash}"' if line.style.dash else ""
    parts.append(f'<path class="run" d="{path}"{dash}/>')
    for px, py, point in marks:
        whisker = ""
        if point.low is not None and point.high is not None and point.high > point.low:
            low, high = _y(y.place(point.low)), _y(y.place(point.high))
            whisker = f'<line class="whisker" x1="{px}" x2="{px}" y1="{low}" y2="{high}"/>'
        if line.marked:
            parts.append(
                f'<g class="point" data-s="{point.samples}" data-m="{point.metric}">'
                f"<title>{escape(point.title)}</title>{whisker}{_marker(line.style.marker, px, py)}</g>"
            )
    if not line.marked:
        parts.append(f"<title>{escape(line.name)}</title>")
    return "".join([*parts, "</g>"])


def line_chart(
    lines: Sequence[Line],
    x: Axis | tuple[dict[float, float], tuple[tuple[float, str], ...]],
    y: Axis,
    x_label: str,
    y_label: str,
    title: str,
) -> Markup:
    """The chart; `x` is an axis, or the place of each x and the ticks."""
    ticks = x.ticks if isinstance(x, Axis) else x[1]
    place = x if isinstance(x, Axis) else x[0]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_frame(ticks, y, x_label, y_label),
        *(_drawn(line, place, y) for line in lines if line.points),
        "</svg>",
    ]
    return Markup("".join(parts))  # noqa: S704 - every text in it was escaped above


def swatch(style: Style) -> Markup:
    """A piece of the line, for the legend."""
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    return Markup(  # noqa: S704 - numbers and constants
        f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" style="--own:{style.colour}">'
        f'<path class="run" d="M1 6H27"{dash}/>{_marker(style.marker, 14, 6)}</svg>'
    )
