"""A worker of a preparation: python -m trainer.data.preparing.worker TOKENIZER_DIRECTORY CACHE_DIR CACHE_GB.

Tasks come in and answers go out as lines of JSON: {"bytes": n} while it goes on, then {"done": true} or what is wrong.
It ends when its parent has: the kernel sees to that, and the end of the tasks is the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from trainer.errors import RunError
from trainer.run.orphans import follow_launcher

TELL_EVERY_SECONDS = 0.5


def main() -> int:
    """Do tasks until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's whole group: the parent decides
    if not follow_launcher():
        return 1
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a plug-in prints is no answer
    from trainer.config.groups.data import DataConfig, TokenizerConfig
    from trainer.data.remote import reading
    from trainer.data.tokenizer_files import load

    tokenizer, _ = load(TokenizerConfig(kind="file", path=sys.argv[1]), Path(sys.argv[1]))
    with reading(DataConfig(cache_dir=sys.argv[2], cache_gb=float(sys.argv[3]))):
        return _answer(tokenizer, answers)


def _answer(tokenizer: Any, answers: TextIO) -> int:
    for line in sys.stdin:
        try:
            _do(json.loads(line), tokenizer, answers)
            answer: dict[str, Any] = {"done": True}
        except RunError as error:
            problems = [[p.key, p.value, p.rule, p.remedy] for p in error.problems]
            answer = {"problems": problems, "code": int(error.code)}
        except BrokenPipeError:
            return 1
        except OSError as error:  # of what is written: readers say which file they mean
            answer = {"cannot_write": f"{error.strerror or error}"}
        _say(answers, answer)
    return 0


def _do(value: dict[str, Any], tokenizer: Any, answers: TextIO) -> None:
    from trainer.data.preparing import duplicates, shards
    from trainer.data.preparing.unit import Task, prepare_unit

    pending, told = 0, time.monotonic()

    def advance(size: int) -> None:
        nonlocal pending, told
        pending += size
        if (now := time.monotonic()) - told > TELL_EVERY_SECONDS:
            _say(answers, {"bytes": pending})
            pending, told = 0, now

    if "shard" in value:
        shards.write_shard(shards.from_json(value["shard"]), advance)
    elif "hashing" in value:
        duplicates.hash_unit(duplicates.Hashing.from_json(value["hashing"]), advance)
    elif "bucket" in value:
        duplicates.resolve(value["bucket"])
    else:
        prepare_unit(Task.from_json(value["unit"]), tokenizer, advance)


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer, default=str) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
