"""Which source the next sample comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction


class Mixture:
    """Shares of the samples, by source: after any number of them each source is within one sample of its share."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """weights: by name, relative to each other; 0 is never drawn. Raises ValueError where none is above 0."""
        given = {name: Fraction(str(weight)) for name, weight in weights.items()}  # no drift, however long the run
        total = sum(given.values())
        if total <= 0 or min(given.values()) < 0:
            raise ValueError(f"need weights of which one is positive and none negative, got {dict(weights)}")
        self.exact = {name: weight / total for name, weight in given.items()}
        self.shares = {name: str(share) for name, share in self.exact.items()}
        """As a file keeps them: what tells one mixture from another."""
        unit = math.lcm(*(share.denominator for share in self.exact.values()))
        self.round = {name: int(share * unit) for name, share in self.exact.items()}
        """Samples of each source after which the order of the sources begins anew."""
        self._names = sorted(name for name, share in self.exact.items() if share)  # whatever the order of writing
        self.only = self._names[0] if len(self._names) == 1 else None
        """The source of all samples, where there is but one."""
        self._weights = [self.round[name] for name in self._names]
        self._total = sum(self._weights)

    def next(self, drawn: Mapping[str, int], number: int) -> str:
        """The source of the ``number``-th sample (from 1). drawn: samples of each source before it.

        Tijdeman's rule (The chairman assignment problem, 1980): of the sources that may take a sample without running
        ahead, the one that would soonest fall behind. It keeps every source within 1 - 1 / (2n - 2) of its share;
        taking the largest deficit does not (1.2 samples with eight sources). All quantities are times
        total * (2n - 2), so that they stay integers.
        """
        if self.only is not None:
            return self.only
        scale = 2 * len(self._names) - 2
        best, best_slack, best_weight = "", 0, 1
        for name, weight in zip(self._names, self._weights, strict=True):
            deficit = scale * (weight * number - drawn[name] * self._total)
            if deficit < self._total:
                continue
            slack = (scale - 1) * self._total - deficit
            if not best or slack * best_weight < best_slack * weight:
                best, best_slack, best_weight = name, slack, weight
        return best


def mixtures(
    names: Sequence[str], weights: Sequence[float], stages: Sequence[tuple[int, Mapping[str, float]]] = ()
) -> list[tuple[int, Mixture]]:
    """The mixture to begin with and those of later stages, each with the number of samples (of all sources) before it.

    stages: (samples before it, weights by name), in order; a source that a stage does not name keeps its weight.
    """
    now = dict(zip(names, weights, strict=True))
    found = [(0, Mixture(now))]
    for before, changed in stages:
        now = {**now, **changed}
        found.append((before, Mixture(now)))
    return found
