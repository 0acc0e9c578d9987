"""A run's weights as a Hugging Face directory: weights, config.json, tokenizer and chat template (docs/weights.md).

python scripts/export_hf.py runs/tiny out                          its newest checkpoint
python scripts/export_hf.py runs/tiny/checkpoints/step-00000360 out --dtype bfloat16 --shard-size 2GB
python scripts/export_hf.py runs/tuned merged                      of a run with adapters: merged into its base
python scripts/export_hf.py runs/tuned adapter --adapter           the adapters alone, as peft reads them
python scripts/export_hf.py runs/tiny small --int8                 a quarter of the bytes; transformers refuses it
python scripts/export_hf.py runs/tiny small --int8 linear          embedding and head stay FP32, as NxD Inference has it

Needs no accelerator, and memory for a few rows at a time. DIRECTORY is new, and there whole or not at all.
exit 0: done; 3: a mistake in the command, or something that cannot be written; 13: no checkpoint that is sound
"""

from __future__ import annotations

import argparse
import sys

from trainer.commands.command_line import run
from trainer.pretrained.int8 import ALL, LINEAR

DTYPES = ("bfloat16", "float16", "float32")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", metavar="RUN", help="a run's directory, or one of its checkpoints")
    made.add_argument("directory", metavar="DIRECTORY", help="a new one")
    made.add_argument("--dtype", choices=DTYPES, help="of all tensors; without: as the checkpoint holds them")
    made.add_argument(
        "--adapter",
        action="store_true",
        help="the adapters alone, as peft's directory, in FP32; not with --dtype, --shard-size or --int8",
    )
    made.add_argument("--base", metavar="DIRECTORY", help="of a fine-tuned run: where its base is now")
    made.add_argument("--shard-size", metavar="SIZE", help="largest file of weights: 5GB (the default), 500MB, 4GiB")
    made.add_argument(
        "--int8", nargs="?", choices=(ALL, LINEAR), const=ALL, help="round matrices; a table says how much"
    )
    return made


def act(options: argparse.Namespace) -> None:
    """Export, and say so."""
    from trainer.commands.export_hf import export_adapter, export_hf  # brings torch

    if options.adapter:
        others = {"--dtype": options.dtype, "--shard-size": options.shard_size, "--int8": options.int8}
        lines = export_adapter(options.run, options.directory, options.base, others)
    else:
        given = options.run, options.directory, options.dtype, options.shard_size, options.int8, options.base
        lines = export_hf(*given)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(run(parser(), act))
