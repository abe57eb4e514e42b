"""What a measurement was made on: processor, GPU, memory, threads, versions."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import torch

from colordaemon import __version__
from colordaemon.config import ModelSettings
from colordaemon.memory import SHARE, limit_bytes
from colordaemon.network.colorizer import open_colorizer
from colordaemon.network.device import DTYPES

# What x264 and x265 write into the first picture about themselves.
_X264 = re.compile(rb"x264 - core (\d+(?: r\d+\w*)?)")
_X265 = re.compile(rb"x265 \(build \d+\) - ([\w.+-]+)")


@dataclass(frozen=True)
class Machine:
    """gpu: its name, None without one. cores: that may be used. memory_mib: of the machine, or of
    the control group. threads: by the library that would start them."""

    processor: str
    cores: int
    memory_mib: int
    gpu: str | None
    gpu_memory_mib: int | None
    system: str
    threads: dict[str, int]
    versions: dict[str, str]


@dataclass(frozen=True)
class Network:
    """Where the network runs. short_side: of the pictures it sees, in pixels."""

    device: str
    precision: str
    quality: str
    short_side: int
    batch_size: int


def look_around(model: ModelSettings) -> tuple[Machine, Network]:
    """What there is, and where the network will run. Raises ModelError."""
    colorizer = open_colorizer(
        model.file, model.device, model.precision, model.quality, model.batch_size, model.saturation
    )
    precision = {dtype: name for name, dtype in DTYPES.items()}[colorizer.dtype]
    device = torch.cuda.get_device_name() if colorizer.device.type == "cuda" else "CPU"
    network = Network(device, precision, model.quality, colorizer.short_side, model.batch_size)
    return machine(), network


def machine() -> Machine:
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=round(limit_bytes(None) / SHARE) >> 20,
        gpu=gpu.name if gpu else None,
        gpu_memory_mib=gpu.total_memory >> 20 if gpu else None,
        system=platform.platform(),
        threads={"torch": torch.get_num_threads(), "OpenCV": cv2.getNumThreads()},
        versions=_versions(),
    )


def describe_machine() -> str:
    """The machine in one line."""
    found = machine()
    names = [
        f"{name} {found.versions[name]}" for name in ("torch", "PyAV") if name in found.versions
    ]
    return ", ".join([found.processor, f"{found.cores} cores", found.gpu or "no GPU", *names])


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {
        "colordaemon": __version__,
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "OpenCV": cv2.__version__,
    }
    if torch.version.cuda:
        found["CUDA"] = torch.version.cuda
    with suppress(ImportError):  # the network is also measured where PyAV cannot be loaded
        found |= _media_versions()
    return found


def _media_versions() -> dict[str, str]:
    """PyAV, FFmpeg, and the encoders as they name themselves in what they encode."""
    import av

    found = {"PyAV": av.__version__, "FFmpeg": av.ffmpeg_version_info}
    for name, pattern in (("x264", _X264), ("x265", _X265)):
        quiet = {f"{name}-params": "log-level=none"}
        if told := pattern.search(_first_picture(f"lib{name}", quiet)):
            found[name] = told[1].decode()
    return found


def _first_picture(encoder: str, options: dict[str, str]) -> bytes:
    """A small picture and its headers, encoded; nothing where FFmpeg lacks the encoder."""
    import av
    from av.video.codeccontext import VideoCodecContext

    try:
        context = av.CodecContext.create(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return b""
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = 64, 64, "yuv420p"
    context.time_base, context.options = Fraction(1, 25), options
    picture = av.VideoFrame(64, 64, "yuv420p")
    picture.pts = 0
    packets = context.encode(picture) + context.encode(None)
    return b"".join([*map(bytes, packets), bytes(context.extradata or b"")])
