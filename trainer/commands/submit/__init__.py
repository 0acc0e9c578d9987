"""scripts/submit.py: renders a job, checks it as scripts/train.py would, submits it once, and follows it."""
