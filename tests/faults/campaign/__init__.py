"""The fault campaign: runs are killed, stopped, starved and damaged; each has to end as one that nobody touched.

python -m tests.faults.campaign            every row of the table: about a quarter of an hour (make campaign)
python -m tests.faults.campaign --short    a few of each: half a minute
"""
