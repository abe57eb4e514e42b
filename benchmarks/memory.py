"""How much memory films take, each in a process of its own, beside what is planned for them.

python benchmarks/memory.py [SIZE[:DEPTH[:CODEC[:FRAMES]]] ...]    as 1920x1080, 7680x4320:10:prores
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

USUAL = ("1920x1080", "3840x2160", "7680x4320", "1920x1080:10", "3840x2160:10")
FRAMES = "64"  # as many as fill the look-ahead of x264


def make_film(path: Path, width: int, height: int, depth: int, frames: int) -> None:
    """Gray film of a ramp that moves."""
    import av
    import cv2
    import numpy as np

    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "30", "x265-params": "log-level=error"}
        stream = container.add_stream("libx264" if depth == 8 else "libx265", 25, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if depth == 8 else "yuv420p10le"
        ramp = np.tile(np.linspace(20, 230, 64, dtype=np.float32), (64, 1))
        for number in range(frames):
            small = np.roll(ramp, number, axis=1).astype(np.uint8)
            gray: Any = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
            picture = av.VideoFrame.from_ndarray(gray, "gray").reformat(format=stream.pix_fmt)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def measure(path: Path, codec: str) -> None:
    """Color a film here; prints what was planned and what it took."""
    from colordaemon.config import FilmSettings
    from colordaemon.film.colorize import color_film, plan_film
    from colordaemon.film.pipeline import reading_bytes
    from colordaemon.network.colorizer import open_colorizer

    settings = FilmSettings(codec=codec)  # type: ignore[arg-type]
    job = plan_film(path, settings, memory_bytes=1 << 50)
    planned = reading_bytes(job.source, settings.stride) + job.encoder.memory_bytes
    colorizer = open_colorizer(None, "cpu", "auto", "standard", 8)
    began = time.monotonic()
    color_film(job, path.with_name("done"), colorizer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"planned {planned >> 20} MiB, took {peak} MiB, {time.monotonic() - began:.0f} s")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        measure(Path(sys.argv[2]), sys.argv[3])
        return
    if sys.argv[1:2] == ["--make"]:
        make_film(Path(sys.argv[2]), *map(int, sys.argv[3:]))
        return
    for wish in sys.argv[1:] or USUAL:
        usual = ("", "8", "h264", FRAMES)
        size, depth, codec, frames = (*wish.split(":"), *usual[wish.count(":") + 1 :])
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "film.mkv")
            again = [sys.executable, __file__]
            make, one = (
                [*again, "--make", path, *size.split("x"), depth, frames],
                [*again, "--one", path],
            )
            subprocess.run(make, check=True)  # noqa: S603
            told = subprocess.run([*one, codec], check=True, capture_output=True)  # noqa: S603
        print(f"{size} {depth} bit {codec}: {told.stdout.decode().strip()}", flush=True)


if __name__ == "__main__":
    main()
