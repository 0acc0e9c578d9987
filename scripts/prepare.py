"""Prepare a corpus once, in parallel: text in, token files with a manifest out, for `kind: prepared` (docs/prepare.md).

python scripts/prepare.py --source books --source 'crawl/*.jsonl.zst' --output prepared data.tokenizer.kind=file \\
    data.tokenizer.path=TOKENIZER [--processes 8] [--shard-tokens N]
python scripts/prepare.py recipe=deepseek7b 'data.sources=[...]' --output prepared        the data group of any recipe

What was stopped or killed goes on with the same command. Needs no accelerator.
exit 0: done, or complete already; 3: a mistake in the command; 4: data, a full disk, a worker that died; 10: stopped
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from trainer.run.signals import leave_when_asked

leave_when_asked()  # from the first import on

import hydra
from omegaconf import DictConfig

from trainer.commands import entry
from trainer.commands.prepare import options_of, run
from trainer.config.schema import Config


def show(config: Config) -> Iterator[str]:
    """Prepare, and the lines about it."""
    return run(config, options)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(composed: DictConfig) -> None:
    entry.inspect(composed, show)


if __name__ == "__main__":
    options = options_of(__doc__)
    sys.exit(entry.enter(main, launch=False))
