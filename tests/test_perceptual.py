"""The perceptual loss on a miniature VGG: what it sees, what it does not, and that it teaches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from vgg import RgbVgg, save_vgg

from colordaemon.color import AB_LIMIT, lab_to_rgb
from colordaemon.errors import ModelError
from colordaemon.network.model import Heads, ModelSpec
from colordaemon.training.losses import Perceptual, TrueColor


@pytest.fixture
def vgg(tiny_spec: ModelSpec) -> RgbVgg:
    return RgbVgg(tiny_spec)


@pytest.fixture
def perceptual(vgg: RgbVgg, tiny_spec: ModelSpec, tmp_path: Path) -> Perceptual:
    return Perceptual(save_vgg(tmp_path / "vgg.safetensors", vgg), tiny_spec)


@pytest.fixture
def truth() -> TrueColor:
    return TrueColor(torch.rand(2, 1, 32, 32) * 60 + 20, torch.randn(2, 2, 32, 32) * 10)


def said(ab: Tensor) -> Heads:
    return Heads(ab / AB_LIMIT, None)


def test_the_truth_itself_costs_nothing(perceptual: Perceptual, truth: TrueColor) -> None:
    assert perceptual(said(truth.ab), truth).item() == pytest.approx(0, abs=1e-3)


def test_colors_cost_more_the_further_they_are_off(
    perceptual: Perceptual, truth: TrueColor
) -> None:
    off = torch.tensor([15.0, -10.0]).reshape(1, 2, 1, 1)
    costs = [perceptual(said(truth.ab + share * off), truth).item() for share in (0.25, 0.5, 1)]
    assert 0.001 < costs[0] < costs[1] < costs[2]


def test_the_network_learns_from_it_and_vgg_does_not(
    perceptual: Perceptual, truth: TrueColor
) -> None:
    ab = torch.zeros(2, 2, 32, 32, requires_grad=True)
    perceptual(Heads(ab, None), truth).backward()
    assert ab.grad is not None and ab.grad.isfinite().all() and ab.grad.any()
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())


def test_the_strength_of_vggs_activations_does_not_matter(
    vgg: RgbVgg, tiny_spec: ModelSpec, perceptual: Perceptual, truth: TrueColor, tmp_path: Path
) -> None:
    """The original weights of VGG reach activations of thousands, torchvision's do not."""
    with torch.no_grad():
        gain = 1.0
        for layer in vgg.features:
            if isinstance(layer, torch.nn.Conv2d):
                assert layer.bias is not None
                gain *= 3
                layer.weight *= 3
                layer.bias *= gain
    stronger = Perceptual(save_vgg(tmp_path / "strong.safetensors", vgg), tiny_spec)
    gray = Heads(torch.zeros_like(truth.ab), None)
    assert stronger(gray, truth).item() == pytest.approx(perceptual(gray, truth).item(), rel=0.02)


def test_it_sees_the_activations_of_the_original_network(
    vgg: RgbVgg, perceptual: Perceptual, truth: TrueColor
) -> None:
    """relu2_2, relu3_3 and relu4_3 for RGB, with torchvision's normalization."""
    rgb = lab_to_rgb(torch.cat((truth.lightness, truth.ab), dim=1)).clamp(0, 1)
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    layers = [*vgg.features]
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.MaxPool2d)]
    with torch.no_grad():
        wanted = torch.nn.Sequential(*layers[: pools[1]])((rgb - mean) / std)
        found = perceptual._activations(truth.lightness, truth.ab)[1].float()
    # Padding differs at the border; elsewhere bfloat16 keeps two digits or three.
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inner], wanted[inner], atol=0.02, rtol=0.03)


def test_a_vgg_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.safetensors: no such model file"):
        Perceptual(tmp_path / "none.safetensors")
