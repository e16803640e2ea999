"""Power-scaling sensitivities to a picture."""

import numpy as np
import pandas as pd

from pictures import make_tree, picture, texts


def table(**changes) -> pd.DataFrame:
    """As `sensitivity.power_scaling` gives it: parameters as index, a column a prior."""
    names = ["mu", "sigma", "lam.a", "lam.b", "lam.c"]
    found = pd.DataFrame({"prior.mu": 0.01, "prior": 0.02, "likelihood": 0.3}, index=pd.Index(names, name="parameter"))
    found["diagnosis"] = "-"
    for name, (prior, likelihood, diagnosis) in changes.items():
        found.loc[name, ["prior", "likelihood", "diagnosis"]] = [prior, likelihood, diagnosis]
    return found


def test_sensitivity_names_what_is_flagged_and_nothing_else():
    result = picture("sensitivity", make_tree(), sensitivity=table(sigma=(0.2, 0.4, "potential prior-data conflict")))
    assert "The prior matters most for sigma (0.200); flagged: sigma (potential" in result.caption
    assert [text for text in texts(result) if "conflict" in text] == ["potential prior-data conflict"]


def test_sensitivity_without_a_flag_says_so():
    assert "no parameter is flagged" in picture("sensitivity", make_tree(), sensitivity=table()).caption


def test_sensitivity_that_is_not_known_is_flagged_and_not_ranked():
    unknown = table(mu=(np.nan, 0.4, "not known: the weights cannot be smoothed"), sigma=(0.03, 0.2, "-"))
    caption = picture("sensitivity", make_tree(), sensitivity=unknown).caption
    assert "matters most for sigma" in caption
    assert "flagged: mu (not known" in caption
    nothing = unknown.assign(prior=np.nan)
    assert (
        "It is not known how much the prior matters" in picture("sensitivity", make_tree(), sensitivity=nothing).caption
    )


def test_sensitivity_dots_lie_at_their_values():
    axes = picture("sensitivity", make_tree(), sensitivity=table(mu=(0.11, 0.22, "-"))).figure.axes[0]
    dots = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert (dots["prior"][0], dots["likelihood"][0]) == (0.11, 0.22)
