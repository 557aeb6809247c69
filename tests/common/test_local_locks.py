"""Who is kept out of a folder is told who is in it."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from components.common.errors import ConfigError
from components.common.storage.local_files import RESERVED_PREFIX, alone_in


def test_process_that_has_the_lock_is_named_also_when_it_writes_its_name_a_moment_later(tmp_path: Path) -> None:
    with (tmp_path / f"{RESERVED_PREFIX}lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writing = threading.Timer(0.2, lambda: (file.write("process 7 on vm"), file.flush()))
        writing.start()
        with (
            pytest.raises(ConfigError, match=r"found another run at work in .*: process 7 on vm: wait"),
            alone_in(tmp_path, "run"),
        ):
            raise AssertionError("nobody else may be here")
        writing.join()
