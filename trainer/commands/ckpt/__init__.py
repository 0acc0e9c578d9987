"""What is in a run's checkpoints, for people: ls, verify, diff, inspect and prune (docs/checkpoints.md)."""
