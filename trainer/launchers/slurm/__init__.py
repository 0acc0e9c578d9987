"""launcher=slurm: a batch job that asks to stop before its limit, goes back into the queue by itself, and says why."""
