"""The worker; it notes every segment that is begun ($SEGMENTS), takes a while for every frame
($FRAME_SECONDS), and dies of files that are called poison."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from colordaemon.convert.convert import prepare
from colordaemon.film.segment import SegmentWorker
from colordaemon.service import coloring, worker


def main() -> None:
    torch.set_num_threads(1)
    run = SegmentWorker.run

    def noted(self: SegmentWorker, task: Any) -> Any:
        with Path(os.environ["SEGMENTS"]).open("a") as file:
            file.write(f"{task.source.path.name} {task.index}\n")
        told = self.context.advance

        def slow(seconds: float) -> None:
            time.sleep(float(os.environ["FRAME_SECONDS"]))
            told(seconds)

        self.context.advance = slow  # type: ignore[method-assign]
        try:
            return run(self, task)
        finally:
            self.context.advance = told  # type: ignore[method-assign]

    def deadly(source: Path, *rest: Any, **options: Any) -> Any:
        if "poison" in source.name:
            os.kill(os.getpid(), signal.SIGSEGV)
        return prepare(source, *rest, **options)

    SegmentWorker.run = noted  # type: ignore[method-assign]
    coloring.prepare = deadly  # type: ignore[attr-defined]
    worker.main()
