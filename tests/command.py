"""`colordaemon once` as its users run it, a process of its own, and files to run it on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
from processes import run

from colordaemon.cli import main as colordaemon

SIZE = (64, 48)


def write_photo(path: Path, color: bool = False) -> Path:
    ramp = np.tile(np.linspace(0, 255, SIZE[0], dtype=np.uint8), (SIZE[1], 1))
    # Hues that change down the picture while luma changes across it: no tint does that.
    hues = np.repeat(np.eye(3, dtype=np.uint8) * 120, SIZE[1] // 3, axis=0)[:, None]
    picture = ramp[..., None] // 2 + hues if color else ramp
    cv2.imwrite(str(path), picture)
    return path


def write_film(path: Path, frames: int = 6) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(frames):
            gray = np.full((SIZE[1], SIZE[0]), 40 + number % 100, np.uint8)
            picture = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "colordaemon", "once", *map(str, arguments)]


def once(
    *arguments: object, program: Callable[[], object] = colordaemon
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. program: what stands for colordaemon."""
    return run("once", *arguments, program=program)


def once_untampered(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As its users run it: the program itself, which begins from nothing."""
    line = command(*arguments)
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603
