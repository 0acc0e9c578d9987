"""What ranks that read a model have to agree on, whose nodes are given commands one by one, and what each needs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from trainer.backends.common.meeting import Meeting
from trainer.errors import ConfigError, DataError, HangError, Problem, RunError
from trainer.run.ending import REPORT_SECONDS


def refuse_other_options(meeting: Meeting, options: Mapping[str, Any]) -> None:
    """Raise ConfigError on every rank where one is asked for something else. Collective.

    options: JSON values by their names in Python.
    """
    if meeting.peers is None:
        return
    from trainer.training.trust import differences  # brings torch

    mine = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    found = [json.loads(one) for one in meeting.everyone(json.dumps(mine))]
    if problems := list(differences(found, meeting.peers)):
        raise ConfigError(problems)


def refuse_other_files(meeting: Meeting, files: Sequence[tuple[str, str, str]]) -> None:
    """Raise DataError on every rank where one has other files. Collective; as many on every rank.

    files: (option, name, digest) of each.
    """
    found = [json.loads(one) for one in meeting.everyone(json.dumps([digest for *_, digest in files]))]
    problems = []
    for index, (key, name, _) in enumerate(files):
        if others := [rank for rank, digests in enumerate(found) if digests[index] != found[0][index]]:
            rule = f"the same on every rank; on ranks {others} it is not what rank 0 has"
            problems.append(Problem(key, name, rule, "copy it to all nodes, or mount it"))
    if problems:
        raise DataError(problems)


@contextmanager
def explained(rank: int, remedy: str) -> Iterator[None]:
    """Raise an error with a remedy where the block asks for more memory than there is, or another rank has gone.

    remedy: what to ask for less of.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError, or a kind of it, for both
        from trainer.training.watchdog import of_a_collective  # brings torch

        failure: RunError
        if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", str(error)):
            found = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
            rule = "is there for what is computed together; that much more was asked for"
            failure = ConfigError(Problem("memory", found[1] if found else None, rule, remedy))
        elif of_a_collective(error):
            time.sleep(REPORT_SECONDS)  # the cause is who ends first
            rule = "every rank is there until the last has ended; one has gone, and the connection to it"
            what = "look at its output, and at the kernel's (dmesg) for a lack of memory; the same command begins anew"
            failure = HangError(Problem("ranks", str(error).splitlines()[0][-80:], rule, what))
        else:
            raise
        failure.rank = rank
        raise failure from None
