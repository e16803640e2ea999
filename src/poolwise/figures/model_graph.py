"""The model as a graph of its distributions, drawn by Graphviz if installed, otherwise in words."""

import io
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.image
import numpy as np

from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.style import DPI, WIDTH, blank
from poolwise.text import listing

__all__ = ["lines"]

GRAPH = (
    "An arrow leads from a quantity to those drawn or computed from it. A box contains the quantities that exist once "
    "per group, or per row. Grey quantities are observed; those with a dashed outline are computed, not drawn."
)
FONT = "DejaVu Sans"
LEGEND = "distribution_description_node"  # NumPyro's name for the node with the distributions


@figure(
    "model",
    kind="Graph of the model",
    how_to_read="Look for the dependencies of each quantity. The lines give the distributions with their parameters.",
)
def _model(fit: Drawing) -> Picture:
    relations = _relations(fit)
    text = lines(relations, fit.view.prior_values)
    shows = _shows(relations, fit.view.prior_values, fit.view.model.likelihood.name.replace("_", " "))
    image, missing = _image(fit, text)
    if image is None:
        figure = blank(1.1 + 0.3 * len(text))
        figure.text(0.04, 0.82, "\n".join(text), va="top", fontsize=12, linespacing=1.5, parse_math=False)
        figure.suptitle("What depends on what?", fontsize=12)
        return Picture(figure, f"{shows} It is in words because {missing}; with it the figure is a graph.")
    height, width = image.shape[:2]
    figure = blank(height / DPI + 0.6)
    figure.set_layout_engine("none")
    pixels = (WIDTH * DPI - width) // 2
    figure.figimage(image, xo=max(0, int(pixels)), yo=15)
    figure.suptitle("What depends on what?", fontsize=12)
    return Picture(figure, shows, how_to_read=GRAPH)


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
    return (np.arange(size), np.ones(size), fit.view.prior_values, size), {"count": np.zeros(size)}


def _relations(fit: Drawing) -> dict[str, Any]:
    from numpyro.infer.inspect import get_model_relations

    return get_model_relations(fit.view.model.generative, *_arguments(fit))


def _image(fit: Drawing, text: Sequence[str]) -> tuple[np.ndarray | None, str]:
    """The graph in pixels, or why there is none."""
    import numpyro

    model = fit.view.model
    try:
        graph = numpyro.render_model(model.generative, *_arguments(fit), render_distributions=True, render_params=True)
        graph.graph_attr.update(dpi=str(DPI), fontname=FONT, fontsize="10", ranksep="0.4")
        graph.node_attr.update(fontname=FONT, fontsize="11", width="1.2")
        graph.node(LEGEND, label="".join(f"{line}\\l" for line in text), shape="plaintext")
        drawn = graph.pipe(format="png")
        width = int.from_bytes(drawn[16:20])  # in the IHDR chunk
        if width > (room := int(WIDTH * DPI) - 20):
            graph.graph_attr["dpi"] = str(DPI * room // width)
            drawn = graph.pipe(format="png")
    except ImportError:
        return None, "the Python package graphviz is not installed"
    except (RuntimeError, OSError, subprocess.SubprocessError):
        return None, "Graphviz's program dot does not run on this machine"
    return matplotlib.image.imread(io.BytesIO(drawn)), ""
