"""Miniature VGG weights for tests, in the layout of torchvision's."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from colordaemon.network.model import ModelSpec


class RgbVgg(nn.Module):
    """The convolutions of a VGG as torchvision lays them out, with three input channels."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number, stage in enumerate(spec.encoder):
            if number:
                layers.append(nn.MaxPool2d(2))
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.features(x)
        return features


def save_vgg(path: Path, vgg: nn.Module, metadata: dict[str, str] | None = None) -> Path:
    save_file(
        {name: tensor.contiguous() for name, tensor in vgg.state_dict().items()}, path, metadata
    )
    return path
