"""A new group, or a named one, to a picture."""

import numpy as np
import pytest

from pictures import (
    make_counts,
    make_new_group,
    make_tree,
    picture,
)
from poolwise.inference.predictive import NewGroup


def test_new_group_caption_gives_the_interval_of_its_table():
    new = make_new_group(rate=9.0)
    low, high = (int(new.table["count"][(new.table["cumulative"] >= q).argmax()]) for q in (0.05, 0.95))
    caption = picture("new_group", make_tree(), new_group=new).caption
    assert f"one count of it lies from {low} to {high} with probability 90%" in caption
    assert f"The rate of a new group has the median {np.quantile(new.rate, 0.5):.2f}" in caption


def test_new_group_of_an_unpooled_model_is_called_the_prior():
    result = picture("new_group", make_tree(pooling="unpooled"))
    assert result.figure.get_suptitle() == "A new group: the data do not inform it, this is only the prior"
    assert result.caption.endswith(", by the prior alone.")
    assert "Only the prior is shown" in result.how_to_read


def test_new_group_of_a_pooled_model_has_the_rate_of_all():
    assert "the one rate of all" in picture("new_group", make_tree(pooling="pooled")).how_to_read


def test_named_group_is_in_the_title_and_the_caption():
    result = picture("new_group", make_tree(["a", "$b$"]), new_group=make_new_group(label="$b$"))
    assert result.figure.get_suptitle() == "What does the model expect of $b$?"
    assert "The rate of $b$, a group of the data, has the median " in result.caption


def test_named_group_that_is_a_number_is_called_by_its_column():
    counts = make_counts(["1", "2"], columns=("shop", "calls", None))
    result = picture("new_group", make_tree(["1", "2"]), counts, new_group=make_new_group(label="2"))
    assert result.figure.get_suptitle() == "What does the model expect of shop 2?"
    assert "The rate of shop 2, a group of the data, has the median " in result.caption


def test_new_group_heights_sum_to_one_where_a_row_stands_for_many_counts():
    new = make_new_group(rate=300.0)
    coarse = new.table.iloc[9::10].reset_index(drop=True)
    coarse["probability"] = coarse["cumulative"].diff().fillna(coarse["cumulative"])
    result = picture("new_group", make_tree(), new_group=NewGroup(new.rate, 1.0, 300.0, 300.0, coarse, True))
    steps = result.figure.axes[1].patches[0].get_data()
    # the first row stands for its own count alone: what lies below is not drawn
    assert np.sum(steps.values[1:] * np.diff(steps.edges)[1:]) == pytest.approx(coarse["probability"][1:].sum())
