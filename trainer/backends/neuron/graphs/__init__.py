"""Which graphs a step runs: read, compared over ranks, and guarded against new ones."""
