"""From accumulated gradients to the update: ZeRO-1, its optimizer, sums over ranks, and checks."""
