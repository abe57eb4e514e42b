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

CPUINFO = Path("/proc/cpuinfo")
OPERATORS = "qconv_prepack", "qconv_pointwise"  # of oneDNN, which `quantized` uses
NVIDIA_CARD = Path("/dev/nvidia0")  # what the driver shows of the first card
DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "int8": torch.int8,  # see `quantized`
}


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
    wanted: Literal["auto", "fp16", "bf16", "fp32", "int8"],
    device: torch.device,
    *,
    integers: bool = False,
) -> torch.dtype:
    """8-bit integers or half precision where the hardware computes in it, float32 elsewhere.

    integers: whether `auto` may choose integers. Raises ModelError for what was asked for and the
    hardware does not compute in.
    """
    can_integers = device.type == "cpu" and cpu_multiplies_bytes()
    if wanted != "auto":
        if wanted == "fp16" and device.type == "cpu":
            raise ModelError("model.precision is fp16, which needs a GPU; a CPU takes bf16 or fp32")
        if wanted == "int8" and not can_integers:
            raise ModelError(
                f"model.precision is int8 on {device.type}, which needs a processor with AVX-512 "
                "VNNI; others take bf16 or fp32, a GPU fp16"
            )
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.float16
    if integers and can_integers:
        return torch.int8
    flags = _processor_flags()
    return torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16"} else torch.float32


def cpu_multiplies_bytes() -> bool:
    """Whether the processor sums products of bytes without cutting them off, which is what VNNI
    does, and PyTorch can be asked to."""
    found = "avx512_vnni" in _processor_flags()
    return found and all(hasattr(torch.ops.onednn, name) for name in OPERATORS)


def _processor_flags() -> set[str]:
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return set(next(flags, "").split())


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
