"""The shared style of all figures: palette, panels, axes, ticks and legends.

Figures are plain `Figure` objects without pyplot, so no backend is chosen and no figure stays open.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.image
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from poolwise.text import compact

if TYPE_CHECKING:
    from arviz_plots import PlotCollection

# Okabe and Ito (2008): colours that are distinct for the colour-blind.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
CHAINS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK)
WIDTH, DPI = 9.6, 110  # inches, pixels per inch: 1056 pixels across
MAX_PANELS, MAX_LABELS, MAX_BARS, MAX_STEPS, MAX_NAMED = 12, 40, 60, 400, 5
MAX_MARKS = 2000  # groups in one picture, of which no more can be told apart


def png(figure: Figure) -> bytes:
    """Render a figure as the bytes of a PNG file.

    Layout and drawing in one pass: `savefig` draws a figure twice, the first time only for its layout.
    """
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, canvas.buffer_rgba(), format="png", dpi=DPI, pil_kwargs={"compress_level": 4})
    return buffer.getvalue()


def blank(height: float, width: float = WIDTH) -> Figure:
    """Make an empty figure of this height and width in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))


def single(height: float, title: str) -> tuple[Figure, Axes]:
    """Make a figure of one panel."""
    figure = blank(height)
    axes = figure.subplots()
    axes.set_title(title, fontsize=12)
    return figure, axes


def panels(
    number: int, title: str, *, columns: int = 4, height: float = 1.9, x: str = "", shared: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make a figure of this many panels, in rows as even as possible, the lowest of each column with a label.

    Parameters
    ----------
    height : of a row, in inches
    shared : whether the panels share axes, labelled once per row and column
    """
    rows = -(-number // columns)
    columns = -(-number // rows)
    figure = blank(max(3.4, 1.2 + height * rows))
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).ravel())
    for axes in grid[number:]:
        axes.remove()
    for place, axes in enumerate(grid[:number]):
        is_lowest = place + columns >= number
        style(axes, x if is_lowest else "")
        axes.xaxis.label.set_size(9)
        axes.tick_params(labelsize=8)
        if shared:
            axes.tick_params(labelbottom=is_lowest)
    figure.suptitle(title, fontsize=12)
    return figure, grid[:number]


def style(axes: Axes, x: str = "", y: str = "") -> None:
    """Apply the common style to axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(axis.get_major_formatter(), ScalarFormatter):  # not where labels or a scale were given
            axis.set_major_formatter(lambda value, _: compact(value))
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)


def collection(
    figure: Figure, facets: Mapping[str, Sequence[str]], axes: Sequence[Axes], data: xr.Dataset, **look: Any
) -> "PlotCollection":
    """Let ArviZ draw in these axes: it opens no figure itself, so pyplot chooses no backend and keeps no figure.

    Parameters
    ----------
    facets : the dimension of the axes, with its coordinates
    data : with the dimensions of the aesthetics
    look : `aes` and the values of each aesthetic, as for `arviz_plots.PlotCollection`
    """
    from arviz_plots import PlotCollection  # at the first use: the import takes 0.2 s

    whole = np.empty((), dtype=object)
    whole[()] = figure
    viz = xr.Dataset({"figure": ((), whole), "plot": (tuple(facets), np.asarray(axes))}, coords=facets)
    return PlotCollection(data, xr.DataTree(viz), backend="matplotlib", **look)


def legend_of_chains(figure: Figure, axes: Axes, num_chains: int) -> None:
    """Place the legend of the chains at the side, if it can distinguish them."""
    if 1 < num_chains <= len(CHAINS):
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)


def legend_below(figure: Figure, *panels: Axes) -> None:
    """Place one legend of these panels below all of them."""
    named = [axes.get_legend_handles_labels() for axes in panels]
    legend = {name: handle for handles, names in named for handle, name in zip(handles, names, strict=True)}
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=4, frameon=False)


def whole_numbers(axes: Axes, most: int = 10) -> None:
    """Place the ticks of a count at integers; call it when the limits are known."""
    large = max(axes.get_xlim()) >= 1e4  # longer labels, and halves of 5 are whole
    steps = [1, 2, 2.5, 5, 10] if large else [1, 2, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(nbins=most - large, integer=True, steps=steps, min_n_ticks=1))
    axes.xaxis.set_major_formatter(lambda value, _: compact(value))


def square_root(axes: Axes, top: float) -> None:
    """Set a square-root y scale from 0 to top, with few round ticks."""
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    axes.set_ylim(0, top)
    steps = [0]
    for step in (m * 10**n for n in range(16) for m in (1, 2, 5)):
        if step < top and np.sqrt(step) - np.sqrt(steps[-1]) > 0.07 * np.sqrt(top):
            steps.append(step)
    axes.set_yticks(steps, [compact(step) for step in steps])


def logarithmic(axes: Axes, which: str, *, most: int | None = None) -> None:
    """Set a logarithmic x or y scale with ticks at 1, 2 and 5 times powers of ten; `most`: only so many powers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if most is None else LogLocator(numticks=most))
    axis.set_major_formatter(lambda value, _: compact(value))
    axis.set_minor_locator(NullLocator())


def density(axes: Axes, values: np.ndarray, edges: np.ndarray, *, is_logarithmic: bool = False, **look: Any) -> None:
    """Draw the density of these values, or of their logarithm; those beyond the edges count but are not drawn."""
    widths = np.diff(np.log(edges) if is_logarithmic else edges)
    heights = np.histogram(values, bins=edges)[0] / (values.size * widths)
    axes.stairs(heights, edges, **look)
