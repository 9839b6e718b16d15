"""Every packing rule by name: one static table, one row a rule. A new rule is a file in `rules` and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from placement.packing.duals import Stock, worths_of
from placement.packing.fleet import PackingError
from placement.packing.fragmentation import Fragmentation, Typical
from placement.packing.rules.best_fit import BestFit
from placement.packing.rules.clustering import Clustering
from placement.packing.rules.dot_product import DotProduct
from placement.packing.rules.fgd import Fgd
from placement.packing.rules.packing import Packing
from placement.packing.rules.priced_fgd import PricedFgd
from placement.packing.rules.random_choice import RandomChoice
from placement.packing.rules.rule import Rule
from placement.packing.worth import Worth


class Setting(NamedTuple):
    """What rules are made from: the typical pods, every shape of the workload, products, like machines, randomness."""

    typical: Sequence[Typical]
    workload: Sequence[Typical]
    kinds: Sequence[str]
    stocks: Sequence[Stock]
    generator: np.random.Generator


def _priced(setting: Setting) -> Rule:
    widest = max((stock.gpus for stock in setting.stocks), default=1)
    worth = Worth(worths_of(setting.workload, setting.stocks), setting.kinds, widest)
    return PricedFgd(Fragmentation(setting.typical, setting.kinds), worth)


RULES: Mapping[str, Callable[[Setting], Rule]] = {
    "random": lambda setting: RandomChoice(setting.generator),
    "dotprod": lambda _: DotProduct(),
    "clustering": lambda _: Clustering(),
    "packing": lambda _: Packing(),
    "bestfit": lambda _: BestFit(),
    "fgd": lambda setting: Fgd(Fragmentation(setting.typical, setting.kinds)),
    "ours": _priced,
}
"""Name → how it is made."""


def rule_of(name: str, setting: Setting) -> Rule:
    """The rule of that name. Raises: PackingError for an unknown name; DualError where its programme cannot be solved."""
    if name not in RULES:
        raise PackingError(f"there is no packing rule {name!r}; choose one of {', '.join(RULES)}")
    return RULES[name](setting)
