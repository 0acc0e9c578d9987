"""scripts/compare_runs.py: what differs between runs, how they ended, and the first step where they part."""
