"""The network at work: half precision costs little, and memory that runs out is no end."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import AB_LIMIT
from colordaemon.errors import ModelError
from colordaemon.network import device
from colordaemon.network.checkpoint import BUILT_IN
from colordaemon.network.colorizer import Colorizer, open_colorizer
from colordaemon.network.model import ColorNet, Look


def picture(height: int = 120, width: int = 160) -> Tensor:
    """Shapes of all sizes with some grain, (1, 1, height, width) 0..1."""
    layers = [
        functional.interpolate(torch.rand(1, 1, side, side), (height, width), mode="bilinear")
        for side in (2, 5, 13, 40)
    ]
    return (torch.stack(layers).mean(0) + 0.02 * torch.randn(1, 1, height, width)).clamp(0, 1)


def difference(one: Colorizer, other: Colorizer, gray: Tensor) -> float:
    """The greatest distance of colors in the ab plane."""
    return float((one.predict_ab(gray).cpu() - other.predict_ab(gray).cpu()).norm(dim=1).max())


@pytest.mark.skipif(not BUILT_IN.exists(), reason="this checkout has no built-in model")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_half_precision_is_within_two_ab_units_of_float32(device: str) -> None:
    exact = open_colorizer(None, "cpu", "fp32", "draft", 1)
    half = open_colorizer(None, device, "bf16" if device == "cpu" else "fp16", "draft", 1)  # type: ignore[arg-type]
    gray = picture()
    assert exact.predict_ab(gray).norm(dim=1).mean() > 2  # there is color at all
    assert difference(exact, half, gray) < 2


def test_saturation_is_a_factor_within_the_range_of_real_colors(tiny_model: ColorNet) -> None:
    gray = picture(64, 64)
    plain, none, strong = (
        Colorizer(copy.deepcopy(tiny_model), torch.device("cpu"), torch.float32, saturation=factor)
        for factor in (1.0, 0.0, 1.5)
    )
    ab = plain.predict_ab(gray)
    assert none.predict_ab(gray).abs().max() == 0
    expected = (1.5 * ab).clamp(-AB_LIMIT, AB_LIMIT)
    torch.testing.assert_close(strong.predict_ab(gray), expected)
    assert str(strong) != str(plain)  # so that segments of a film never mix the two


def test_batches_shrink_when_memory_runs_out(
    tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    colorizer = Colorizer(tiny_model, torch.device("cpu"), torch.float32, batch_size=8)
    gray = torch.cat([picture(64, 64) for _ in range(7)])
    expected = colorizer.predict_ab(gray)
    look, room = ColorNet.look, 2

    def small(model: ColorNet, luma: Tensor) -> Look:
        if len(luma) > room:
            raise torch.OutOfMemoryError
        return look(model, luma)

    monkeypatch.setattr(ColorNet, "look", small)
    torch.testing.assert_close(colorizer.predict_ab(gray), expected, atol=1e-3, rtol=0)
    assert colorizer.batch_size == 2
    assert caplog.text.count("out of GPU memory") == 2
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        colorizer.predict_ab(gray)


def test_a_card_that_cuda_does_not_find_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "NVIDIA_CARD", tmp_path)
    assert device.choose_device("auto").type == "cpu"
    assert "CUDA finds none" in caplog.text
    assert device.overlooks_gpu("auto") and not device.overlooks_gpu("cpu")
    monkeypatch.setattr(device, "NVIDIA_CARD", tmp_path / "nvidia0")
    assert not device.overlooks_gpu("auto")


def test_colors_that_are_no_numbers_are_never_given(tiny_model: ColorNet) -> None:
    broken = copy.deepcopy(tiny_model)
    with torch.no_grad():
        broken.decoder.head.bias.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="no finite numbers"):
        Colorizer(broken, torch.device("cpu"), torch.float32).predict_ab(picture())
