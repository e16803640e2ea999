"""Which groups differ: ranks, contrasts and their sentences, from the joint draws of the rates.

The sentences say which rates are the highest and the lowest, which pairs are decided and which groups cannot be told
apart, by the rules of `group_contrasts`. They hold given the model: whether all groups share one rate is a question of
comparing models, and a model with one rate has no groups to rank.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.group_contrasts import (
    DECIDED,
    PAIRS,
    GroupRates,
    contrasts,
    group_rates,
    indistinct,
    is_decided,
    ranking,
)
from poolwise.text import NAMED, listing, number_of, one_line, plural, share, short, words_of

SETS = 3  # sets of groups that cannot be told apart, in a sentence
RESOLUTION = 1e-3  # of a probability in a sentence, which is a share of draws


@dataclass(frozen=True)
class GroupsFound:
    """The rates of the groups compared.

    Attributes
    ----------
    ranking, contrasts : as in `group_contrasts`
    noun : what a group is, as the data name it
    """

    rates: GroupRates
    ranking: pd.DataFrame
    contrasts: pd.DataFrame
    noun: str

    @property
    def num_decided(self) -> int:
        """Rows of the contrasts with a known order of the two rates."""
        return int(is_decided(self.contrasts["p_greater"]).sum())

    @property
    def is_pairwise(self) -> bool:
        """Whether the contrasts are all pairs of groups, not every group against the overall rate."""
        return len(self.ranking) <= PAIRS

    @property
    def decided(self) -> str:
        """How many contrasts are decided."""
        p, certain = self.contrasts["p_greater"], f"with probability above {DECIDED:.0%}"
        if not self.is_pairwise:
            above, below = int((p > DECIDED).sum()), int((p < 1 - DECIDED).sum())
            groups = f"{above:,} of {len(p):,} {plural(self.noun)}"
            return f"{groups} have a rate above the overall rate and {below:,} below it, each {certain}"
        if len(p) == 1:
            return f"it is {'known' if self.num_decided else 'not known'} {certain} which of the two rates is higher"
        pairs = f"{self.num_decided} of {len(p)} pairs of {plural(self.noun)}"
        return f"it is known {certain} which of two rates is higher for {pairs}"

    @property
    def extremes(self) -> str:
        """Which rates are the highest and the lowest."""
        words = self._extreme("p_highest", "highest")
        return words if len(self.ranking) == 2 else f"{words}; {self._extreme('p_lowest', 'lowest')}"

    @property
    def alike(self) -> str:
        """The groups that cannot be told apart; empty if there are none, or too many groups to compare all pairs."""
        if not self.is_pairwise:
            return ""
        order = self.rates.order
        greater = self.rates.greater(order)
        sets = indistinct(greater)
        if not sets:
            return ""
        if len(sets) == 1 and len(sets[0]) == len(order):
            return f"no two of the {len(order)} {plural(self.noun)} can be told apart"
        if words := self._higher(greater, sets):
            return words
        sets_named = [self._some([self.rates.labels[g] for g in order[each.start : each.stop]]) for each in sets]
        more = f"; and {number_of(len(sets_named) - SETS, 'more set')}" if len(sets_named) > SETS else ""
        return f"{plural(self.noun)} that cannot be told apart: {'; '.join(sets_named[:SETS])}{more}"

    def _higher(self, greater: np.ndarray, sets: list[range]) -> str:
        """The groups that few others are known to exceed, if the sets of neighbours do not say it all."""
        is_open = ~is_decided(greater)
        for each in sets:
            is_open[each.start : each.stop, each.start : each.stop] = False
        labels = [self.rates.labels[g] for g in self.rates.order]
        lower = {labels[i]: [labels[j] for j in np.flatnonzero(row > DECIDED)] for i, row in enumerate(greater)}
        known = {label: others for label, others in lower.items() if others}
        says_all = not is_open[np.triu_indices(len(labels), 1)].any() and max(map(len, sets)) <= 2 * NAMED
        if says_all or len(known) > SETS:
            return ""
        sentences = [
            f"{named(label, self.noun)} has a higher rate than {listing(list(map(name_of, others)))}"
            for label, others in known.items()
        ]
        return f"{'; '.join(sentences)}; no other two {plural(self.noun)} can be told apart"

    @property
    def lines(self) -> tuple[str, ...]:
        """All sentences."""
        return tuple(each for each in (self.extremes, self.decided, self.alike) if each)

    def _extreme(self, column: str, what: str) -> str:
        """The most probable group at an end or, if none is probable enough, the few that it is among."""
        p = self.ranking[column].sort_values(ascending=False, kind="stable")
        likely = [f"{name_of(label)} ({probability(value)})" for label, value in p.head(NAMED).items()]
        if p.iloc[0] > DECIDED:
            return f"{named(p.index[0], self.noun)} has the {what} rate with probability {probability(p.iloc[0])}"
        among = 1 + int(np.searchsorted(p.cumsum(), DECIDED))  # groups that have it with probability `DECIDED`
        if among > NAMED:
            return f"any of {among} {plural(self.noun)} may have the {what} rate, most probably {likely[0]}"
        return f"{self.noun} {', '.join(likely[: among - 1])} or {likely[among - 1]} has the {what} rate"

    def _some(self, labels: list[str]) -> str:
        names = list(map(name_of, labels))
        return listing(names if len(names) <= 2 * NAMED else [*names[:NAMED], f"{len(names) - NAMED} more"])


def run(view: FitView, _: Settings) -> Result:
    """Ranks and contrasts of the groups."""
    rates = group_rates(view.posterior, view.cells, view.summary)
    return Result() if rates is None else result(rates, view.counts.columns.group)


CHECK = Check("groups", "groups", run)


def result(rates: GroupRates, column: str) -> Result:
    """The result of these rates; `column` names what a group is."""
    found = GroupsFound(rates, ranking(rates), contrasts(rates), words_of(column))
    return Result(lines=found.lines, tables={"ranking": found.ranking, "contrasts": found.contrasts}, value=found)


def named(label: object, noun: str) -> str:
    """A group with its kind, unless its label says it."""
    name = name_of(label)
    return name if noun.lower() in name.lower() else f"{noun} {name}"


def name_of(label: object) -> str:
    """A label in a sentence: on one line, and in quotation marks if it has a comma or a semicolon."""
    text = one_line(short(str(label)))
    return f"“{text}”" if {",", ";"} & set(text) else text


def probability(value: float) -> str:
    """A share of draws as a probability: never exactly 0% or 100%."""
    return share(min(max(float(value), RESOLUTION / 2), 1 - RESOLUTION / 2))
