"""What a measurement was made on, in one line."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def describe_machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    model = names[0] if names else platform.processor()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {gpu}, torch {torch.__version__}, {_pyav()}"


def _pyav() -> str:
    """Not imported: the network is also measured where there is none."""
    try:
        return f"PyAV {version('av')}"
    except PackageNotFoundError:
        return "no PyAV"
