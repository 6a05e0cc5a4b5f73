"""One process at a time: a lock of the operating system, which is let go even when its holder is killed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process or thread is inside ``locked(path)``; the (empty) file stays behind.

    Raises:
        OSError: the file cannot be made or the file system knows no locks.
    """
    with path.open("a+b") as file:
        _wait_for(file.fileno())
        yield  # closing the file lets the lock go


def _wait_for(descriptor: int) -> None:
    if sys.platform == "win32":
        while True:
            try:
                os.lseek(descriptor, 0, os.SEEK_SET)
                return msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            except OSError as error:  # it gives up after ten seconds; we do not
                if error.errno != errno.EDEADLK:
                    raise
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
