"""Plots as SVG, written by hand: bars with their range, and lines over sizes."""

import math
from dataclasses import dataclass
from html import escape

COLOURS = ("#3b6ea5", "#c8702a", "#5a8f4e", "#8a5a99", "#7a7a7a")
INK, GRID = "#222222", "#dddddd"
WIDTH, LEFT, RIGHT, TOP = 860, 210, 90, 74
BAR, BAR_GAP, GROUP_GAP = 11, 2, 10


@dataclass(frozen=True)
class Bar:
    """One figure of a series: the middle, the least and the most."""

    series: str
    middle: float
    least: float
    most: float


def text(x, y, words, anchor="start", size=12, weight="normal", colour=INK):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="{colour}" paint-order="stroke" stroke="white" '
        f'stroke-width="3">{escape(words)}</text>'
    )


def line(x1, y1, x2, y2, colour=INK, width=1.0, dash=""):
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"' + (f' stroke-dasharray="{dash}"' if dash else "") + "/>"
    )


def frame(height, title, subtitle, series, parts):
    """The whole picture, with its title and what the colours mean."""
    head = [text(16, 26, title, size=16, weight="bold"), text(16, 45, subtitle, colour="#555555")]
    x = 16
    for at, name in enumerate(series):
        head.append(f'<rect x="{x}" y="55" width="10" height="10" fill="{COLOURS[at]}"/>')
        head.append(text(x + 15, 64, name))
        x += 40 + 7 * len(name)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" '
            'font-family="Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>',
            *head,
            *parts,
            "</svg>\n",
        ]
    )


def number(value):
    """Three digits, without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:,.{digits}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def ticks(low, high, log):
    if log:
        return [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    step = 10 ** math.floor(math.log10(max(high - low, 1e-9)))
    while (high - low) / step < 4:
        step /= 2
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def bounds(values, log, low):
    """The ends of an axis."""
    if log:
        values = [value for value in values if value > 0] or [1.0]
        least = 10.0 ** math.floor(math.log10(min(values)))
        most = 10.0 ** math.ceil(math.log10(max(values)))
        return least, max(most, least * 10)
    return low, max(max(values, default=1.0), low + 1e-9) * 1.02


def bars(title, subtitle, groups, log=False, low=0.0, marks=()):
    """Horizontal bars, a group for each label. `groups` is a list of labels, each
    with its bars; `marks` are values that get a line of their own."""
    series = list(dict.fromkeys(bar.series for _, group in groups for bar in group))
    values = [value for _, group in groups for bar in group for value in (bar.middle, bar.most)]
    low, high = bounds([*values, *marks], log, low)

    def across(value):
        if log:
            share = math.log(max(value, low) / low) / math.log(high / low)
        else:
            share = (max(value, low) - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    parts, y = [], TOP + 8.0
    for label, group in groups:
        height = len(group) * (BAR + BAR_GAP)
        parts.append(text(LEFT - 8, y + height / 2 + 3, label, "end"))
        for bar in group:
            colour, end = COLOURS[series.index(bar.series)], across(bar.middle)
            parts.append(
                f'<rect x="{LEFT}" y="{y:.1f}" width="{max(end - LEFT, 0.5):.1f}" '
                f'height="{BAR}" fill="{colour}"/>'
            )
            middle = y + BAR / 2
            parts.append(line(across(bar.least), middle, across(bar.most), middle, INK, 1.2))
            at = max(end, across(bar.most)) + 5
            parts.append(text(at, y + BAR - 1.5, number(bar.middle), size=10))
            y += BAR + BAR_GAP
        y += GROUP_GAP
    grid = []
    for tick in ticks(low, high, log):
        grid.append(line(across(tick), TOP, across(tick), y, GRID))
        grid.append(text(across(tick), y + 14, number(tick), "middle", 10))
    grid += [line(across(mark), TOP, across(mark), y, INK, 1, "4 3") for mark in marks]
    return frame(y + 28, title, subtitle, series, grid + parts)


def lines(title, subtitle, curves):
    """Curves over the number of keys, which grows tenfold from step to step.
    `curves` maps a name to its points, each the keys and a `Bar`."""
    height, bottom, left = 400, 350, 70
    points = [point for curve in curves.values() for point in curve]
    keys = sorted({size for size, _ in points})
    least, most = math.log10(keys[0]), math.log10(keys[-1])
    low, high = bounds([bar.most for _, bar in points], False, 0.0)

    def across(size):
        share = (math.log10(size) - least) / (most - least) if most > least else 0.5
        return left + 30 + share * (WIDTH - left - 90)

    def up(value):
        return bottom - (value - low) / (high - low) * (bottom - TOP - 10)

    parts = []
    for tick in ticks(low, high, False):
        parts.append(line(left, up(tick), WIDTH - 40, up(tick), GRID))
        parts.append(text(left - 8, up(tick) + 4, number(tick), "end", 11))
    for size in keys:
        parts.append(line(across(size), bottom, across(size), bottom + 5))
        parts.append(text(across(size), bottom + 20, f"{size:,} keys", "middle", 11))
    for at, curve in enumerate(curves.values()):
        path = " ".join(f"{across(size):.1f},{up(bar.middle):.1f}" for size, bar in curve)
        colour = COLOURS[at]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for size, bar in curve:
            x = across(size)
            parts.append(line(x, up(bar.least), x, up(bar.most), colour, 1.2))
            parts.append(
                f'<circle cx="{x:.1f}" cy="{up(bar.middle):.1f}" r="3.5" fill="{colour}"/>'
            )
    return frame(height, title, subtitle, list(curves), parts)
