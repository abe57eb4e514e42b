"""How fast a film is colored, next to the same film merely decoded and encoded again.

    python benchmarks/film.py FILM… [--model FILE] [--device cpu|cuda] [--quality …] [--json FILE]

Both runs use the same decoder, encoder settings and luma; each has a process of its own, so peak
memory is that run's. The ratio is what to quote: machines differ.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine

from colordaemon.config import FilmSettings
from colordaemon.film.colorize import color_film, plan_film
from colordaemon.media.decode import FilmReader
from colordaemon.media.encode import segment_writer
from colordaemon.network.colorizer import open_colorizer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    machine = describe_machine()
    print(machine)
    rows = []
    for film in arguments.films:
        null = in_process(transcode, film)
        color = in_process(colorize, film, arguments.model, arguments.device, arguments.quality)
        row = {"film": film.name, **color, "null_fps": null["fps"], "null_mib": null["peak_mib"]}
        row["ratio"] = color["fps"] / null["fps"]
        rows.append(row)
        print(
            f"{film.name}: {row['frames']} frames, {row['size']}, {row['device']}: "
            f"{row['fps']:.2f} fps colored, {row['null_fps']:.2f} fps null transcode, "
            f"ratio {row['ratio']:.3f}, peak {row['peak_mib']:.0f} MiB "
            f"(null {row['null_mib']:.0f} MiB)"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def transcode(film: Path) -> dict[str, Any]:
    """Decode and encode with neutral chroma."""
    job = plan_film(film, FilmSettings(), force=True)
    code = job.encoder.code
    dtype = np.uint8 if code.depth == 8 else np.uint16
    shape = (2, *code.chroma_size(job.source.height, job.source.width))
    neutral = np.full(shape, code.neutral, dtype)
    frames, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "null"
        with FilmReader(job.source) as reader, segment_writer(path, job.encoder) as writer:
            for frame in reader:
                writer.write(frame, neutral)
                frames += 1
    return {"frames": frames, "fps": frames / (time.monotonic() - began)}


def colorize(film: Path, model: Path | None, device: Any, quality: Any) -> dict[str, Any]:
    """Color the film; loading the model is not counted, opening and joining the film is."""
    colorizer = open_colorizer(model, device, "auto", quality, 8)
    colorizer.predict_ab(torch.rand(colorizer.batch_size, 1, 256, 256))  # warm up
    began = time.monotonic()
    job = plan_film(film, FilmSettings(), force=True)
    with tempfile.TemporaryDirectory() as folder:
        report = color_film(job, Path(folder) / f"colored{job.target.suffix}", colorizer)
    return {
        "frames": report.frames,
        "fps": report.frames / (time.monotonic() - began),
        "size": f"{job.source.width}x{job.source.height}",
        "device": str(colorizer),
    }


def in_process(function: Any, *arguments: Any) -> dict[str, Any]:
    """Run a function in a fresh process; adds its peak memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (function, arguments))


def _measured(function: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
    result: dict[str, Any] = function(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**result, "peak_mib": peak / 1024}


if __name__ == "__main__":
    main()
