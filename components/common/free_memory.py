"""How much memory a process may still take, in a container too."""

from __future__ import annotations

import os
from pathlib import Path


def free_memory_bytes() -> int:
    """What this process may still take: the machine's available memory, or less where a container limits it."""
    available = _meminfo_available()
    limit, used = _number_in("/sys/fs/cgroup/memory.max"), _number_in("/sys/fs/cgroup/memory.current")
    return available if limit is None or used is None else min(available, limit - used)


def _meminfo_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number_in(file: str) -> int | None:
    path = Path(file)
    text = path.read_text().strip() if path.is_file() else "max"
    return None if text == "max" else int(text)
