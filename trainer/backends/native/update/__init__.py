"""From accumulated gradients to the update: sums over ranks, the norm, and what an optimizer must offer."""
