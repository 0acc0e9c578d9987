"""What goes wrong before a run has its graphs."""

from __future__ import annotations

from trainer.errors import ExitCode, RunError


class PrecompileError(RunError):
    """Graphs cannot be extracted, or do not compile."""

    code = ExitCode.CONFIG
    title = "the run's graphs are not all compiled"
