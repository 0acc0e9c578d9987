"""A line of cron as EventBridge Scheduler writes it: six fields, Sunday is 1, one of the two kinds of day is open."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainer.errors import Problem
from trainer.launchers.base import LaunchError

LONGEST = 256
"""Of an expression."""
_PART = re.compile(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")


@dataclass(frozen=True)
class Field:
    """One of cron's five."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    """That stand for low, low + 1, ..."""

    def values(self, text: str) -> list[int]:
        """All numbers that a field names, in order. Raises ValueError."""
        found: set[int] = set()
        for part in text.split(","):
            match = _PART.fullmatch(part)
            if match is None or match[4] == "0":
                raise ValueError(f"{self.name}: {part!r}")
            first = self.low if match[1] == "*" else self._number(match[2])
            last = self._number(match[3]) if match[3] else self.high if match[1] == "*" or match[4] else first
            if first > last:
                raise ValueError(f"{self.name}: {part!r} runs backwards")
            found.update(range(first, last + 1, int(match[4] or 1)))
        return sorted(found)

    def _number(self, text: str) -> int:
        number = self.low + self.words.index(text.lower()) if text.lower() in self.words else int(text)
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name}: {text} is not {self.low} to {self.high}")
        return number


MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of the week", 0, 7, DAYS),
)


def expression(schedule: str) -> str:
    """`30 2 * * 1-5` -> `cron(30 2 ? * 2,3,4,5,6 *)`. Raises LaunchError for a line that the other cannot say."""
    texts = schedule.split()
    if len(texts) != len(FIELDS):
        raise _refused(schedule, f"five fields of cron: {', '.join(field.name for field in FIELDS)}")
    try:
        minute, hour, day, month, weekday = (field.values(text) for field, text in zip(FIELDS, texts, strict=True))
    except ValueError as error:
        raise _refused(schedule, f"fields of cron ({error})") from None
    weekdays = sorted({number % len(DAYS) + 1 for number in weekday})
    if len(day) < FIELDS[2].high and len(weekdays) < len(DAYS):
        raise _refused(schedule, "days of the month or days of the week, not both: Scheduler has no word for either-or")
    days = "?" if len(weekdays) < len(DAYS) else _list(day, FIELDS[2])
    last = _list(weekdays, None) if days == "?" else "?"
    written = [_list(minute, FIELDS[0]), _list(hour, FIELDS[1]), days, _list(month, FIELDS[3]), last]
    found = f"cron({' '.join(written)} *)"
    if len(found) > LONGEST:
        raise _refused(schedule, f"at most {LONGEST} characters as Scheduler writes it")
    return found


def _list(numbers: list[int], field: Field | None) -> str:
    """The numbers, or * for all that the field has."""
    whole = field is not None and len(numbers) == field.high - field.low + 1
    return "*" if whole else ",".join(map(str, numbers))


def _refused(schedule: str, rule: str) -> LaunchError:
    return LaunchError(Problem("schedule", schedule, rule, "write it otherwise, or as two schedules"))
