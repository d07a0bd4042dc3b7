"""Plots with two logarithmic axes, as SVG text; readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 92, 20, 64, 52
"""Pixels around the field of the plot."""

LIGHT = ("#0b6bcb", "#c2410c", "#15803d")
DARK = ("#60a5fa", "#fb923c", "#4ade80")
"""One colour for each series; three are enough here, and can be told apart by people who do not see red and green."""

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.grid { stroke: #1f2328; stroke-opacity: .15 }
polyline { fill: none; stroke-width: 2 }
.linear { stroke: #1f2328; stroke-opacity: .45; stroke-dasharray: 4 4 }
"""


def plot(title: str, across: str, series: Mapping[str, Points]) -> str:
    """A plot of all series: seconds by whatever *across* says. All values are above 0."""
    x_axis = _Axis([x for points in series.values() for x, _ in points], LEFT, WIDTH - RIGHT)
    y_axis = _Axis([y for points in series.values() for _, y in points], HEIGHT - BOTTOM, TOP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}{_colours(LIGHT)}@media (prefers-color-scheme: dark) {{",
        f"text {{ fill: #e6edf3 }} .grid, .linear {{ stroke: #e6edf3 }}{_colours(DARK)}}}</style>",
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>',
        *_grid(x_axis, y_axis),
        *_linear(next(iter(series.values()))[-1], x_axis, y_axis),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(across)} (logarithmic)</text>",
        f'<text transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">time (logarithmic); dashed: linear</text>',
    ]
    for number, (name, points) in enumerate(series.items()):
        lines += _series(number, name, points, x_axis, y_axis)
    return "\n".join([*lines, "</svg>", ""])


class _Axis:
    """Whole decades around the values, from one pixel to another."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        self.low = math.floor(math.log10(min(values)) + 1e-9)
        self.high = max(math.ceil(math.log10(max(values)) - 1e-9), self.low + 1)
        self._start, self._stop = start, stop

    def at(self, value: float) -> float:
        return self._start + (math.log10(value) - self.low) / (self.high - self.low) * (self._stop - self._start)

    def decades(self) -> Iterator[tuple[float, float]]:
        """Where a line is drawn, and for what."""
        for power in range(self.low, self.high + 1):
            yield self.at(10.0**power), 10.0**power


def count(value: float) -> str:
    """A number of things, in few letters: 200, 10k, 1M, 64Mi."""
    if value >= 10**6:
        return f"{value / 10**6:g}M" if value % 10**6 == 0 else f"{value / 2**20:g}Mi"
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def seconds(value: float) -> str:
    """A time, with its unit and three digits."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size * 0.999:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _colours(colours: Sequence[str]) -> str:
    return "".join(
        f".s{number} {{ stroke: {colour} }} .d{number} {{ fill: {colour} }}\n" for number, colour in enumerate(colours)
    )


def _grid(x_axis: _Axis, y_axis: _Axis) -> Iterator[str]:
    for x, value in x_axis.decades():
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{count(value)}</text>'
    for y, value in y_axis.decades():
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{seconds(value)}</text>'


def _linear(last: tuple[float, float], x_axis: _Axis, y_axis: _Axis) -> Iterator[str]:
    """What a cost that is linear would have looked like on the way to that point."""
    x, y = last
    decades = min(math.log10(x) - x_axis.low, math.log10(y) - y_axis.low)  # until it leaves the field
    left, low = x_axis.at(x / 10**decades), y_axis.at(y / 10**decades)
    yield f'<line class="linear" x1="{left:.1f}" y1="{low:.1f}" x2="{x_axis.at(x):.1f}" y2="{y_axis.at(y):.1f}"/>'


def _series(number: int, name: str, points: Points, x_axis: _Axis, y_axis: _Axis) -> Iterator[str]:
    at = [(x_axis.at(x), y_axis.at(y)) for x, y in points]
    yield f'<polyline class="s{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}"/>'
    yield from (f'<circle class="d{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in at)
    left = LEFT + number * 200
    yield f'<circle class="d{number}" cx="{left + 4}" cy="44" r="4"/>'
    yield f'<text x="{left + 14}" y="48">{escape(name)}</text>'
