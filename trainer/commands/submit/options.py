"""The flags of scripts/submit.py, taken off the command line before Hydra reads the rest."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass

from trainer.commands.entry import split

MODES = {
    "--dry-run": "render and check, and submit nothing",
    "--follow": "submit, print what the job prints, and end with its code",
    "--attach": "follow the newest submission of this run",
    "--status": "say how the newest submission of this run stands",
    "--cancel": "ask the newest submission of this run to save and stop",
}
SWEEP = ("--multirun", "-m")


@dataclass(frozen=True)
class Options:
    """What a command line asks for. mode: of MODES; None to submit and return."""

    mode: str | None
    typed: tuple[str, ...]
    """The command line without the mode, as it was typed."""
    flags: tuple[str, ...]
    """Hydra's own, which the job's command gets too."""

    def again(self, mode: str) -> str:
        """What to type for another mode of the same run."""
        return " ".join(["python scripts/submit.py", *map(shlex.quote, self.typed), mode])


def take_options() -> Options | str:
    """The options, and Hydra's part left in sys.argv; or a sentence about what is wrong.

    nodes=N is short for launcher.nodes=N.
    """
    modes = [word for word in sys.argv[1:] if word in MODES]
    if len(set(modes)) > 1:
        return f"{' and '.join(modes)} are two things to do; give one of them"
    typed = [word for word in sys.argv[1:] if word not in MODES]
    overrides, flags = split([re.sub(r"^nodes=", "launcher.nodes=", word) for word in typed])
    sys.argv[1:] = overrides + flags
    return Options(next(iter(modes), None), tuple(typed), tuple(flag for flag in flags if flag not in SWEEP))


def usage() -> str:
    """A line for each mode."""
    return "\n".join(["further flags of scripts/submit.py:", *(f"  {name:<10} {text}" for name, text in MODES.items())])
