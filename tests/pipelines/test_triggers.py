"""When schedules run: what expressions and intervals mean, and which are refused."""

from __future__ import annotations

import datetime

import pytest

from components.common.errors import ConfigError
from pipelines.triggers import Trigger, check_cron, parse_interval

SUNDAY = datetime.datetime(2026, 11, 29, 16, 37, 43, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 0 3 * * *", "2026-11-30 03:00:00"),
        ("43 37 16 * * *", "2026-11-30 16:37:43"),
        ("44 37 16 * * ?", "2026-11-29 16:37:44"),
        ("0 */15 * * * *", "2026-11-29 16:45:00"),
        ("0 5/20 * * * *", "2026-11-29 16:45:00"),
        ("30 10,50 9-17/4 * * *", "2026-11-29 17:10:30"),
        ("0 0 0 1 * *", "2026-12-01 00:00:00"),
        ("0 0 0 31 jan-MAR *", "2027-01-31 00:00:00"),
        ("0 0 0 29 2 *", "2028-02-29 00:00:00"),
        ("0 0 6 * * mon-fri", "2026-11-30 06:00:00"),
        ("0 0 6 * * Sat", "2026-12-05 06:00:00"),
        ("0 0 6 2 * SUN", "2026-12-02 06:00:00"),
        ("0 0 6 */2 * SUN", "2026-12-13 06:00:00"),
    ],
)
def test_next_time_is_the_one_of_kubeflow_pipelines(cron: str, expected: str):
    found = Trigger(cron=check_cron(cron)).next_after(SUNDAY)
    assert found is not None and f"{found:%Y-%m-%d %H:%M:%S}" == expected


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("0 0 3 * *", "expected six fields"),
        ("@daily", "expected six fields"),
        ("60 0 3 * * *", "the second '60', which is from 0 to 59"),
        ("0 0 24 * * *", "the hour '24', which is from 0 to 23"),
        ("0 0 3 0 * *", "the day of the month '0', which is from 1 to 31"),
        ("0 0 3 * 13 *", "the month '13'"),
        ("0 0 3 * * 7", "the day of the week '7'"),
        ("0 0 3 * * fry", "the day of the week 'fry'"),
        ("0 5-2 3 * * *", "the minute '5-2'"),
        ("0 */0 3 * * *", "the minute '*/0'"),
        ("0 1,,2 3 * * *", "the minute ''"),
        ("0 0 3 L * *", "the day of the month 'L'"),
        ("0 0 3 30 2 *", "expected a day that there is"),
    ],
)
def test_expression_that_cannot_be_is_refused_by_its_field(cron: str, told: str):
    with pytest.raises(ConfigError) as refused:
        check_cron(cron)
    assert told in str(refused.value) and repr(cron) in str(refused.value)


def test_intervals_of_a_fleet_begin_at_different_times_that_stay():
    trigger = Trigger(interval_seconds=parse_interval("1d"))
    starts = {name: trigger.start_of(name, SUNDAY) for name in map(str, range(50))}
    assert len(set(starts.values())) == 50
    for name, start in starts.items():
        first = trigger.next_after(start)
        assert first is not None and start <= SUNDAY < first
        assert trigger.start_of(name, first) == first, "replaced later, it runs at the same times"
