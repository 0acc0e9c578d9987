"""Documents that a unit could not use: how many of each reason, and the first places, to be put together in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trainer.data.readers.found import Aside, Bad, Place, Reason
from trainer.data.skipped import PLACES

KEPT = 10_000
"""Places that are kept of a unit, beside the first of each reason."""


class Passed(NamedTuple):
    """One that was passed over. aside: it cost no document. file: below the root. piece: its number in the unit."""

    words: str
    remedy: str
    field: str
    aside: bool
    file: str
    unit: str
    number: int
    piece: int

    def found(self, root: str, lines: int) -> Bad | Aside:
        """As a reader had it. lines: that lie before its piece in the file."""
        file = f"{root}/{self.file}" if root else self.file
        place = Place(file, self.unit, self.number + (lines if self.unit == "line" else 0))
        return Aside(self.words, place) if self.aside else Bad(Reason(self.words, self.remedy, self.field), place)


@dataclass
class PassedOver:
    """counts: by reason, those that cost a document. asides: the others."""

    counts: dict[str, int] = field(default_factory=dict)
    asides: dict[str, int] = field(default_factory=dict)
    kept: list[Passed] = field(default_factory=list)

    @staticmethod
    def of(value: dict[str, Any]) -> PassedOver:
        """From what asdict made of one."""
        return PassedOver(value["counts"], value["asides"], [Passed(*row) for row in value["kept"]])

    @property
    def bad(self) -> int:
        """Documents that could not be used."""
        return sum(self.counts.values())

    def take(self, found: Bad | Aside, root: str, piece: int) -> None:
        """Count it. root: the directory that all files of the source lie below; piece: where in the unit."""
        aside = isinstance(found, Aside)
        reason = Reason(found.words, "", "") if isinstance(found, Aside) else found.reason
        counts = self.asides if aside else self.counts
        counts[reason.words] = counts.get(reason.words, 0) + 1
        if len(self.kept) < KEPT or counts[reason.words] <= PLACES:
            below = found.place._replace(unit="", number=0).below(root)
            place = found.place
            self.kept.append(Passed(*reason, aside, below, place.unit, place.number, piece))

    def beyond(self) -> Iterator[tuple[bool, str, int]]:
        """Whether aside, words and number of those whose places are not kept."""
        for aside, counts in ((False, self.counts), (True, self.asides)):
            for words, number in counts.items():
                kept = sum(1 for one in self.kept if (one.aside, one.words) == (aside, words))
                if number > kept:
                    yield aside, words, number - kept
