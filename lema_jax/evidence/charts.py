"""Plots as inline SVG, drawn by matplotlib and coloured by the page's style sheet.

Every colour drawn is a placeholder that becomes a CSS variable, so one plot serves light and dark mode. `colours` maps
each name to the number of its colour, so that a name has one colour in all plots of a page.
"""

import contextlib
import io
import math
import re
import textwrap
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lema_jax.evidence.stats import Interval

SERIES = 8  # colours in the style sheet, --series-0 … --series-7; 0 is a grey for the baseline
_INK, _MUTED, _LINE = "#010101", "#010102", "#010103"
_SERIES = [f"#0102{i:02x}" for i in range(SERIES)]
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line"} | {c: f"--series-{i}" for i, c in enumerate(_SERIES)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lema",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
_WIDTH = 4.4  # inches: as wide as a phone, so that its text keeps its size there
_HANDLE = 40  # points beside a name in a legend: its mark, and space
_POINT: Any = {"fmt": "o", "markersize": 6, "elinewidth": 1.8, "capsize": 0}

_RING: Any = {"linestyle": "none", "marker": "o", "markersize": 4, "markerfacecolor": "none", "markeredgewidth": 1.1}


def intervals(
    rows: Sequence[tuple[str, float, Interval]],
    label: str,
    colours: Mapping[str, int],
    *,
    zero: bool = False,
    points: Mapping[str, Sequence[float]] | None = None,
) -> Markup:
    """A dot with its interval for each row, fractions in percent; `zero` draws the line of no difference.

    `points` are drawn as rings below the dot, by the row's name: the seeds of an arm, whose mean the dot is.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(0.62 + 0.34 * len(rows))
        for i, (name, value, interval) in enumerate(rows):
            colour, seeds = _colour(colours[name]), (points or {}).get(name, ())
            _dots(axes, [i], [(value, interval)], colour)
            axes.plot(seeds, [i + 0.26] * len(seeds), color=colour, **_RING)
        _rows(axes, [_short(name) for name, _, _ in rows])
        unit = "" if zero else " %"
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}{unit}".replace("-", "−"))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(_short(label, 48))
        if zero:
            axes.axvline(0, color=_INK, linewidth=1)
        return _svg(figure, label)


def grouped(
    groups: Sequence[str],
    arms: Mapping[str, Sequence[tuple[float, Interval]]],
    label: str,
    colours: Mapping[str, int],
) -> Markup:
    """For each group a dot with its interval per arm, fractions in percent; `arms[name][i]` belongs to `groups[i]`."""
    with matplotlib.rc_context(_STYLE):
        columns, above = _legend(arms)
        figure, axes = _figure(0.6 + above + len(groups) * (0.18 + 0.15 * len(arms)))
        for j, (name, values) in enumerate(arms.items()):
            below = (j - (len(arms) - 1) / 2) * 0.7 / len(arms)
            heights = [i + below for i in range(len(groups))]
            _dots(axes, heights, values, _colour(colours[name]), _short(name))
        _rows(axes, [_two_lines(name) for name in groups])
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_xlabel(_short(label, 48))
        if columns:
            figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.2, columnspacing=1.2)
        return _svg(figure, label)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    label: str,
    colours: Mapping[str, int],
    *,
    names: Mapping[str, str] | None = None,
) -> Markup:
    """Lines over training steps; `series` maps name to (steps, values).

    `names` gives several series one name, with one colour and one entry in the legend: the seeds of an arm.
    """
    with matplotlib.rc_context(_STYLE):
        shown = [(names or {}).get(key, key) for key in series]
        columns, above = _legend(shown)
        figure, axes = _figure(2.2 + above)
        drawn: set[str] = set()
        for name, (steps, values) in zip(shown, series.values()):
            entry, marker = "_" if name in drawn else _short(name), "o" if len(steps) < 12 else ""  # "_…" has no entry
            look: Any = {"color": _colour(colours[name]), "linestyle": _dashes(colours[name])}
            axes.plot(steps, values, **look, label=entry, marker=marker, markersize=4)
            drawn.add(name)
        axes.set_xlabel("step")
        axes.yaxis.set_major_formatter("{x:,.6g}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if columns:
            figure.legend(loc="outside upper left", ncols=columns, columnspacing=1.2)
        return _svg(figure, f"{label} by step")


def by_share(rows: Sequence[tuple[float, float, Interval, Sequence[float]]], label: str) -> Markup:
    """Accuracy by the share of corrections, fractions in percent: (share, mean, interval, seeds), shares ascending.

    Means are dots on a line, with their intervals; seeds are rings beside them.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(2.8)
        axes.plot([share for share, *_ in rows], [mean for _, mean, *_ in rows], color=_SERIES[1], linewidth=0.8)
        beside = 0.025 * (rows[-1][0] - rows[0][0])
        for share, mean, interval, seeds in rows:
            low, high = max(0.0, mean - interval.low), max(0.0, interval.high - mean)
            axes.errorbar([share], [mean], yerr=[[low], [high]], color=_SERIES[1], **_POINT)
            axes.plot([share + beside] * len(seeds), seeds, color=_SERIES[1], **_RING)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
        axes.set_xlabel("share of corrections among the examples")
        return _svg(figure, label)


def bars(counts: Mapping[str, int], label: str) -> Markup:
    """A horizontal bar for each count, with its number, in the order given."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(0.5 + 0.36 * len(counts))
        drawn = axes.barh(range(len(counts)), list(counts.values()), color=_SERIES[1], height=0.62)
        axes.bar_label(drawn, [f"{count:,}" for count in counts.values()], color=_INK, padding=4)
        _rows(axes, [_two_lines(name) for name in counts])
        axes.margins(x=0.2)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel(_short(label, 48))
        return _svg(figure, label)


def alone(plot: Markup) -> str:
    """A plot as a file of its own, in the page's light colours on white."""
    svg = re.sub(r'viewBox="0 0 (\S+) (\S+)"', r'width="\1pt" height="\2pt" \g<0>', str(plot), count=1)
    svg = svg.replace("<svg", '<svg style="background: #fff"', 1)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f"var({variable})", colour)
    return svg


def _colour(number: int) -> str:
    """The colour of this number; those above the last begin again at 1, since 0 is the baseline's alone."""
    return _SERIES[number if number < SERIES else 1 + (number - 1) % (SERIES - 1)]


def _dashes(number: int) -> str:
    """The line of this number: names that share a colour differ in it."""
    return ("-", "--", ":")[max(0, number - 1) // (SERIES - 1) % 3]


def _legend(names: Iterable[str]) -> tuple[int, float]:
    """The columns of a legend that fit beside each other, and its height in inches; (0, 0) for a single name."""
    shown = [_short(name) for name in dict.fromkeys(names)]
    if len(shown) < 2:
        return 0, 0.0
    font = FontProperties(size=_STYLE["font.size"])
    with _without_glyph_warnings():
        widths = [text_to_path.get_text_width_height_descent(name, font, ismath=False)[0] for name in shown]
    columns = min(3, max(1, int(72 * _WIDTH // (max(widths) + _HANDLE))))
    return columns, 0.15 + 0.21 * math.ceil(len(shown) / columns)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _dots(
    axes: Axes, ys: Sequence[float], values: Sequence[tuple[float, Interval]], colour: str, name: str | None = None
) -> None:
    """A dot with its interval at each height."""
    lows = [max(0.0, value - interval.low) for value, interval in values]
    highs = [max(0.0, interval.high - value) for value, interval in values]
    axes.errorbar([value for value, _ in values], ys, xerr=[lows, highs], color=colour, label=name, **_POINT)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names on the left side, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _short(name: str, most: int = 28) -> str:
    """A name as a label: shortened, and without control characters, which SVG does not allow."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return clean if len(clean) <= most else f"{clean[: most - 1]}…"


def _two_lines(name: str) -> str:
    return "\n".join(textwrap.wrap(_short(name, 54), 28))


@contextlib.contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """The reader's fonts draw the text, not this machine's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def _svg(figure: Figure, label: str) -> Markup:
    buffer = io.StringIO()
    with _without_glyph_warnings():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(_named(svg, label))


def _named(svg: str, label: str) -> str:
    """The SVG with ids unique in the page, sizes left to the style sheet, and a label for screen readers."""
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # it would style all of the page
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    prefix = f"c{zlib.crc32(svg.encode()):x}-"
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(_short(label, 200))}" class="plot"', 1)
