"""The mixture of sources and the global cursor: which sample comes next, whatever the number of ranks and workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from trainer.data.permutation import Permutation, seed_from
from trainer.errors import DataError, Problem


@dataclass(frozen=True)
class Cursor:
    """How far the global order has come: samples drawn in all, and from each source by name."""

    drawn: int
    per_source: dict[str, int]

    def to_json(self) -> dict[str, object]:
        """Plain values for a JSON file."""
        return {"drawn": self.drawn, "per_source": dict(self.per_source)}

    @staticmethod
    def from_json(value: dict[str, object]) -> Cursor:
        """The inverse of to_json. Raises DataError when the value does not add up."""
        drawn, per_source = value.get("drawn"), value.get("per_source")
        if isinstance(drawn, int) and isinstance(per_source, dict):
            counts = per_source.values()
            if all(isinstance(count, int) and count >= 0 for count in counts) and drawn == sum(counts):
                return Cursor(drawn, dict(per_source))
        rule = "a cursor has drawn = the sum of per_source"
        raise DataError(Problem("cursor", value, rule, "resume from another checkpoint"))


class Draw(NamedTuple):
    """The `number`-th sample drawn from source `source` (both from 0)."""

    source: int
    number: int


class GlobalOrder:
    """The endless order of samples, over all sources and epochs.

    After any number of samples, each source is within one sample of its share. Within a source every epoch is a new
    permutation of all its samples.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[float], sizes: Sequence[int], seed: int) -> None:
        """sizes: samples per epoch of each source. A source with weight 0 is never drawn."""
        exact = [Fraction(str(weight)) for weight in weights]  # integers below: no drift, however long the run
        unit = math.lcm(*(weight.denominator for weight in exact))
        self._weights = [int(weight * unit) for weight in exact]
        self._total = sum(self._weights)
        self._active = [i for i, weight in enumerate(self._weights) if weight > 0]
        if not self._active or min(self._weights) < 0 or any(sizes[i] < 1 for i in self._active):
            raise ValueError(f"need positive weights and sizes, got {weights} and {sizes}")
        self._names = list(names)
        self._sizes = list(sizes)
        self._seed = seed
        self._permutations: dict[int, tuple[int, Permutation]] = {}

    def start(self) -> Cursor:
        """Before the first sample."""
        return Cursor(0, dict.fromkeys(self._names, 0))

    def take(self, cursor: Cursor, count: int) -> tuple[list[Draw], Cursor]:
        """The next `count` samples after the cursor, and the cursor after them."""
        if set(cursor.per_source) != set(self._names):
            rule = f"the saved data order knows the sources {', '.join(cursor.per_source)}"
            remedy = "resume with the same source names, or start a new run from the weights"
            raise DataError(Problem("data.sources", self._names, rule, remedy))
        drawn = [cursor.per_source[name] for name in self._names]
        draws = []
        for number in range(cursor.drawn + 1, cursor.drawn + count + 1):
            source = self._next(drawn, number)
            draws.append(Draw(source, drawn[source]))
            drawn[source] += 1
        return draws, Cursor(cursor.drawn + count, dict(zip(self._names, drawn, strict=True)))

    def sample(self, draw: Draw) -> int:
        """The index, within its source, of the sample that a draw stands for."""
        epoch, place = divmod(draw.number, self._sizes[draw.source])
        known = self._permutations.get(draw.source)
        if known is None or known[0] != epoch:
            permutation = Permutation(self._sizes[draw.source], seed_from(self._seed, draw.source, epoch))
            known = self._permutations[draw.source] = (epoch, permutation)
        return known[1](place)

    def _next(self, drawn: list[int], number: int) -> int:
        """The source of the `number`-th sample (from 1).

        Tijdeman's rule (The chairman assignment problem, 1980): of the sources that may take a sample without running
        ahead, the one that would soonest fall behind. It keeps every source within 1 - 1 / (2n - 2) of its share;
        taking the largest deficit does not (1.2 samples with eight sources). All quantities are times
        total * (2n - 2), so that they stay integers.
        """
        if len(self._active) == 1:
            return self._active[0]
        scale = 2 * len(self._active) - 2
        best, best_slack, best_weight = -1, 0, 1
        for i in self._active:
            deficit = scale * (self._weights[i] * number - drawn[i] * self._total)
            if deficit < self._total:
                continue
            slack = (scale - 1) * self._total - deficit
            if best < 0 or slack * best_weight < best_slack * self._weights[i]:
                best, best_slack, best_weight = i, slack, self._weights[i]
        return best
