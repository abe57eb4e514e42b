"""Places of a picture: how they are described, along which axes, and how a file keeps those."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from colordaemon.errors import ModelError
from colordaemon.network.checkpoint import (
    BUILT_IN,
    load_model,
    read_tensors,
    save_fitted,
    save_model,
)
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet
from colordaemon.network.places import Axes, AxesFit, places_size
from colordaemon.network.quantized import peak_names

CPU = torch.device("cpu")


def features(height: int = 16, width: int = 24) -> list[Tensor]:
    """Layers of 5, 7 and 3 channels at a quarter, an eighth and a quarter of a size."""
    shapes = ((5, height, width), (7, height // 2, width // 2), (3, height, width))
    return [torch.randn(1, *shape) for shape in shapes]


def identity(layers: Sequence[Tensor]) -> Axes:
    widths = [layer.shape[1] for layer in layers]
    return Axes(tuple((torch.zeros(width), torch.eye(width)) for width in widths))


def test_descriptions_have_unit_length() -> None:
    layers = features()
    places = identity(layers).describe(layers, 16, 24)
    assert places.shape == (16 * 24, 15)
    torch.testing.assert_close(places.norm(dim=1), torch.ones(16 * 24))


def test_a_layer_ten_times_as_strong_counts_no_more() -> None:
    layers = features()
    axes = identity(layers)
    strong = [layers[0], 10 * layers[1], layers[2]]
    torch.testing.assert_close(axes.describe(strong, 16, 24), axes.describe(layers, 16, 24))


def test_what_lies_beyond_the_picture_is_left_out() -> None:
    layers = features()
    axes = identity(layers)
    whole = axes.describe(layers, 16, 24).reshape(16, 24, -1)
    part = axes.describe(layers, 13, 22).reshape(13, 22, -1)
    torch.testing.assert_close(part, whole[:13, :22])


def test_every_pixel_of_a_picture_is_in_a_place() -> None:
    assert places_size(192, 342) == (48, 86)
    assert places_size(2, 64) == (1, 16)


def test_axes_are_those_along_which_activations_vary_most() -> None:
    chance = torch.Generator().manual_seed(5)
    mixing, _ = torch.linalg.qr(torch.randn(100, 100, generator=chance))
    spread = torch.linspace(3, 0.01, 100)
    fit = AxesFit(torch.Generator().manual_seed(0))
    for _ in range(20):
        layer = torch.randn(1, 200, 100, generator=chance) * spread @ mixing + 5
        layer = layer.transpose(1, 2).unflatten(2, (10, 20))
        fit.add([layer, layer])
    (mean, axes), (_, scaled) = fit.fit().layers
    assert axes.shape == (64, 100) and scaled.shape == (32, 100)
    torch.testing.assert_close(mean, torch.full((100,), 5.0), atol=0.2, rtol=0)
    torch.testing.assert_close(axes @ axes.T, torch.eye(64), atol=1e-5, rtol=0)
    # The strongest directions that the activations were made of lie within the axes.
    assert ((mixing[:40] @ axes.T).norm(dim=1) > 0.97).all()
    # Of the decoder, variance is evened out: from 9 to the fourth root of it.
    assert (scaled.norm(dim=1) * axes[:32].norm(dim=1)).diff().min() > 0


def test_the_fit_is_always_the_same() -> None:
    layers = [features() for _ in range(4)]
    fits = []
    for _ in range(2):
        fit = AxesFit(torch.Generator().manual_seed(0), per_picture=30)
        for each in layers:
            fit.add(each)
        fits.append(fit.fit())
    for one, other in zip(fits[0].layers, fits[1].layers, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_axes_come_back_from_a_file(tmp_path: Path, tiny_model: ColorNet) -> None:
    save_model(tmp_path / "model", tiny_model, {})
    loaded = load_model(tmp_path / "model")
    assert loaded.axes is not None and tiny_model.axes is not None
    for one, other in zip(loaded.axes.layers, tiny_model.axes.layers, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_what_is_fitted_changes_no_more_of_a_file(tmp_path: Path, tiny_model: ColorNet) -> None:
    path, axes = tmp_path / "model", tiny_model.axes
    tiny_model.axes = None
    save_model(path, tiny_model, {"labels": ["animal"]})
    before = read_tensors(path)
    assert load_model(path).axes is None and axes is not None
    peaks = dict.fromkeys(peak_names(tiny_model), 2.5)
    for _ in range(2):  # the second time they take the place of the first
        save_fitted(path, axes, peaks)
        assert load_model(path).peaks == peaks
        metadata, tensors = read_tensors(path)
        del metadata["peaks"]
        assert metadata == before[0]
        assert all(torch.equal(tensors[name], tensor) for name, tensor in before[1].items())
        assert len(tensors) == len(before[1]) + 2 * len(axes.layers)


@pytest.mark.parametrize("change", ["width", "missing", "number"])
def test_axes_of_another_network_are_refused_with_the_file(
    tmp_path: Path, tiny_model: ColorNet, change: str
) -> None:
    path = tmp_path / "model"
    save_model(path, tiny_model, {})
    metadata, tensors = read_tensors(path)
    if change == "width":
        tensors["axes.1.axes"] = tensors["axes.1.axes"][:, :-1].contiguous()
    elif change == "missing":
        del tensors["axes.1.mean"]
    else:
        tensors["axes.0.mean"][0] = float("nan")
    save_file(tensors, path, metadata)
    with pytest.raises(ModelError, match="axes") as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_axes_for_another_network_are_never_written(tmp_path: Path, tiny_model: ColorNet) -> None:
    path = tmp_path / "model"
    save_model(path, tiny_model, {})
    before = path.read_bytes()
    with pytest.raises(ModelError, match="do not fit the spec"):
        save_fitted(path, identity(features()), {})
    assert path.read_bytes() == before


def test_a_model_without_axes_says_what_to_do(tiny_model: ColorNet) -> None:
    tiny_model.axes = None
    colorizer = Colorizer(tiny_model, CPU, torch.float32)
    assert not colorizer.compares
    with pytest.raises(ModelError, match="--fit-axes"):
        colorizer.describe([], 4, 4)


@pytest.mark.skipif(not BUILT_IN.exists(), reason="this checkout has no built-in model")
def test_the_built_in_model_compares_pictures_and_stays_small() -> None:
    axes = load_model(BUILT_IN).axes
    assert axes is not None
    assert [len(rows) for _, rows in axes.layers] == [64, 64, 64, 32]
    assert BUILT_IN.stat().st_size < 32e6
