"""The weights that training starts from: VGG16 as ImageNet taught it, made to fit our encoder."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from colordaemon.errors import ModelError
from colordaemon.network.checkpoint import read_tensors
from colordaemon.network.model import MID_GRAY, Encoder


def load_vgg(path: Path | None, encoder: Encoder) -> None:
    """Start an encoder from ImageNet VGG16 convolutions, folded to one gray channel if it has one.

    path: safetensors with torchvision's `features.N` keys, or None for torchvision's own weights.
    The file's metadata says what input they want: "RGB 0..255 minus (r,g,b), no division" for the
    original weights of Simonyan & Zisserman. Without such a mean, torchvision's normalization of
    0..1 is assumed. Raises ModelError.

    Activations are not rescaled here; see `balance`.
    """
    metadata, tensors = _torchvision_vgg() if path is None else read_tensors(path)
    kernels = [tensors[name].float() for name in _convolution_names(tensors, "weight")]
    biases = [tensors[name].float() for name in _convolution_names(tensors, "bias")]
    # VGG sees three channels where this encoder may see one; otherwise they are the same.
    wanted = [
        (c.out_channels, 3 if c.in_channels == 1 else c.in_channels, 3, 3)
        for c in encoder.convolutions
    ]
    widths = [shape[0] for shape in wanted]
    if [tuple(kernel.shape) for kernel in kernels] != wanted or [*map(len, biases)] != widths:
        raise ModelError(
            f"{path or 'torchvision'}: expected the {len(wanted)} convolutions of VGG16 with "
            f"widths {widths}, found {len(kernels)} with widths {[*map(len, kernels)]} and "
            f"{len(biases)} biases"
        )
    gain, mean = _input_convention(path, metadata.get("input", ""))
    # Each color channel would see gain * gray - mean; the network is fed gray - MID_GRAY.
    offset = gain * MID_GRAY - mean
    biases[0] = biases[0] + (kernels[0].sum(dim=(2, 3)) * offset).sum(dim=1)
    kernels[0] = kernels[0] * gain[None, :, None, None]
    if encoder.convolutions[0].in_channels == 1:
        kernels[0] = kernels[0].sum(dim=1, keepdim=True)
    for conv, kernel, bias in zip(encoder.convolutions, kernels, biases, strict=True):
        conv.load_state_dict({"weight": kernel, "bias": bias})


@torch.no_grad()
def balance(encoder: Encoder, gray: Tensor) -> None:
    """Rescale an encoder so that every activation has unit mean square, its features unchanged.

    ReLU and pooling pass a positive factor through, so dividing a convolution's output by s and the
    next one's kernel likewise cancels out. The original VGG weights reach activations of thousands;
    after this, half precision has room and the decoder meets all scales at the same strength.
    gray: (N, 1, h, w) typical pictures in 0..1.
    """
    x, incoming = gray - MID_GRAY, torch.tensor(1.0)
    for number, stage in enumerate(encoder.stages):
        if number:
            x = torch.nn.functional.max_pool2d(x, 2)
        for conv in stage.children():
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            conv.weight *= incoming  # the input now arrives divided by `incoming`
            raw = torch.relu(conv(x))
            scale = raw.square().mean().sqrt().clamp(min=1e-6)
            conv.weight /= scale
            conv.bias /= scale
            x, incoming = raw / scale, scale


def _torchvision_vgg() -> tuple[dict[str, str], dict[str, Tensor]]:
    # Slow to import, seldom needed.
    from torchvision.models import (  # type: ignore[import-untyped]  # torchvision ships no types
        VGG16_Weights,
        vgg16,
    )

    try:
        state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
    except (OSError, RuntimeError) as error:  # not reachable, or a download with a wrong hash
        raise ModelError(
            f"torchvision's VGG16 weights cannot be had ({error}); name a file"
        ) from error
    return {}, {name: tensor for name, tensor in state.items() if name.startswith("features.")}


def _convolution_names(tensors: dict[str, Tensor], kind: str) -> list[str]:
    """The names `features.N.kind` in the order of N."""
    pattern = re.compile(rf"features\.(\d+)\.{kind}")
    numbers = sorted(int(match[1]) for name in tensors if (match := pattern.fullmatch(name)))
    return [f"features.{number}.{kind}" for number in numbers]


def _input_convention(path: Path | None, described: str) -> tuple[Tensor, Tensor]:
    """(gain, mean) per RGB channel: the network saw gain * value - mean for values in 0..1."""
    if not described:
        std = torch.tensor([0.229, 0.224, 0.225])
        return 1 / std, torch.tensor([0.485, 0.456, 0.406]) / std
    number = r"\s*([\d.]+)\s*"
    mean = re.search(rf"0\.\.255 minus \({number},{number},{number}\)", described)
    if mean is None:
        raise ModelError(
            f"{path}: expected the input to be told as 'RGB 0..255 minus (r,g,b)', "
            f"found {described!r}"
        )
    return torch.full((3,), 255.0), torch.tensor([float(value) for value in mean.groups()])
