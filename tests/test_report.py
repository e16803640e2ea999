"""A run to one page: what is on it, what is left out of a long table, and that nothing on it is live."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from poolwise.checks import Loo, Verdict
from poolwise.data import Columns, counts_from_rows
from poolwise.predict import NewGroup
from poolwise.report import Limits, render

PRIORS = {
    "mu": {"name": "Gamma", "concentration": 2.0, "rate": 0.2},
    "sigma": {"name": "Exponential", "rate": 1.0},
}


def make_summary(labels) -> pd.DataFrame:
    names = ["alpha", *(f"lam.{label}" for label in labels), "mu", "sigma"]
    mean = np.arange(len(names)) + 0.5
    table = pd.DataFrame({"mean": mean, "sd": 0.1, "median": mean}, index=pd.Index(names, name="parameter"))
    table["hdi_3%"], table["hdi_97%"] = mean - 0.2, mean + 0.2
    table = table.assign(mcse_mean=0.001, mcse_sd=0.001, ess_bulk=5000.0, ess_tail=4000.0, r_hat=1.001)
    table.loc["alpha", ["mean", "sd", "mcse_mean", "mcse_sd"]] = np.nan
    return table


def make_page(labels=("a", "b"), **changes) -> str:
    labels = list(labels)
    rows = len(labels)
    table = pd.DataFrame({"count": [3, 4, 5], "probability": [0.06, 0.88, 0.06]})
    table["cumulative"] = table["probability"].cumsum()
    arguments = {
        "counts": counts_from_rows(labels, range(rows), name="shops", columns=Columns("city", "daily_calls", None)),
        "pooling": "hierarchical",
        "likelihood": "poisson",
        "priors": PRIORS,
        "summary": make_summary(labels),
        "loo": Loo(-401.25, 9.5, 5.0, 0.04, np.zeros(rows), np.zeros(rows), 0.7, 0),
        "verdict": Verdict("trusted", (), 1.001, 5000.0, 4000.0, 0, 0.9, 0, 0.2, 0),
        "limits": Limits(r_hat=1.01, ess=400, bfmi=0.3),
        "new_group": NewGroup(np.ones(3), 1.0, 9.103, 3.86, table, True),
        "pictures": {
            "rank": (b"\x89PNG one", "First caption."),
            "energy": (b"\x89PNG two", "Second caption."),
        },
        "command": "python -m poolwise.reproduce 0123",
        "config": "seed: 0\n",
        "stack": {"jax": "0.12.1"},
        "commit": "abc1234, changed",
    }
    return render(**arguments | changes)


class Outline(HTMLParser):
    """The tags of a page with their attributes, its headings and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def flat(page: str) -> str:
    return " ".join(Outline(page).text.split())


def test_page_asks_the_question_in_the_words_of_the_data():
    assert "<h1>Do 2 cities share one rate of daily calls?</h1>" in make_page()


def test_page_of_one_group_does_not_ask_what_groups_share():
    assert "<h1>At what rate do daily calls occur in the one city?</h1>" in make_page(["a"])


def test_page_keeps_the_order_question_answer_trust_pictures_tables_reproduction():
    headings = re.findall(r"<h2>(.*?)</h2>", make_page())
    assert headings == [
        "The answer",
        "Can it be trusted?",
        "The model",
        "Pictures",
        "Tables",
        "How to reproduce it",
    ]


def test_page_skips_no_level_of_headings():
    levels = [int(tag[1]) for tag, _ in Outline(make_page()).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert max(b - a for a, b in pairwise(levels)) <= 1


def test_page_gives_the_answer_with_its_uncertainty():
    text = flat(make_page())
    assert "from 1.50 (1.30 to 1.70) in city a to 2.50 (2.30 to 2.70) in city b" in text
    assert "the intervals of these two do not overlap" in text
    assert "expected to be 9.10, with standard deviation 3.86; with probability 90% it lies from 3 to 5" in text
    assert "elpd_loo = -401.25 ± 9.50" in text


def test_page_fetches_nothing_and_runs_nothing():
    page = make_page()
    assert "http" not in page
    assert not Outline(page).of("script") + Outline(page).of("link") + Outline(page).of("iframe")


def test_page_embeds_every_picture_with_its_caption_as_alternative_text():
    images = Outline(make_page()).of("img")
    assert [image["alt"] for image in images] == ["First caption.", "Second caption."]
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)


@pytest.mark.parametrize("where", ["label", "config", "caption", "reason", "commit"])
def test_page_escapes_what_it_was_given(where):
    evil = "<script>alert(1)</script>"
    changes = {
        "config": {"config": evil},
        "caption": {"pictures": {"rank": (b"x", f'"{evil}')}},
        "reason": {"verdict": Verdict("suspect", (evil,), 1.0, 1.0, 1.0, 0, 1.0, 0, 0.1, 0)},
        "commit": {"commit": evil},
    }
    page = make_page([evil, "b"]) if where == "label" else make_page(**changes[where])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_page_says_suspect_in_words_with_every_reason():
    reasons = ("R-hat of mu is 1.300, above 1.01", "7 of 800 transitions diverged")
    text = flat(make_page(verdict=Verdict("suspect", reasons, 1.3, 5000.0, 4000.0, 7, 0.9, 0, 0.2, 0)))
    assert "! suspect" in text
    assert all(reason in text for reason in reasons)
    assert "✓ trusted" not in text


def test_gate_fails_a_value_that_is_not_a_number():
    summary = make_summary(["a", "b"])
    summary.loc["mu", "r_hat"] = np.nan  # the largest of the others is 1.001
    row = re.search(r"R-hat, the largest.*?</tr>", make_page(summary=summary), re.DOTALL)
    assert ">nan<" in row[0]
    assert 'class="failed">no<' in row[0]


def test_gate_passes_what_holds_its_limit():
    assert 'class="failed"' not in make_page()


def test_long_table_shows_the_extremes_and_says_where_the_rest_is():
    page = make_page([f"g{i:03}" for i in range(200)])
    assert page.count("<bdi>g") == 20
    assert ">g009<" in page and ">g190<" in page
    assert ">g010<" not in page and ">g189<" not in page
    assert "the 10 lowest and the 10 highest of 200, the full table is tables/summary.csv" in flat(page)


def test_short_table_shows_every_group():
    page = make_page([f"g{i:03}" for i in range(20)])
    assert page.count("<bdi>g") == 20
    assert "lowest" not in page


def test_long_label_is_shortened_in_the_middle():
    page = make_page(["start" + "x" * 300 + "end", "b"])
    assert "x" * 60 not in page
    assert re.search("startx+…x+end", page)


def test_unpooled_page_says_that_a_new_group_is_only_the_prior():
    table = pd.DataFrame({"count": [1], "probability": [1.0], "cumulative": [1.0]})
    prior = NewGroup(np.ones(3), 1.0, np.inf, np.nan, table, False)
    text = flat(make_page(pooling="unpooled", priors={"lam": PRIORS["mu"]}, new_group=prior))
    assert "The data have no answer for a new group" in text
    assert "is the prior, not a finding: mean ∞, standard deviation n/a" in text


def test_pooled_page_gives_one_rate():
    summary = make_summary(["a"]).rename(index={"lam.a": "lam"}).loc[["lam"]]
    text = flat(make_page(pooling="pooled", priors={"lam": PRIORS["mu"]}, summary=summary))
    assert "one rate of 1.50 (1.30 to 1.70) daily calls per row" in text


def test_model_is_written_with_its_priors():
    text = Outline(make_page()).text
    assert "y[i] ~ Poisson(r[i])" in text
    assert "mu ~ Gamma(concentration 2.0, rate 0.2)" in text


def test_exposure_is_named_in_the_unit():
    counts = counts_from_rows(["a", "b"], [1, 2], [0.5, 2.0], columns=Columns("city", "calls", "open_hours"))
    assert "calls per unit of open hours" in flat(make_page(counts=counts))


def test_every_heading_cell_of_a_table_has_a_scope():
    assert {cell.get("scope") for cell in Outline(make_page()).of("th")} == {"col", "row"}


def test_page_says_how_to_run_it_again():
    text = Outline(make_page()).text
    for needed in ("python -m poolwise.reproduce 0123", "seed: 0", "jax", "0.12.1", "abc1234, changed"):
        assert needed in text
