"""A run to one page: what is on it, what is left out of a long table, and that nothing on it is live."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from pictures import make_groups_out
from poolwise.checks import exact_agreement, groups, leave_group_out
from poolwise.checks.base import FitView, Result
from poolwise.checks.conditions import Condition
from poolwise.checks.gate import ModelCheck, Verdict
from poolwise.checks.group_contrasts import GroupRates
from poolwise.checks.loo import Loo
from poolwise.counts import description
from poolwise.counts.cells import Columns, counts_from_rows
from poolwise.figures.base import Picture
from poolwise.inference.predictive import NewGroup
from poolwise.model.count_model import sites_of
from poolwise.model.priors import prior_values
from poolwise.report.page import RunFacts, render
from support import PRIORS, model_of


def make_summary(labels) -> pd.DataFrame:
    names = ["alpha", *(f"lam.{label}" for label in labels), "mu", "sigma"]
    mean = np.arange(len(names)) + 0.5
    table = pd.DataFrame({"mean": mean, "sd": 0.1, "median": mean}, index=pd.Index(names, name="parameter"))
    table["hdi_3%"], table["hdi_97%"] = mean - 0.2, mean + 0.2
    table = table.assign(mcse_mean=0.001, mcse_sd=0.001, ess_bulk=5000.0, ess_tail=4000.0, r_hat=1.001)
    table.loc["alpha", ["mean", "sd", "mcse_mean", "mcse_sd"]] = np.nan
    return table


COUNT_TABLE = pd.DataFrame({"count": [3, 4, 5], "probability": [0.06, 0.88, 0.06], "cumulative": [0.06, 0.94, 1.0]})


def verdict_of(*failures: str, **figures) -> Verdict:
    """The verdict of one condition that holds and of those that do not, which give these reasons."""
    held = Condition("R-hat, the largest", "1.0010", "at most 1.01", True)
    failed = [Condition(f"condition {i}", "bad", "good", False, reason) for i, reason in enumerate(failures)]
    one = {"r_hat_max": 1.001, "ess_bulk_min": 5000.0, "ess_tail_min": 4000.0, "engine": {}}
    one |= {"sampling": "0 divergences", "pareto_k_max": 0.2, "pareto_k_bad": 0}
    return Verdict((held, *failed), **one | figures)


def view_of(labels=("a", "b"), **changes) -> FitView:
    labels = list(labels)
    rows = len(labels)
    pooling = changes.pop("pooling", "hierarchical")
    given = {
        "counts": counts_from_rows(labels, range(rows), name="shops", columns=Columns("city", "daily_calls", None)),
        "model": model_of(pooling, "poisson"),
        "prior_values": prior_values(PRIORS, sites=sites_of(pooling, "poisson")),
        "tree": xr.DataTree(),
        "summary": make_summary(labels),
        "loo": Loo(-401.25, 9.5, 5.0, 0.04, np.zeros(rows), np.zeros(rows), 0.7, 0),
        "verdict": verdict_of(),
        "new_group": NewGroup(np.ones(3), 1.0, 9.103, 3.86, COUNT_TABLE, True),
    }
    return FitView(**given | changes)


def make_page(labels=("a", "b"), *, pictures=None, tables=None, config="seed: 0\n", commit="abc1234", **changes):
    shown = {
        "rank": (b"\x89PNG one", Picture(Figure(), "First finding. More of it.", None, "Look at lines.", "Rank plot")),
        "energy": (b"\x89PNG two", Picture(Figure(), "Second finding.", None, "Look at shapes.", "Energy plot")),
    }
    run = RunFacts("python -m poolwise.reproduce 0123", config, {"jax": "0.12.1"}, commit)
    return render(view_of(labels, **changes), pictures=pictures or shown, tables=tables, run=run)


def compared(labels, means) -> Result:
    """The result of groups whose draws rise and fall together about these means; alike where the means are."""
    rng = np.random.default_rng(0)
    shift = np.zeros(2000) if len(set(means)) > 1 else rng.normal(size=(len(means), 2000)) * 0.1
    draws = np.array(means)[:, None] + rng.normal(size=2000) + shift
    one, mean = np.ones(len(means)), np.array(means)
    rates = GroupRates(tuple(labels), one, one, one, mean=mean, low=mean - 2, high=mean + 2, draws=draws)
    return groups.result(rates, "city")


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
    headings = re.findall(r'<h2 id="\w+">(.*?)</h2>', make_page())
    assert headings == ["The answer", "Can it be trusted?", "Pictures", "Tables", "How to reproduce it"]


def test_page_sorts_its_pictures_into_sections_and_keeps_unknown_ones():
    names = ["new_group", "energy", "made_up", "prior_predictive", "rank", "counts", "leave_group_out"]
    page = make_page(pictures={name: (b"x", Picture(Figure(), name)) for name in names})
    assert re.findall(r"\(figures/(\w+)\.png\)", page) == [
        *("counts", "prior_predictive", "rank", "energy", "leave_group_out", "new_group", "made_up"),
    ]
    titles = ["The data", "The model", "The prior", "The posterior", "Predictive checks", "A new group", "More"]
    assert [title for title in re.findall(r"<h3 id=.*?>(.*?)</h3>", page) if title in titles] == [*titles, "The data"]


def test_every_link_leads_to_an_anchor_of_the_page():
    outline = Outline(full_page())
    anchors = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    links = [link["href"].removeprefix("#") for link in outline.of("a")]
    assert set(links) <= set(anchors)
    assert len(anchors) == len(set(anchors))
    assert len(links) >= 5


def test_every_heading_below_the_title_has_an_anchor():
    headings = [attributes for tag, attributes in Outline(full_page()).tags if tag in ("h2", "h3")]
    assert all("id" in attributes for attributes in headings)


def test_page_skips_no_level_of_headings():
    levels = [int(tag[1]) for tag, _ in Outline(make_page()).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert max(b - a for a, b in pairwise(levels)) <= 1


def test_page_gives_the_answer_with_its_uncertainty():
    text = flat(make_page())
    assert "from 2.50 (2.30 to 2.70) in city b to 1.50 (1.30 to 1.70) in city a" in text
    assert "overlap" not in text
    assert "expected to be 9.10, with standard deviation 3.86; with probability 90% it lies from 3 to 5" in text
    assert "elpd_loo = -401.25 ± 9.50" in text


def test_answer_begins_with_what_the_joint_draws_say_of_the_question():
    text = section(make_page(results={"groups": compared("ab", [9.0, 9.5])}), "answer")
    assert "The rates differ: it is known with probability above 95% which of the two rates is higher." in text
    assert text.index("The rates differ") < text.index("The rates run from")


def test_answer_of_groups_that_are_alike_claims_neither():
    text = section(make_page(results={"groups": compared("ab", [9.0, 9.0])}), "answer")
    assert "These data do not show that the cities differ, nor that they share one rate: it is not known" in text


def test_answer_of_independent_rates_says_what_the_model_assumes():
    text = section(make_page(pooling="unpooled", results={"groups": compared("ab", [9.0, 9.5])}), "answer")
    assert "This model assumes that the cities have independent rates, so it cannot show that they share one" in text


def test_rates_are_shown_with_their_ranks_and_probabilities_the_highest_first():
    page = make_page(results={"groups": compared("ab", [9.0, 9.5])})
    text = section(page, "answer")
    assert "P(highest) P(lowest) P(above the overall rate)" in text
    # b is higher in all draws; the mean of the table of parameters is 2.50 for b and 1.50 for a
    assert "b 2.500 2.300 2.700 1 to 1 over 99.9% under 0.1% over 99.9%" in text
    assert text.index("b 2.500") < text.index("a 1.500")


def test_page_fetches_nothing_and_runs_nothing():
    page = make_page()
    assert "http" not in page
    assert not Outline(page).of("script") + Outline(page).of("link") + Outline(page).of("iframe")


def test_page_embeds_every_picture_with_an_alternative_text_of_one_sentence():
    images = Outline(make_page()).of("img")
    assert [image["alt"] for image in images] == ["Rank plot: First finding.", "Energy plot: Second finding."]
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)


def test_caption_is_the_finding_and_how_to_read_it_is_folded():
    page = make_page()
    first = re.search(r'<figure id="figure-rank">.*?</figure>', page, re.DOTALL)[0]
    caption, folded = first.split("<details>")  # closed: it has no attribute open
    assert "First finding. More of it." in caption and "Look at lines." not in caption
    assert "<summary>How to read this figure</summary>" in folded and "Look at lines." in folded


def test_a_condition_that_fails_leads_to_its_figure_if_it_is_drawn():
    def row(shown_in: str) -> str:
        verdict = replace(verdict_of("reason"), conditions=(Condition("k", "9", "1", False, "why", shown_in=shown_in),))
        return re.search(r"<tr><th scope=\"row\">k<.*?</tr>", make_page(verdict=verdict), re.DOTALL)[0]

    assert 'no, <a href="#figure-energy">shown</a>' in row("energy")
    assert ">no<" in row("trace") and ">no<" in row("")


@pytest.mark.parametrize("where", ["label", "config", "caption", "reason", "commit"])
def test_page_escapes_what_it_was_given(where):
    evil = "<script>alert(1)</script>"
    changes = {
        "config": {"config": evil},
        "caption": {"pictures": {"rank": (b"x", Picture(Figure(), f'"{evil}', None, evil, evil))}},
        "reason": {"verdict": verdict_of(evil)},
        "commit": {"commit": evil},
    }
    page = make_page([evil, "b"]) if where == "label" else make_page(**changes[where])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_page_says_suspect_in_words_with_every_reason():
    reasons = ("R-hat of mu is 1.300, above 1.01", "7 of 800 transitions diverged")
    text = flat(make_page(verdict=verdict_of(*reasons)))
    assert "! suspect" in text
    assert all(reason in text for reason in reasons)
    assert "✓ trusted" not in text


def test_page_shows_every_condition_of_the_verdict():
    page = make_page(verdict=verdict_of("reason"))
    rows = [re.search(rf"{name}.*?</tr>", page, re.DOTALL)[0] for name in ("R-hat, the largest", "condition 0")]
    assert ">1.0010<" in rows[0] and ">at most 1.01<" in rows[0] and 'class="">yes<' in rows[0]
    assert ">bad<" in rows[1] and ">good<" in rows[1] and 'class="failed">no<' in rows[1]


def test_page_of_a_trusted_fit_fails_nothing():
    assert 'class="failed"' not in make_page()


def test_long_table_shows_the_extremes_and_says_where_the_rest_is():
    page = make_page([f"g{i:03}" for i in range(200)])
    assert page.count("<bdi>g") == 20
    assert ">g009<" in page and ">g190<" in page
    assert ">g010<" not in page and ">g189<" not in page
    assert "the 10 highest and the 10 lowest of 200, the full table is tables/summary.csv" in flat(page)


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
    text = flat(make_page(pooling="unpooled", new_group=prior))
    assert "The data do not inform a new group" in text
    assert "are the prior, not a finding: mean ∞, standard deviation n/a" in text


def test_pooled_page_gives_one_rate():
    summary = make_summary(["a"]).rename(index={"lam.a": "lam"}).loc[["lam"]]
    text = flat(make_page(pooling="pooled", summary=summary))
    assert "one rate for all: 1.50 (1.30 to 1.70) daily calls per row" in text


def test_model_is_written_with_its_priors():
    text = flat(make_page())
    assert "yi ~ Poisson(ri)" in text  # the indices are subscripts
    assert "μ ~ Gamma(concentration 2, rate 0.2)" in text


def test_exposure_is_named_in_the_unit():
    counts = counts_from_rows(["a", "b"], [1, 2], [0.5, 2.0], columns=Columns("city", "calls", "open_hours"))
    assert "calls per unit of open hours" in flat(make_page(counts=counts))


def test_every_heading_cell_of_a_table_has_a_scope():
    assert {cell.get("scope") for cell in Outline(make_page()).of("th")} == {"col", "row"}


def test_page_says_how_to_run_it_again():
    text = Outline(make_page()).text
    for needed in ("python -m poolwise.reproduce 0123", "seed: 0", "jax", "0.12.1", "abc1234"):
        assert needed in text


LEFT_OUT = make_groups_out("ab", [-30.25, -50.5], [0.3, 0.4])
EXACT = pd.DataFrame(
    {
        "fit": [9.1, -400.0, np.nan],
        "exact": [9.25, -400.2, -401.94838],
        "mcse": [0.05, 0.1, np.nan],
        "z": [-3.0, 2.0, np.nan],
    },
    index=["lam.a", "elpd_loo", "log marginal likelihood"],
)


def full_page(**changes) -> str:
    """A page with all that is optional; `exact`, `leave_group_out`, `sensitivity_words` are of results."""
    exact, left_out = changes.pop("exact", EXACT), changes.pop("leave_group_out", LEFT_OUT)
    words = changes.pop("sensitivity_words", ("prior.sigma dominates sigma",))
    psis = Loo(-400.0, 9.5, 5.0, 0.04, np.zeros(2), np.array([0.1, 0.91]), 0.7, 1)
    given = {
        "results": {
            "exact_agreement": exact_agreement.result(comparison_of(exact)),
            "leave_group_out": leave_group_out.result(left_out),
            "power_scaling": Result(lines=words),
        },
        "prior_warnings": ("prior.mu expects <rates> of 1 to 37",),
        "new_group": NewGroup(np.ones(3), 1.0, 9.103, 3.86, COUNT_TABLE, True, ((15, 0.07), (1000, 0.00012))),
        "loo": Loo(-401.25, 9.5, 5.0, 0.04, np.zeros(2), np.zeros(2), 0.7, 0, psis),
    }
    return make_page(**given | changes)


def comparison_of(table: pd.DataFrame) -> exact_agreement.Agreement:
    """The comparison that has this table."""
    return exact_agreement.Agreement(
        table, 0.0, 0.0, -401.9, float(table["z"].abs().max()), 4.0, "exact answer: as it is"
    )


def section(page: str, anchor: str) -> str:
    """The text of the page from a heading of the second level to the next."""
    [part] = [part for part in re.split(r"(?=<h2 )", page) if part.startswith(f'<h2 id="{anchor}"')]
    return flat(re.sub(r"</t[dh]>", r"\g<0> ", part))  # a space between cells


def test_page_without_what_is_optional_speaks_of_none_of_it():
    text = flat(make_page())
    for words in (
        "exact answer",
        "priors suit",
        "a count above",
        "integrated",
        "groups left out",
        "left out:",
        "Further checks",
    ):
        assert words not in text


def test_exact_answer_stands_under_trust_with_its_scores():
    text = section(full_page(), "trust")
    assert (
        "The fit agrees with it: the largest of 2 z-scores is 3.00 (lam.a), and Monte Carlo error explains up to 4.0."
        in text
    )
    assert "lam.a 9.100000 9.250000 -0.15 0.050 -3.00" in text
    assert "elpd_loo -400.0000 -400.2000 0.20 0.10 2.00" in text
    assert "log marginal likelihood n/a -401.9484 n/a n/a n/a" in text


def test_exact_answer_that_the_fit_misses_is_said():
    assert "does not agree with it" in section(full_page(exact=EXACT.assign(z=[-5.0, 2.0, np.nan])), "trust")


def test_exact_table_of_many_keeps_the_largest_scores_and_what_has_none():
    names = [f"lam.g{i:03}" for i in range(200)]
    table = pd.DataFrame({"fit": 1.0, "exact": 1.0, "mcse": 0.1, "z": np.arange(200) / 100}, index=names)
    text = section(full_page(exact=pd.concat([table, EXACT.iloc[2:]])), "trust")
    assert "lam.g199" in text and "lam.g180" in text and "lam.g179" not in text
    assert "log marginal likelihood" in text
    assert "here 21 of 201, with the largest z-scores" in text


def test_groups_left_out_have_their_total_in_the_answer_and_their_table_below():
    page = full_page()
    # se: sqrt(2) times the standard deviation of -30.25 and -50.5; Monte Carlo error: sqrt(0.3^2 + 0.4^2)
    assert "Whole groups left out: -80.75 ± 20.25 (standard error)" in section(page, "answer")
    assert "its Monte Carlo error is 0.50" in section(page, "answer")
    text = section(page, "tables")
    assert "a -30.250 0.30 b -50.500 0.40 all 2 groups -80.750 0.50" in text


def test_groups_left_out_with_a_refit_in_doubt_are_named():
    text = section(full_page(leave_group_out=replace(LEFT_OUT, divergences=np.array([0, 1]))), "tables")
    assert "Not reliable, because their refits miss the conditions: b." in text


def test_priors_that_do_not_suit_are_told_under_trust_in_words():
    text = section(full_page(), "trust")
    assert "prior.mu expects <rates> of 1 to 37" in text
    assert "prior.sigma dominates sigma" in text
    assert "Do the priors suit the data?" not in section(full_page(prior_warnings=(), sensitivity_words=()), "trust")


def test_check_without_a_section_of_its_own_is_shown_with_its_lines_and_tables():
    table = pd.DataFrame({"value": [0.00103, 2.0]}, index=pd.Index(["<x>", "y"], name="thing"))
    text = section(make_page(results={"made_up": Result(lines=("it <holds>",), tables={"made_up": table})}), "trust")
    assert "Further checks it <holds>." in text
    assert "Made up, tables/made_up.csv thing value <x> 0.00103 y 2.00" in text


def test_why_there_is_no_exact_answer_is_said_and_what_was_switched_off():
    none = {"exact_agreement": Result(lines=("no exact answer: too many cells",))}
    text = section(make_page(results=none, switched_off=("leave_group_out",)), "trust")
    assert "Further checks no exact answer: too many cells. Not computed: checks.leave_group_out=false." in text


def test_rate_of_a_thousandth_keeps_its_digits():
    summary = make_summary(["a", "b"])
    summary.loc["lam.a", ["mean", "hdi_3%", "hdi_97%"]] = 0.0010312, 0.0002, 0.002
    assert "a 0.001031 0.0002 0.002000" in section(make_page(summary=summary), "answer")


def test_chance_of_a_large_count_is_tabled():
    text = section(full_page(), "answer")
    assert "15 0.0700 1,000 0.00012" in text


def test_named_group_takes_the_place_of_a_new_one():
    group = NewGroup(np.ones(3), 1.0, 9.103, 3.86, COUNT_TABLE, True, label="b")
    pictures = {"new_group": (b"\x89PNG", Picture(Figure(), "What is expected of b."))}
    page = full_page(new_group=group, pictures=pictures)
    assert "One more count of b" in flat(page)
    assert "A group that is not in the data" not in flat(page)
    assert "One count of b; every count in tables/group.csv" in flat(page)
    assert "A group of the data The prediction for one more count of it." in flat(page)
    assert "The prediction for a group that is not in the data." in flat(full_page(pictures=pictures))


def test_replaced_values_are_told_with_the_k_before():
    text = section(full_page(), "answer")
    assert "values of all 2 rows are computed by integrated importance sampling" in text
    assert (
        "largest Pareto k of Pareto-smoothed importance sampling is 0.91: above 0.4 its sum over rows may be biased"
        in text
    )


FAILED = Condition(
    name="variance / mean within groups",
    value="8.70 (p 0.002)",
    limit="p above 0.002",
    passed=False,
    sentence="within groups, counts vary 8.7 times as much as the model expects",
    remedy=("likelihood=negative_binomial",),
)


def test_a_failed_model_check_stands_at_the_head_and_under_trust_with_its_remedy():
    page = full_page(model_check=ModelCheck((FAILED,)))
    head = flat(page).split("The answer", 1)[0]
    assert "draws trusted" in head and "! model check failed" in head and FAILED.sentence in head
    text = section(page, "trust")
    assert "variance / mean within groups 8.70 (p 0.002) p above 0.002 no" in text
    assert "Try likelihood=negative_binomial, which can describe this." in text


def test_a_model_check_on_suspect_draws_is_not_called_passed():
    passed = replace(FAILED, passed=True, sentence="", remedy=())
    text = section(full_page(model_check=ModelCheck((passed,), draws_are_trusted=False)), "trust")
    assert "model check not checked" in text and "say nothing, because the draws are suspect" in text


def test_a_model_check_that_is_off_is_said():
    assert "checks.model_check=false switched it off" in section(full_page(), "trust")


def test_hint_of_the_data_stands_with_its_tables():
    assert "one rate give about 1, here" in section(full_page(), "tables")


def test_data_tables_show_the_extremes_of_many_groups():
    counts = counts_from_rows([f"g{i:03}" for i in range(200)], range(200))
    text = section(
        full_page(tables={"groups": description.by_group(counts), "counts": description.summary(counts)}), "tables"
    )
    assert "g009" in text and "g190" in text and "g010" not in text
    assert "the 10 lowest and the 10 highest means of 200" in text
