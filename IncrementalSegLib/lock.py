"""One process at a time: a lock of the operating system, which is let go even when its holder is killed."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Wait until no other process or thread is inside ``locked(path)``; the (empty) file stays behind.

    With a sentence ``busy`` nobody waits.

    Raises:
        InputError: ``busy``, where another holds the lock.
        OSError: the file cannot be made or the file system knows no locks.
    """
    with path.open("a+b") as file:
        while not _taken(file.fileno()):
            if busy:
                raise InputError(busy)
            time.sleep(0.2)
        try:
            yield
        finally:
            _let_go(file.fileno())


def _taken(descriptor: int) -> bool:
    """Whether this call got the lock."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def _let_go(descriptor: int) -> None:
    """Closing the file would do, but Windows may take its time over that."""
    if sys.platform == "win32":
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
