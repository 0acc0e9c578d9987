"""exit.json of a run whose end no worker could report: the one that was the cause was killed, or its node went away."""

from __future__ import annotations

from pathlib import Path

from trainer.commands.launch.attempt import Attempt
from trainer.commands.launch.ends import Verdict
from trainer.run.exit_json import read_exit, write_exit


def correct(directory: Path, verdict: Verdict, attempt: Attempt) -> None:
    """Write the verdict, and beside it what the other workers ended with and said: these are consequences.

    A worker that lost a peer has reported its own end as the run's: a crash with gloo's words, or nothing at all. Where
    the one that was the cause has reported why, its exit.json stays. With several nodes its own node writes; if a node
    went away, all others write the same.
    """
    if verdict.seen_by_workers or (verdict.rank is not None and verdict.rank not in attempt.ranks):
        return
    said = read_exit(directory, attempt.started_at)
    if said.get("title") == verdict.text:  # another node was here
        return
    consequences = [
        {"rank": end.rank, "host": end.host, "code": end.code, "title": said.get("title")}
        if said.get("rank") == end.rank
        else {"rank": end.rank, "host": end.host, "code": end.code}
        for end in sorted(attempt.ends, key=lambda end: end.rank)
        if end.rank != verdict.rank
    ]
    more = {"host": verdict.host, "consequences": consequences}
    # Of a node that went away, the title names the ranks.
    write_exit(directory, verdict.code, verdict.rank or 0, verdict.text, launcher=more)
