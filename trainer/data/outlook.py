"""How often each source is read, told before training begins."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.data.cursor import Cursor
from trainer.data.order import GlobalOrder
from trainer.errors import DataError, Problem

WORN = 4
"""Epochs up to which repeated text is worth about as much as new text (Muennighoff et al. 2023, Scaling
Data-Constrained Language Models, section 5)."""


def outlook(order: GlobalOrder, cursor: Cursor, samples: int, most: float | None) -> Iterator[str]:
    """A line for each source: epochs seen, and by the end of training.

    samples: of the whole training. most: data.max_epochs; DataError where a source would be read more often.
    """
    now, then = order.epochs(cursor.per_source), order.epochs(order.ahead(cursor, samples))
    if most is not None and (over := {name: epochs for name, epochs in then.items() if epochs > most}):
        shown = ", ".join(f"{name} {epochs:.2f} times" for name, epochs in over.items())
        remedy = "lower its weight, train on fewer tokens, add text, or raise the limit"
        raise DataError(Problem("data.max_epochs", most, f"training would read {shown}", remedy))
    for name, epochs in then.items():
        seen = f", {now[name]:.2f} so far" if cursor.drawn else ""
        worn = f"; beyond about {WORN} epochs a text teaches less and less" if epochs > WORN else ""
        yield f"  source {name}  read {epochs:.2f} times by the end of training{seen}{worn}"
