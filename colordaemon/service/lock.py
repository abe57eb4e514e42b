"""One daemon per state folder, and one per inbox: locks that the kernel lets go of with us."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colordaemon.errors import ConfigError


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for as long as this process lives. Nothing is written to it.

    Raises ConfigError when another process holds it. what: its name in the configuration.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{what}: another daemon works with {folder}") from None
        except OSError:
            if what == "state_dir":
                raise
            # A network file system may know no locks; the other folder's lock remains.
        yield
    finally:
        os.close(handle)
