"""What every explorer is made of: sliders, a figure that is made once, a reading, a question."""

# mypy: disable-error-code="no-untyped-call"
# matplotlib's Agg canvas is unannotated.

from __future__ import annotations

import base64
import math
import os
import struct
import textwrap
import zlib
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from ipywidgets import Widget

Pixels = npt.NDArray[np.uint8]

WIDTH = 8.0  # inches
DPI = 100
VIEW = "application/vnd.jupyter.widget-view+json"
BLACK = "#222222"
MARKED: dict[str, Any] = {"markersize": 10, "markeredgecolor": BLACK, "linestyle": "", "zorder": 5}
# Values of a slider over decades, the same ten steps in each.
DECADE = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


class Canvas:
    """A figure that is made once: `png()` draws again only what moves.

    The axes with their ticks and labels are kept as an image, one for each setting of the limits.
    """

    KEPT = 16  # images of axes, 1 MB each

    def __init__(self, figure: Figure, moving: Sequence[Artist]) -> None:
        self.figure = figure
        self._moving = list(moving)
        self._agg = FigureCanvasAgg(figure)
        for artist in self._moving:
            artist.set_animated(True)
        self._axes_images: dict[tuple[float, ...], Any] = {}

    def pixels(self) -> Pixels:
        """The picture as it is now, shape (height, width, 3)."""
        limits = tuple(
            float(edge)
            for axes in self.figure.axes
            for edge in (*axes.get_xlim(), *axes.get_ylim())
        )
        if limits in self._axes_images:
            self._agg.restore_region(self._axes_images[limits])
        else:
            self._agg.draw()
            while len(self._axes_images) >= self.KEPT:
                del self._axes_images[next(iter(self._axes_images))]
            self._axes_images[limits] = self._agg.copy_from_bbox(self.figure.bbox)
        for artist in self._moving:
            if artist.axes is not None:
                artist.axes.draw_artist(artist)
        pixels: Pixels = np.asarray(self._agg.buffer_rgba())[:, :, :3].copy()
        return pixels

    def png(self) -> bytes:
        """The picture as it is now, as a PNG file."""
        return png(self.pixels())


def png(pixels: Pixels) -> bytes:
    """A PNG file of `pixels`, shape (height, width, 3).

    Written for speed: no filter and light compression suit lines on white, and take a third of
    the time that a general encoder takes.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with "no filter"
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def figure(panels: int = 1, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """An empty figure with `panels` axes side by side, in the style of all explorers."""
    drawn = Figure(figsize=(WIDTH, height), dpi=DPI)
    drawn.subplots_adjust(left=0.095, right=0.97, bottom=0.155, top=0.9, wspace=0.3)
    all_axes = [drawn.add_subplot(1, panels, number + 1) for number in range(panels)]
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
    return drawn, all_axes


def legend(axes: Axes, handles: Sequence[Artist], *, columns: int = 3) -> None:
    """Name what is drawn, above the axes."""
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=9,
        columnspacing=1.2,
        handlelength=2.2,
        borderaxespad=0.2,
    )


def beside_static(picture: Pixels, text: Sequence[str]) -> Pixels:
    """The picture with lines of text below it, for where no slider can be shown."""
    lines = [part for line in text for part in textwrap.wrap(line, 108)]
    strip = Figure(figsize=(WIDTH, 0.16 + 0.2 * len(lines)), dpi=DPI)
    agg = FigureCanvasAgg(strip)
    strip.text(0.012, 0.97, "\n".join(lines), va="top", fontsize=10, linespacing=1.35)
    agg.draw()
    below = np.asarray(agg.buffer_rgba())[:, :, :3]
    together: Pixels = np.vstack([picture, below[:, : picture.shape[1]]])
    return together


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Sliders, the picture they move, a reading of it in one line, and a question.

    `show(**values)` moves the figure, without drawing it, and returns the reading. Where there is
    no kernel, a still of the first frame with its settings and reading stands in for it.
    """

    def __init__(
        self,
        title: str,
        description: str,
        question: str,
        settings: Mapping[str, Widget],
        canvas: Canvas,
        show: Callable[..., str],
    ) -> None:
        self.title = title
        self.description = description
        self.question = question
        self.settings = dict(settings)
        self._canvas = canvas
        self.show = show
        self.reading = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png")
        self.picture.layout.max_width = "100%"
        self.picture.layout.object_fit = "contain"
        self.picture.layout.align_self = "flex-start"
        self._said = ""
        self.redraw()
        # An Image has no alternative text, so the description is there to be opened.
        asked = ipywidgets.HTML(
            f"<p><em>Question:</em> {escape(question)}</p>\n"
            f"<details><summary>What the picture shows</summary>{escape(description)}</details>"
        )
        super().__init__(
            [*self.settings.values(), self.picture, self.reading, asked],
            layout=ipywidgets.Layout(max_width="830px"),
        )
        for setting in self.settings.values():
            setting.observe(self._changed, names="value")

    @property
    def values(self) -> dict[str, Any]:
        """What the sliders are set to."""
        return {name: setting.value for name, setting in self.settings.items()}

    @property
    def said(self) -> str:
        """The reading, without markup."""
        return self._said

    def redraw(self) -> None:
        """Bring figure and reading up to date with the sliders."""
        self._said = self.show(**self.values)
        self.picture.value = self._canvas.png()
        self.reading.value = f'<p role="status"><strong>{escape(self._said)}</strong></p>'

    def _changed(self, _change: object) -> None:
        self.redraw()

    def __repr__(self) -> str:
        return "\n".join(
            [
                f"{self.title}: {self.description}",
                f"Settings: {self._set_to()}.",
                f"Reading: {self._said}",
                f"Question: {self.question}",
            ]
        )

    def _set_to(self) -> str:
        parts = (set_to(setting) for setting in self.settings.values() if not setting.disabled)
        return "; ".join(parts)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return bundle(self, self._canvas.pixels(), self._set_to())


def bundle(
    explorer: Any, picture: Pixels, set_to: str, *, attributes: str = "", script: str = ""
) -> dict[str, Any]:
    """An output: live where there is a kernel, elsewhere a still with its text.

    `explorer` has a text (repr), `said` and `question`. While the notebooks are built the live
    view is left out: its model would be gone, and a front end shows an error in its place.
    """
    asked = f"Question: {explorer.question}"
    image = base64.b64encode(png(picture)).decode()
    alone = png(beside_static(picture, [set_to, explorer.said, asked]))
    data: dict[str, Any] = {
        "text/plain": repr(explorer),
        "image/png": base64.b64encode(alone).decode(),
        "text/html": (
            f"<div{attributes}>\n"
            f'<img alt="{escape(repr(explorer))}" src="data:image/png;base64,{image}">\n'
            f"<p>{escape(set_to)}</p>\n"
            f"<p><strong>{escape(explorer.said)}</strong></p>\n"
            f"<p>{escape(asked)}</p>\n"
            f"</div>{script}"
        ),
    }
    if os.environ.get("CACHELAB_BUILDING") != "1":
        data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": explorer.model_id}
    return data


# Sliders ---------------------------------------------------------------------------------------

_LAYOUT = {"width": "95%"}
_STYLE = {"description_width": "14.5em"}


def over_decades(
    name: str, low: float, high: float, start: float, say: Callable[[float], str], *extra: float
) -> Widget:
    """A slider from `low` to `high` in ten steps a decade (and the `extra` values).

    `say` is a key of UNITS: how a value is read, which is also what it is measured in.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = {
        float(f"{step * 10.0**decade:.3g}") for decade in range(first, last + 1) for step in DECADE
    }
    chosen = sorted({value for value in steps if low <= value <= high} | {start, *extra})
    options = [(say(value), value) for value in chosen]
    slider = ipywidgets.SelectionSlider(
        options=options, value=start, description=name, layout=_LAYOUT, style=_STYLE
    )
    slider.unit = UNITS[say]
    return slider


def in_steps(
    name: str, low: float, high: float, step: float, start: float, form: str, *, unit: str
) -> Widget:
    """A slider with equal steps; `form` is d3's format of the number, `unit` a value of UNITS."""
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    slider = kind(
        value=start,
        min=low,
        max=high,
        step=step,
        description=name,
        readout_format=form,
        layout=_LAYOUT,
        style=_STYLE,
    )
    slider.unit = unit
    return slider


def choice(name: str, options: Sequence[tuple[str, str]]) -> Widget:
    """A drop-down list of (what is shown, value)."""
    return ipywidgets.Dropdown(options=options, description=name, layout=_LAYOUT, style=_STYLE)


def set_to(setting: Widget) -> str:
    """What one slider is set to, in words."""
    if hasattr(setting, "options"):
        shown = next(label for label, value in setting.options if value == setting.value)
    elif isinstance(setting.value, float):
        shown = f"{setting.value:g}"
    else:
        shown = f"{setting.value:,}"
    return f"{setting.description}: {shown}"


# Numbers as they are read ----------------------------------------------------------------------


def fixed(value: float, places: int) -> str:
    """`value` with `places` decimals and commas, ties rounded up: as JavaScript's toFixed does."""
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)
    return f"{rounded:,}"


def three_digits(value: float) -> str:
    """`value` above 0 with three digits, ties rounded up: as JavaScript's toPrecision does."""
    exact = Decimal(value)
    last = Decimal(1).scaleb(exact.adjusted() - 2)
    return f"{float(exact.quantize(last, rounding=ROUND_HALF_UP)):g}"


def seconds(value: float) -> str:
    """A duration in words: 250 us, 12 ms, 0.40 s, 12.5 s, 305 s, 2.5 h."""
    if value == 0:
        return "0 s"
    if value < 0.000_999_5:
        return f"{three_digits(value * 1e6)} \N{MICRO SIGN}s"
    if value < 0.0995:
        return f"{three_digits(value * 1e3)} ms"
    if value < 9.995:
        return f"{fixed(value, 2)} s"
    if value < 99.95:
        return f"{fixed(value, 1)} s"
    return f"{fixed(value, 0)} s"


def span(value: float) -> str:
    """A chosen duration, short: 10 ms, 1.5 s, 5 min, 2 h."""
    for unit, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if value >= unit and (unit <= 1 or value % unit == 0 or value >= 10 * unit):
            return f"{value / unit:g} {name}"
    return f"{value * 1e6:g} \N{MICRO SIGN}s" if value else "0 s"


def per_second(value: float) -> str:
    """A rate: 1,000 per s, 0.25 per s."""
    return f"{value:,.0f} per s" if value >= 100 else f"{value:.3g} per s"


def percent(share: float) -> str:
    """A share in per cent; 100.0 % and 0.0 % only when it is all or nothing."""
    if 0 < share < 0.000_5:
        return "under 0.1 %"
    if 0.999_5 <= share < 1:
        return "over 99.9 %"
    return f"{fixed(100 * share, 1)} %"


def many(value: float) -> str:
    """A count or a mean count: 2.7, 41, 10,000."""
    return fixed(value, 1) if value < 10 and value != int(value) else fixed(value, 0)


def round_limit(value: float) -> float:
    """The end of an axis that holds `value`: the next of 1, 2, 5 times a power of 10."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10, 20) if step * power >= value)


# What a slider can be measured in, by the function that says its values.
PER_CENT, PURE = "per cent", "a number without a unit"
UNITS: dict[Callable[[float], str], str] = {
    span: "seconds",
    per_second: "per second",
    many: "a count",
    percent: PER_CENT,
    three_digits: PURE,
}
