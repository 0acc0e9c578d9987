"""Ask a model: a run, one of its checkpoints, or a directory in Hugging Face's layout (docs/generate.md).

python scripts/generate.py runs/tiny --prompt "def main():"        continue a text, as it comes
python scripts/generate.py models/SmolLM2 --chat                   talk, a line at a time
python scripts/generate.py models/SmolLM2 --lines --json < prompts.txt > answers.jsonl
torchrun --nproc_per_node 2 scripts/generate.py runs/tiny --prompt ...   cut over 2 tensor-parallel ranks

exit 0: done; 3: a mistake in the command, or the model is refused; 4: a prompt cannot be continued
"""

from __future__ import annotations

import argparse
import sys

from trainer.commands.command_line import run
from trainer.commands.generate import Asked, generate
from trainer.run.world import World


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("model", metavar="MODEL", help="a run's directory, a checkpoint's, or one that save_pretrained wrote")
    add("--prompt", action="append", metavar="TEXT", help="may be given several times; without: standard input")
    add("--lines", action="store_true", help="each line of standard input is a prompt; without: all of it is one")
    add("--chat", action="store_true", help="by the chat template; without a prompt: a conversation, line by line")
    add("--system", metavar="TEXT", help="what the chat begins with")
    add("--tokens", type=int, default=128, metavar="N", help="at most so many behind each prompt (128)")
    add("--stop", action="append", metavar="TEXT", help="end before this text; may be given several times")
    add("--temperature", type=float, default=0.0, metavar="T", help="0, the default: the most likely token, always")
    add("--top-k", type=int, default=0, metavar="K", help="draw among the K most likely tokens")
    add("--top-p", type=float, default=1.0, metavar="P", help="draw among the most likely tokens that have P together")
    add("--min-p", type=float, default=0.0, metavar="P", help="draw among tokens with P of the likeliest's probability")
    add("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1: what was said becomes less likely")
    add("--seed", type=int, default=0, help="of the draws (0)")
    add("--batch", type=int, default=8, metavar="N", help="prompts that are continued together (8)")
    add("--base", metavar="DIRECTORY", help="of a fine-tuned run: where the base is now; without: where it was")
    add("--dtype", choices=("float32", "bfloat16"), help="without: as the weights are stored")
    add("--json", action="store_true", help="a line of JSON for each prompt")
    return made


def act(options: argparse.Namespace) -> None:
    """Ask, and print what comes."""
    generate(Asked.of(vars(options)), World.from_environment())


if __name__ == "__main__":
    sys.exit(run(parser(), act))
