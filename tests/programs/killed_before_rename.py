"""Replaces a file, and is killed when the new one is about to be flushed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from colordaemon.durable import replace_file


def main(path: Path) -> None:
    def flush(_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = flush  # type: ignore[assignment]
    replace_file(path, b"new" * 100000)
