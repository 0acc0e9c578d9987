"""Scheduled jobs: what is due, what has become of it, and which model is the champion. No torch.

schedule.py   slots of a job, across daylight saving
log.py        a numbered log over a storage: who appends a number first has it
events.py     what has happened to an occurrence, folded from its log
decide.py     what comes next, a pure function of it
ledger.py     all occurrences of all jobs, where they lie
tick.py       expand what is due, and take every open occurrence as far as it goes
"""
