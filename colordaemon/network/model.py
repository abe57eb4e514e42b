"""The network: gray in, Lab ab out. A VGG16 encoder, a U-Net decoder, and nothing else.

The encoder is configuration D of Simonyan & Zisserman 2014 in torchvision's layout, its first
convolution folded to one luma channel. The decoder climbs back with bilinear enlargement and
convolution (transposed convolutions leave checkerboards), takes in the encoder's last activation of
each scale on the way, and is told the whole picture's content by a pooled vector. It stops at half
size: ab at half of 256 px is 37.5 dB accurate with perfect colors, and the scale of relu1_2 would
cost more than all others together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from colordaemon.color import AB_LIMIT

# Subtracted from the input, so that zero padding looks like mid gray, as VGG learned.
MID_GRAY = 0.45


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to rebuild a network.

    encoder: widths of the convolutions of each stage; each stage after the first halves the size.
    decoder: widths at each scale from the deepest stage up to half size, so one fewer than stages.
    short_side: pixels of the shorter picture side that the network is meant to see.
    """

    encoder: tuple[tuple[int, ...], ...] = (
        (64, 64),
        (128, 128),
        (256, 256, 256),
        (512, 512, 512),
        (512, 512, 512),
    )
    decoder: tuple[int, ...] = (384, 256, 192, 96)
    short_side: int = 256

    def __post_init__(self) -> None:
        if len(self.decoder) != len(self.encoder) - 1:
            raise ValueError(
                f"decoder needs {len(self.encoder) - 1} widths for {len(self.encoder)} encoder "
                f"stages, got {len(self.decoder)}"
            )

    @property
    def multiple(self) -> int:
        """Input sides have to be multiples of this many pixels."""
        return int(2 ** len(self.encoder))


class ColorNet(nn.Module):
    """Guess Lab ab from gray.

    forward: (N, 1, h, w) gamma-coded gray in 0..1, h and w multiples of `spec.multiple`, to
    (N, 2, h/2, w/2) ab / 110, unbounded.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec.encoder)
        self.decoder = Decoder([stage[-1] for stage in spec.encoder], spec.decoder)

    def forward(self, gray: Tensor) -> Tensor:
        ab: Tensor = self.decoder(self.encoder(gray - MID_GRAY))
        return ab

    def predict(self, gray: Tensor) -> Tensor:
        """As forward, in Lab units and float32, clamped to the range of real colors."""
        ab: Tensor = self(gray)
        return (ab.float() * AB_LIMIT).clamp(-AB_LIMIT, AB_LIMIT)


class Encoder(nn.Module):
    """VGG convolutions; returns the last activation of every stage, largest first."""

    def __init__(self, stages: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels = 1
        for widths in stages:
            stage = nn.ModuleList()
            for width in widths:
                stage.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                channels = width
            self.stages.append(stage)

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """All convolutions, in order."""
        return [layer for layer in self.stages.modules() if isinstance(layer, nn.Conv2d)]

    def forward(self, x: Tensor) -> list[Tensor]:
        taps: list[Tensor] = []
        for stage in self.stages:
            if taps:
                x = functional.max_pool2d(x, 2)
            for conv in stage.children():
                x = functional.relu(conv(x))
            taps.append(x)
        return taps


class Decoder(nn.Module):
    """From the encoder's activations to ab / 110 at half size."""

    def __init__(self, taps: list[int], widths: tuple[int, ...]) -> None:
        super().__init__()
        deepest = taps[-1]
        self.bottom = nn.Sequential(
            *_conv_norm_relu(deepest, widths[0]), *_conv_norm_relu(widths[0], widths[0])
        )
        self.content = nn.Linear(deepest, widths[0])
        self.climbs = nn.ModuleList(
            Climb(below, skip, width)
            for below, skip, width in zip(widths, reversed(taps[1:-1]), widths[1:], strict=False)
        )
        self.head = nn.Conv2d(widths[-1], 2, kernel_size=3, padding=1)
        nn.init.zeros_(self.head.weight)  # an untrained network says gray, not noise or a tint
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, taps: list[Tensor]) -> Tensor:
        content = self.content(taps[-1].mean(dim=(2, 3)))
        x = self.bottom(taps[-1]) + content[:, :, None, None]
        for climb, skip in zip(self.climbs, reversed(taps[1:-1]), strict=True):
            x = climb(x, skip)
        ab: Tensor = self.head(x)
        return ab


class Climb(nn.Module):
    """One scale up: enlarge, take in the encoder's activation, mix."""

    def __init__(self, below: int, skip: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            *_conv_norm_relu(below + skip, width), *_conv_norm_relu(width, width)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        mixed: Tensor = self.mix(torch.cat((x, skip), dim=1))
        return mixed


def _conv_norm_relu(channels: int, width: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def fold_norms(model: ColorNet) -> ColorNet:
    """Fold every batch norm into the convolution before it: same output, a third fewer passes."""
    model.eval()
    blocks = [block for block in model.decoder.modules() if isinstance(block, nn.Sequential)]
    for block in blocks:
        for i, layer in enumerate(block):
            if isinstance(layer, nn.BatchNorm2d):
                conv = block[i - 1]
                assert isinstance(conv, nn.Conv2d)
                block[i - 1] = fuse_conv_bn_eval(conv, layer)
                block[i] = nn.Identity()
    return model
