"""Hostile tests run by `make test-hostile`: inputs that are damaged or meant to do harm, and runs that collide."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how many inputs and events were tried, by file of tests."""
    tried: dict[str, int] = {}
    for report in terminalreporter.stats.get("passed", []):
        file = report.nodeid.partition("::")[0].rpartition("/")[2]
        number = sum(value for name, value in report.user_properties if name == "tried")
        tried[file] = tried.get(file, 0) + (number or 1)
    if tried:
        terminalreporter.section("tried")
        for file, number in sorted(tried.items()):
            terminalreporter.write_line(f"{number:5d}  {file}")
        terminalreporter.write_line(f"{sum(tried.values()):5d}  in all")
