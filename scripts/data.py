"""What a recipe's text comes to, and what a run will see, in order. Nothing is trained and no run is touched.

python scripts/data.py show recipe=tiny [overrides] [--step 100] [--samples 2] [--picture lengths.png]

Of conversations what is trained on is highlighted.

--step: from that step on (without: where the run of this name stands, else 1); --samples: so many of them in full

exit 0: shown; 3: a mistake in the command or the configuration; 4: the text cannot be used
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trainer.run.signals import leave_when_asked

leave_when_asked()  # from the first import on

import hydra
from omegaconf import DictConfig

from trainer.commands import entry
from trainer.config.schema import Config
from trainer.errors import ExitCode


def show(config: Config) -> Iterator[str]:
    """The lines; torch is imported only now."""
    from trainer.commands import data

    return data.show(config, data.Asked(step, 2 if samples is None else samples, picture))


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    entry.inspect(composed, show)


if __name__ == "__main__":
    if sys.argv[1:2] != ["show"]:
        print(__doc__, file=sys.stderr)
        sys.exit(ExitCode.DONE if {"-h", "--help"} & set(sys.argv) else ExitCode.CONFIG)
    del sys.argv[1]
    step, samples, picture = entry.take_option("--step"), entry.take_option("--samples"), entry.take_text("--picture")
    sys.exit(entry.enter(main, launch=False))
