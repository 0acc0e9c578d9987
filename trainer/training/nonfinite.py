"""What to do when a step's gradient norm was not finite. The weights are safe already: the update was masked."""

from __future__ import annotations

from trainer.config.groups.reliability import ReliabilityConfig
from trainer.errors import NonFiniteError, Problem


def count_nonfinite(policy: ReliabilityConfig, step: int, finite: bool, in_a_row: int) -> int:
    """The new number of masked steps in a row. Raises NonFiniteError when the policy says stop."""
    if finite:
        return 0
    in_a_row += 1
    if policy.nonfinite == "stop" or in_a_row >= policy.nonfinite_limit:
        raise NonFiniteError(
            Problem(
                f"gradient norm of step {step}",
                "not finite",
                f"finite (reliability.nonfinite={policy.nonfinite}, {in_a_row} in a row)",
                "lower optim.lr (with resume.allow=[optim.lr]), lengthen the warm-up, or look at the data of this step;"
                " nothing was saved after it",
            )
        )
    return in_a_row
