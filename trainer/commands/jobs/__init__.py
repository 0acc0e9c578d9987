"""scripts/jobs.py: scheduled jobs, for cron (tick) and for people."""
