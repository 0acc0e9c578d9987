"""What the ranks of a launch that only reads a model have to agree on: their nodes are given commands one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.backends.common.meeting import Meeting
from trainer.errors import ConfigError, DataError, Problem


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
