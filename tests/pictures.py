"""Small color pictures for tests of training: each seed another one, all of them colorful."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np


def colorful(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Soft patches of color, (height, width, 3) uint8 sRGB."""
    patches = np.random.default_rng(seed).uniform(0, 255, (6, 8, 3)).astype(np.float32)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def encode(pixels: np.ndarray, suffix: str = ".png", quality: int | None = None) -> bytes:
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    assert encoded
    return data.tobytes()


def write(path: Path, pixels: np.ndarray, quality: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels, path.suffix, quality))


def fill(folder: Path, label: str, count: int, first_seed: int = 0) -> None:
    """Write label/00.png, label/01.png, … of successive seeds."""
    for number in range(count):
        write(folder / label / f"{number:02}.png", colorful(first_seed + number))


def pack(folder: Path, shard: Path) -> None:
    """Put a folder's labels into a zip shard."""
    with zipfile.ZipFile(shard, "w") as opened:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            opened.write(path, path.relative_to(folder))


@contextmanager
def hearing(listener: Callable[[str], None]) -> Iterator[None]:
    """Give every line that colordaemon logs to a listener, which may also raise."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            listener(record.getMessage())

    logger, ear = logging.getLogger("colordaemon"), Ear()
    before = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(ear)
