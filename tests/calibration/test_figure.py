"""The picture of a calibration: its curves, its band and what it says of a quantity that is off."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from poolwise.calibration import ranks as sbc
from poolwise.calibration.figure import ecdf_pit
from poolwise.figures.style import BLUE, MAX_PANELS, VERMILLION


@pytest.fixture(scope="module")
def ranks() -> np.ndarray:
    """Two hundred simulations of 20 quantities; of the last one small values are left out."""
    found = np.random.default_rng(0).integers(0, 20, (200, 20))
    found[:60, 19] = 0
    return found


def drawn(ranks):
    names = tuple(f"lam.{q}" for q in range(ranks.shape[1]))
    return ecdf_pit(ranks, sbc.judge(ranks, names, num_draws=19), num_draws=19, title="title")


def curves(figure):
    """Title -> (differences, colour) of each panel."""
    return {
        axes.get_title().split()[0]: (axes.get_lines()[1].get_ydata(), to_hex(axes.get_lines()[1].get_color()).upper())
        for axes in figure.axes
    }


def test_a_panel_shows_the_difference_of_the_ecdf(ranks):
    found = curves(drawn(ranks[:, :3]))
    assert list(found) == ["lam.0", "lam.1", "lam.2"]
    np.testing.assert_allclose(found["lam.1"][0], sbc.differences(ranks[:, 1], num_draws=19))


def test_a_quantity_that_is_off_is_told_by_colour_and_words(ranks):
    figure = drawn(ranks[:, 16:])
    assert [colour for _, colour in curves(figure).values()] == [BLUE, BLUE, BLUE, VERMILLION]
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["", "", "", "small values are missed"]


def test_of_many_quantities_the_worst_are_shown(ranks):
    found = curves(drawn(ranks))
    assert len(found) == MAX_PANELS
    assert "lam.19" in found
