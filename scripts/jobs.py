"""Scheduled jobs: train, gate and publish with nobody watching (docs/jobs.md).

python scripts/jobs.py tick                     from cron, every minute, on as many hosts as you like
python scripts/jobs.py run JOB                  one occurrence now, to its end; exit 14 where a gate refuses it
python scripts/jobs.py check JOB                what would end it is found before the night
python scripts/jobs.py ls | show | why | logs | cancel | rerun | registry | promote | rollback | page | timer
"""

from __future__ import annotations

import argparse
import sys

from trainer.commands.command_line import run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--jobs", default="conf/job", metavar="DIRECTORY", help="of job files (conf/job; docs/job_keys.md)"
    )
    made.add_argument("--ledger", default="jobs", metavar="PLACE", help="a directory, or s3://bucket/prefix (jobs)")
    words = made.add_subparsers(dest="word", required=True, metavar="WORD")
    words.add_parser("tick", help="do what is due, and take what is open as far as it goes")
    _of_job(words.add_parser("run", help="an occurrence now, to its end"))
    _of_job(words.add_parser("check", help="what would end an occurrence that began now; nothing is written"))
    _of_job(words.add_parser("registry", help="versions of a job's model"))
    ls = words.add_parser("ls", help="jobs and their newest occurrences")
    ls.add_argument("job", nargs="?", metavar="JOB", help="this one alone")
    ls.add_argument("--count", type=int, default=5, metavar="N", help="of each job (5)")
    for word, text in (
        ("show", "every stage of an occurrence"),
        ("why", "what has happened to it, in sentences"),
        ("logs", "what a stage has printed"),
        ("cancel", "take it back"),
        ("rerun", "the same again, new data or not"),
    ):
        one = words.add_parser(word, help=text)
        _of_job(one).add_argument(
            "slot", metavar="SLOT", nargs="?", default="last", help="as ls names it, or how that begins (last)"
        )
        if word == "logs":
            one.add_argument(
                "--stage", default="train", metavar="STAGE", help="or precompile, evaluate, export (train)"
            )
    promote = words.add_parser("promote", help="make a version the champion, whatever gates say")
    _of_job(promote).add_argument("version", metavar="VERSION", help="as registry names it")
    for one in (promote, _of_job(words.add_parser("rollback", help="bring back the champion before this one"))):
        one.add_argument("--because", default="no reason given", metavar="TEXT", help="is kept with the move")
    page = words.add_parser("page", help="the ledger as a page of HTML, which opens without a network")
    page.add_argument("file", metavar="FILE")
    timer = words.add_parser("timer", help="files that call tick every minute")
    timer.add_argument("kind", metavar="systemd|crontab|kubernetes|batch")
    timer.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of the launcher: launcher.kubernetes.image=..."
    )
    for word in ("evaluate", "export"):
        words.add_parser(word, help="a stage, as launchers start it").add_argument("plan", metavar="PLAN")
    return made


def _of_job(one: argparse.ArgumentParser) -> argparse.ArgumentParser:
    one.add_argument("job", metavar="JOB", help="a file of --jobs, without its .yaml")
    return one


if __name__ == "__main__":
    from trainer.commands.jobs.act import act

    sys.exit(run(parser(), act))
