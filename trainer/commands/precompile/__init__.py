"""scripts/precompile.py: every graph of a run, compiled before the run: extract, look what misses, compile, share."""
