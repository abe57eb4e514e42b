"""Where the network computes, and in which precision: the one place that asks about CUDA."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from colordaemon.errors import ModelError

log = logging.getLogger(__name__)

NVIDIA_CARD = Path("/dev/nvidia0")  # what the driver shows of the first card
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """A GPU that was asked for and is missing is an error: ModelError."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ModelError("model.device is cuda, but no CUDA GPU is available (driver, container?)")
    if overlooks_gpu(wanted):
        log.warning("there is an NVIDIA GPU, but CUDA finds none (driver, rights?); using the CPU")
    return torch.device("cuda" if wanted != "cpu" and available else "cpu")


def overlooks_gpu(wanted: Literal["auto", "cpu", "cuda"]) -> bool:
    """Whether this machine has an NVIDIA GPU, which `auto` should take and CUDA does not find."""
    return wanted == "auto" and NVIDIA_CARD.exists() and not torch.cuda.is_available()


def choose_dtype(
    wanted: Literal["auto", "fp16", "bf16", "fp32"], device: torch.device
) -> torch.dtype:
    """Half precision where the hardware computes in it, float32 elsewhere."""
    if wanted != "auto":
        if wanted == "fp16" and device.type == "cpu":
            raise ModelError("model.precision is fp16, which needs a GPU; a CPU takes bf16 or fp32")
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if _cpu_computes_bfloat16() else torch.float32


def _cpu_computes_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def gpus_alike() -> list[str]:
    """What CUDA_VISIBLE_DEVICES has to say for each GPU that is of the kind of the first, which is
    the one that we use ourselves: other kinds compute other digits. Empty without CUDA."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(number) for number in range(count)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    pairs = zip(visible.split(","), names, strict=False)
    return [number for number, name in pairs if name == names[0]]


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on every GPU (float16 would need its gradients scaled) and on a CPU that has it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=_has_half(device))


@cache
def _has_half(device: torch.device) -> bool:
    return choose_dtype("auto", device) is not torch.float32
