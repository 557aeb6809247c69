"""Fault tests run by `make test-faults`: they kill processes and servers, and take minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.torch.conftest import make_inputs

_FAULTS = "faults"
_LONGEST = ("test_distribution.py", "test_storage_away.py", "test_trainer_killed.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the longest files: a worker is given whole ones, and the last to begin keeps the others waiting."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture
def count_faults(record_property: Callable[[str, object], None]) -> Callable[[int, str], None]:
    """Notes how many faults of a kind a test has tried; their numbers stand at the end of the report."""
    return lambda number, kind: record_property(_FAULTS, (number, kind))


@pytest.fixture(scope="session")
def inputs(sd15_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artifacts of a training of two vectors, as keyword arguments of the trainer."""
    return make_inputs(tmp_path_factory.mktemp("inputs"), sd15_reference, num_vectors=2)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how many faults were tried, of what kind."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    tried = [value for report in reports for name, value in report.user_properties if name == _FAULTS]
    if tried:
        terminalreporter.section("faults tried")
        for number, kind in tried:
            terminalreporter.write_line(f"{number:5d}  {kind}")
        terminalreporter.write_line(f"{sum(number for number, _ in tried):5d}  in all")
