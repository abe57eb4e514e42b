"""The network in 8-bit integers: nearly the same colors, and only where they come out right."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_colorizer import picture
from torch import Tensor
from torch.nn import functional

from colordaemon.color import gray_to_lightness
from colordaemon.errors import ModelError
from colordaemon.evaluation.metrics import delta_e_2000
from colordaemon.network import device
from colordaemon.network.checkpoint import BUILT_IN, load_model, read_tensors, save_model
from colordaemon.network.colorizer import Colorizer, open_colorizer
from colordaemon.network.device import choose_dtype, cpu_multiplies_bytes
from colordaemon.network.model import ColorNet, ModelSpec
from colordaemon.network.quantized import peak_names, watched_peaks

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    not cpu_multiplies_bytes(), reason="needs a processor with AVX-512 VNNI"
)


@pytest.fixture
def prepared(tiny_model: ColorNet) -> ColorNet:
    """The miniature with peaks."""
    return with_peaks(tiny_model)


def with_peaks(model: ColorNet) -> ColorNet:
    shown = Colorizer(copy.deepcopy(model), CPU, torch.float32)
    with watched_peaks(shown._model) as peaks:  # type: ignore[arg-type]
        for number in range(4):
            torch.manual_seed(number)
            shown.predict_ab(picture())
    model.peaks = peaks
    return model


@pytest.fixture(autouse=True)
def same_pictures() -> None:
    torch.manual_seed(99)


def errors(one: Colorizer, other: Colorizer, gray: Tensor) -> Tensor:
    """CIEDE2000 of each place."""
    ab, expected = one.predict_ab(gray), other.predict_ab(gray)
    lightness = gray_to_lightness(functional.interpolate(gray, ab.shape[-2:], mode="area"))
    return delta_e_2000(*(torch.cat((lightness, color), dim=1) for color in (ab, expected)))


@pytest.mark.skipif(not BUILT_IN.exists(), reason="this checkout has no built-in model")
def test_integers_say_the_colors_of_float32_within_half_a_delta_e() -> None:
    exact = open_colorizer(None, "cpu", "fp32", "draft", 1)
    quick = open_colorizer(None, "cpu", "int8", "draft", 1)
    pictures = [picture() for _ in range(4)]
    apart = torch.stack([errors(quick, exact, gray) for gray in pictures])
    assert apart.mean() < 0.5
    assert apart.flatten().quantile(0.99) < 1.5
    strengths = [
        float(torch.cat([one.predict_ab(gray) for gray in pictures]).norm(dim=1).mean())
        for one in (quick, exact)
    ]
    assert strengths[1] > 2  # there is color at all
    assert strengths[0] == pytest.approx(strengths[1], rel=0.02)


SPECS = {
    "three stages": ModelSpec(((8,), (16,), (24,)), (16, 8), 64, ((0.0, 0.0), (40.0, 40.0))),
    "no bins": ModelSpec(((8,), (16,), (24,), (24,)), (16, 16, 8), 64),
}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("size", [(64, 64), (64, 93), (150, 64)])
def test_networks_of_every_kind_and_pictures_of_every_shape_come_out_right(
    kind: str, size: tuple[int, int]
) -> None:
    model = ColorNet(SPECS[kind])
    torch.nn.init.normal_(model.decoder.head.weight, std=0.3)
    prepared = with_peaks(model.eval())
    exact = Colorizer(copy.deepcopy(prepared), CPU, torch.float32, quality="best")
    quick = Colorizer(prepared, CPU, torch.int8, quality="best")
    gray = picture(*size)
    assert exact.predict_ab(gray).norm(dim=1).mean() > 2
    assert errors(quick, exact, gray).mean() < 0.5


def test_a_picture_has_the_same_colors_alone_and_beside_others(prepared: ColorNet) -> None:
    colorizer = Colorizer(prepared, CPU, torch.int8, batch_size=4)
    pictures = torch.cat([picture() for _ in range(4)])
    together = colorizer.guess(pictures)
    alone = [colorizer.guess(each[None]) for each in pictures]
    for part, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(part, torch.cat(parts))


def test_weights_are_put_in_order_once_for_each_shape(
    prepared: ColorNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    prepack = torch.ops.onednn.qconv_prepack

    def counting(*arguments: object) -> Tensor:
        nonlocal calls
        calls += 1
        packed: Tensor = prepack(*arguments)
        return packed

    monkeypatch.setattr(torch.ops.onednn, "qconv_prepack", counting)
    colorizer = Colorizer(prepared, CPU, torch.int8, batch_size=4)
    found = []
    for batch in (1, 4):
        for size in [(64, 64), (64, 96), (96, 64), (64, 192)]:
            colorizer.predict_ab(picture(*size).expand(batch, 1, *size))
            found.append(calls)
    first = found[0]
    assert first > 0 and found == [first, 2 * first, 3 * first, *5 * [4 * first]]


def test_places_are_described_as_by_float32(prepared: ColorNet) -> None:
    exact = Colorizer(copy.deepcopy(prepared), CPU, torch.float32)
    quick = Colorizer(prepared, CPU, torch.int8)
    gray, places = picture(64, 64), []
    for colorizer in (exact, quick):
        [look] = colorizer.looks(gray)
        places.append(colorizer.describe(look.features, 8, 8))
    cosines = (places[0] * places[1]).sum(dim=1)
    assert cosines.min() > 0.98


def test_a_model_that_is_not_prepared_is_no_less_usable(
    tmp_path: Path, tiny_model: ColorNet
) -> None:
    save_model(path := tmp_path / "model", tiny_model, {})
    assert "int8" not in str(open_colorizer(path, "cpu", "auto", "best", 1))
    with pytest.raises(ModelError, match="--fit-axes"):
        open_colorizer(path, "cpu", "int8", "best", 1)


def test_a_prepared_model_computes_in_integers_where_it_can(
    tmp_path: Path, prepared: ColorNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(path := tmp_path / "model", prepared, {})
    assert "int8" in str(open_colorizer(path, "cpu", "auto", "best", 1))
    assert choose_dtype("auto", torch.device("cuda"), integers=True) is torch.float16
    (flags := tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 avx512_vnni2\n")
    monkeypatch.setattr(device, "CPUINFO", flags)
    assert "fp32" in str(open_colorizer(path, "cpu", "auto", "best", 1))
    with pytest.raises(ModelError, match="VNNI"):
        open_colorizer(path, "cpu", "int8", "best", 1)


@pytest.mark.parametrize(
    "peaks", ["[]", "{", '{"decoder.climbs.0": 2}', '"no number"', "negative", "infinite"]
)
def test_peaks_of_another_network_are_refused_with_the_file(
    tmp_path: Path, prepared: ColorNet, peaks: str
) -> None:
    save_model(path := tmp_path / "model", prepared, {})
    metadata, tensors = read_tensors(path)
    wrong = {"negative": -1.0, "infinite": float("inf")}
    if peaks in wrong:
        peaks = json.dumps(dict.fromkeys(peak_names(prepared), wrong[peaks]))
    save_file(tensors, path, metadata | {"peaks": peaks})
    with pytest.raises(ModelError, match="peaks") as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_layer_that_says_nothing_is_no_error(prepared: ColorNet) -> None:
    prepared.peaks = dict.fromkeys(peak_names(prepared), 0.0)
    assert Colorizer(prepared, CPU, torch.int8).predict_ab(picture(64, 64)).isfinite().all()
