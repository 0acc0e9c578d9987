"""Writes tests/golden/neuron_collectives anew: python -m tests.neuron.write_golden <source> [recipe ...]

Nothing is written for a recipe whose ranks of a stage differ. Review the difference before you commit it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.neuron.full_size import SENDING, planned, ranks_of_stages, short
from tests.neuron.library import lazily
from tests.neuron.test_full_size import GOLDEN, lowering
from tests.ranks import attempt


def main(source: Path, recipes: list[str]) -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    recipes = recipes or SENDING
    tasks = {(recipe, rank): task for recipe in recipes for rank, task in lowering(recipe).items()}
    with tempfile.TemporaryDirectory() as directory:
        found = attempt(tasks, Path(directory), lazily(source))
    for recipe in recipes:
        stages = ranks_of_stages(*planned(recipe, short(recipe)))
        write(recipe, [[found[recipe, rank][0]["collectives"] for rank in ranks] for ranks in stages])


def write(recipe: str, stages: list[list[list[str]]]) -> None:
    """stages: for each stage, each of its ranks' collectives."""
    for number, ranks in enumerate(stages):
        assert all(lines == ranks[0] for lines in ranks), f"{recipe}: the ranks of stage {number} differ"
    config, derived = planned(recipe, short(recipe))
    head = {
        "lines": "kind, axis, ranks, dtype, bytes that a rank hands in",
        "layers": config.model.layers,
        "microbatches": derived.accumulation,
        "world": config.parallel.cores,
    }
    text = json.dumps({**head, "stages": [ranks[0] for ranks in stages]}, indent=1)
    (GOLDEN / f"{recipe}.json").write_text(text + "\n")
    print(f"{recipe}: {[len(ranks[0]) for ranks in stages]} collectives by stage", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
