"""Slots on wall clocks that leap: against the tz database's own dates, by hand."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from trainer.jobs.schedule import fault_of, label, slots, zone_of

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def due(cron: str, zone: ZoneInfo, day: str, days: int = 1) -> list[str]:
    """Times in UTC, of so many days from midnight of the zone on."""
    begin = datetime.fromisoformat(day).replace(tzinfo=zone)
    end = begin + timedelta(days=days)
    return [f"{slot:%d %H:%M}" for slot in slots(cron, zone, begin - timedelta(seconds=1), end - timedelta(seconds=1))]


@pytest.mark.parametrize(
    ("cron", "zone", "day", "wanted"),
    [
        ("30 2 * * *", BERLIN, "2026-03-28", ["28 01:30"]),
        ("30 2 * * *", BERLIN, "2026-03-29", ["29 01:00"]),  # 02:30 does not exist: when the clock leaps to 03:00
        ("30 2 * * *", BERLIN, "2026-10-25", ["25 00:30"]),  # 02:30 comes twice: the first one
        ("30 2 * * *", BERLIN, "2026-10-26", ["26 01:30"]),
        ("30 2 * * *", NEW_YORK, "2026-03-08", ["08 07:00"]),
        ("30 1 * * *", NEW_YORK, "2026-11-01", ["01 05:30"]),
        ("0 9 * * 1", BERLIN, "2026-11-30", ["30 08:00"]),  # a Monday
        ("0 9 * * 1", BERLIN, "2026-12-01", []),
    ],
)
def test_a_daily_time_is_due_once_whatever_the_clock_does(
    cron: str, zone: ZoneInfo, day: str, wanted: list[str]
) -> None:
    assert due(cron, zone, day) == wanted


def test_every_half_hour_follows_the_real_time() -> None:
    assert len(due("*/30 * * * *", BERLIN, "2026-10-25")) == 50
    assert len(due("*/30 * * * *", BERLIN, "2026-03-29")) == 46


def test_a_slot_is_later_than_the_one_before_and_not_later_than_now() -> None:
    noon = datetime(2026, 11, 30, 12, tzinfo=timezone.utc)
    assert list(slots("0 12 * * *", ZoneInfo("UTC"), noon, noon)) == []
    assert list(slots("0 12 * * *", ZoneInfo("UTC"), noon - timedelta(seconds=1), noon)) == [noon]


def test_names_of_slots_sort_by_time() -> None:
    times = [datetime(2026, 1, 31, 23, 59, tzinfo=timezone.utc), datetime(2026, 2, 1, tzinfo=timezone.utc)]
    assert sorted(map(label, reversed(times))) == list(map(label, times))
    assert label(datetime(2026, 7, 1, 2, tzinfo=BERLIN)) == "20260701t000000z"


@pytest.mark.parametrize("cron", ["", "* * * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "@daily", "a b c d e"])
def test_what_is_no_expression_is_told(cron: str) -> None:
    assert fault_of(cron) is not None


def test_what_is_a_zone() -> None:
    assert fault_of("0 2 * * 1-5") is None
    assert zone_of("Europe/Berlin") == BERLIN
    for name in ("Berlin", "", "../../etc/passwd", "/etc/localtime", "Europe"):
        assert zone_of(name) is None, name
