"""How fast the network alone runs, beside the fastest matrix product of the same device.

    python benchmarks/network.py [--device cpu|cuda] [--quality …] [--seconds 3] [--json FILE]

Prints pictures per second and the share of the measured peak for each batch size. The peak is that
of a large matrix product in the same precision; multiplications and additions of the convolutions
are counted, nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine
from torch import Tensor, nn

from colordaemon.network.checkpoint import BUILT_IN, load_model
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.device import choose_device, choose_dtype


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dtype = choose_dtype("auto", device)
    machine = describe_machine()
    print(machine)
    peak = matrix_peak(device, dtype, arguments.seconds)
    print(f"matrix product, {dtype}: {peak / 1e12:.2f} TFLOP/s")
    rows = [
        measure(size, arguments.quality, device, dtype, peak, arguments.seconds)
        for size in arguments.batches
    ]
    for row in rows:
        print(
            f"batch {row['batch']}, {row['height']}x{row['width']}: {row['fps']:.1f} pictures/s, "
            f"{row['tflops']:.2f} TFLOP/s, {row['share']:.0%} of the peak"
        )
    if arguments.json:
        result = {"machine": machine, "dtype": str(dtype), "peak_tflops": peak / 1e12, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """FLOP/s of a square matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 * rate(lambda: one @ other, device, seconds)


def measure(
    size: int,
    quality: Any,
    device: torch.device,
    dtype: torch.dtype,
    peak: float,
    seconds: float,
) -> dict[str, Any]:
    model = load_model(BUILT_IN)
    short = Colorizer(load_model(BUILT_IN), torch.device("cpu"), torch.float32, quality=quality)
    height, width = short.network_size(9, 16)
    flops = size * operations(model, height, width)
    colorizer = Colorizer(model, device, dtype, quality=quality, batch_size=size)
    gray = torch.rand(size, 1, height, width, device=device)
    per_second = rate(lambda: colorizer.predict_ab(gray), device, seconds)
    return {
        "batch": size,
        "height": height,
        "width": width,
        "fps": size * per_second,
        "tflops": flops * per_second / 1e12,
        "share": flops * per_second / peak,
    }


def operations(model: nn.Module, height: int, width: int) -> int:
    """Multiplications and additions of all convolutions for one picture, padded as it will be."""
    total = 0

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += 2 * output.numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.inference_mode():
        model(torch.zeros(1, 1, -(-height // 32) * 32, -(-width // 32) * 32))
    for hook in hooks:
        hook.remove()
    return total


def rate(work: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """How often a second, after a warm-up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(3):
        work()
    wait()
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        work()
        wait()
        count += 1
    return count / (time.monotonic() - began)


if __name__ == "__main__":
    main()
