"""The poolings. To add one: a file with an instance, its line here, `conf/pooling/<name>.yaml`."""

from poolwise.model.poolings.base import Pooling
from poolwise.model.poolings.hierarchical import HIERARCHICAL
from poolwise.model.poolings.pooled import POOLED
from poolwise.model.poolings.unpooled import UNPOOLED

POOLINGS: dict[str, Pooling] = {each.name: each for each in (POOLED, UNPOOLED, HIERARCHICAL)}
