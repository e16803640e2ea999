"""The poolings. To add one: a file with an instance, its line here, `conf/pooling/<name>.yaml`."""

from poolwise.model.poolings.base import Pooling
from poolwise.model.poolings.hierarchical import HIERARCHICAL
from poolwise.model.poolings.hierarchical_log_normal import HIERARCHICAL_LOG_NORMAL
from poolwise.model.poolings.pooled import POOLED
from poolwise.model.poolings.unpooled import UNPOOLED

EVERY_POOLING: tuple[Pooling, ...] = (
    POOLED,
    UNPOOLED,
    HIERARCHICAL,
    HIERARCHICAL_LOG_NORMAL,
)  # of those with one name and several choices of `population`, the default first
POOLINGS: dict[str, Pooling] = {}
for _each in EVERY_POOLING:
    POOLINGS.setdefault(_each.name, _each)


def populations(name: str) -> list[str]:
    """The choices of `pooling.population` of a pooling, the default first; empty if there is none."""
    return [each.population for each in EVERY_POOLING if each.name == name and each.population is not None]


def pooling_of(name: str, population: str | None = None) -> Pooling:
    """The pooling with this name and choice; None is its default."""
    chosen = (each for each in EVERY_POOLING if each.name == name and each.population == population)
    return POOLINGS[name] if population is None else next(chosen)
