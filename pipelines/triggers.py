"""When a schedule runs: every so often, or by a cron expression as Kubeflow Pipelines reads it (robfig/cron 1.2)."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import re

from components.common.errors import ConfigError

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds of what an interval may be given in."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAYS_AHEAD = 5 * 366
"""How far Kubeflow Pipelines looks for a day that an expression fits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Field:
    """One of the six fields of an expression: its least and its largest number, and names for numbers."""

    name: str
    least: int
    largest: int
    names: tuple[str, ...] = ()

    def numbers(self, text: str) -> list[int]:
        """The numbers that the field's text stands for, sorted: `*`, `7`, `1-5`, `*/15`, `mon-fri`, `1,15`.

        Raises:
            ValueError: when it is something else.
        """
        return sorted(set(itertools.chain.from_iterable(self._range(part) for part in text.split(","))))

    def _range(self, text: str) -> range:
        match = re.fullmatch(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/([0-9]{1,4}))?", text)
        if not match:
            raise ValueError(f"{self.name} {text!r}")
        first, last, step = match.groups()
        start = self._number(first) if first else self.least
        end = self._number(last) if last else start if first and not step else self.largest
        if not self.least <= start <= end <= self.largest or step == "0":
            raise ValueError(f"{self.name} {text!r}, which is from {self.least} to {self.largest}")
        return range(start, end + 1, int(step or 1))

    def _number(self, text: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.least
        if not re.fullmatch("[0-9]{1,4}", text):
            raise ValueError(f"{self.name} {text!r}")
        return int(text)


_FIELDS = (
    _Field(name="second", least=0, largest=59),
    _Field(name="minute", least=0, largest=59),
    _Field(name="hour", least=0, largest=23),
    _Field(name="day of the month", least=1, largest=31),
    _Field(name="month", least=1, largest=12, names=_MONTHS),
    _Field(name="day of the week", least=0, largest=6, names=_WEEKDAYS),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trigger:
    """When a schedule runs: by a cron expression of six fields, seconds first, or every so many seconds."""

    cron: str = ""
    interval_seconds: int = 0

    def for_people(self) -> str:
        """The same in words."""
        if self.cron:
            return self.cron
        unit, seconds = next((u, s) for u, s in reversed(_UNITS.items()) if not self.interval_seconds % s)
        return f"every {self.interval_seconds // seconds}{unit}"

    def next_after(self, last: datetime.datetime) -> datetime.datetime | None:
        """The first time after another, both in UTC; None where a cron expression has none within five years.

        Args:
            last: of an interval, when it ran last.
        """
        if not self.cron:
            return last + datetime.timedelta(seconds=self.interval_seconds)
        return _next_by_cron(self.cron, last)

    def first_after(self, now: datetime.datetime, name: str) -> datetime.datetime | None:
        """When a schedule of that name runs first; see `next_after`."""
        return self.next_after(now if self.cron else self.start_of(name, now))

    def start_of(self, name: str, now: datetime.datetime) -> datetime.datetime:
        """From when on the intervals of a schedule are counted, UTC: its first run is one interval later.

        It follows from the schedule's name alone, and lies less than an interval back. So the schedules of a fleet that
        is applied at once do not all run at once, and one that is replaced runs at the times of the one before.
        """
        seconds = int(now.timestamp())
        offset = int(hashlib.sha256(name.encode()).hexdigest(), 16)
        return datetime.datetime.fromtimestamp(seconds - (seconds - offset) % self.interval_seconds, datetime.UTC)


def parse_interval(text: str) -> int:
    """Seconds of `90m`, `12h`, `1d` or `2w`.

    Raises:
        ConfigError: when it is something else.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if not match:
        raise ConfigError(f"every: found {text!r}, expected a whole number of m, h, d or w, such as 12h")
    return int(match.group(1)) * _UNITS[match.group(2)]


def check_cron(text: str) -> str:
    """The expression, which has six fields that Kubeflow Pipelines can read.

    Raises:
        ConfigError: when it has not, or when no day of the next years fits.
    """
    names = ", ".join(field.name for field in _FIELDS)
    expected = f"expected six fields ({names}), such as '0 0 3 * * *' for every night at three"
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ConfigError(f"cron: found {text!r}, {expected}")
    try:
        for field, given in zip(_FIELDS, fields, strict=True):
            field.numbers(given)
    except ValueError as error:
        raise ConfigError(f"cron: found {text!r} with the {error}, {expected}") from None
    if _next_by_cron(text, datetime.datetime.now(datetime.UTC)) is None:
        raise ConfigError(f"cron: found {text!r}, expected a day that there is within five years")
    return text


def _next_by_cron(cron: str, after: datetime.datetime) -> datetime.datetime | None:
    fields = cron.split()
    seconds, minutes, hours, days, months, weekdays = (
        field.numbers(given) for field, given in zip(_FIELDS, fields, strict=True)
    )
    either = not any(given.startswith(("*", "?")) for field in (fields[3], fields[5]) for given in field.split(","))
    for ahead in range(_DAYS_AHEAD):
        day = after.date() + datetime.timedelta(days=ahead)
        of_month, of_week = day.day in days, day.isoweekday() % 7 in weekdays
        if day.month in months and (of_month or of_week if either else of_month and of_week):
            for hour, minute, second in itertools.product(hours, minutes, seconds):
                moment = datetime.datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=datetime.UTC)
                if moment > after:
                    return moment
    return None
