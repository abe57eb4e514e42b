"""Codes of HDR film mean the light that standards say, and its colors are those asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colordaemon.color import Matrix, PixelCode, chroma_planes
from colordaemon.transfer import REFERENCE_WHITE, Transfer, gray_to_light, light_to_rgb, shown_gray

HDR = [Transfer.PQ, Transfer.HLG]
# XYZ of BT.2020 primaries, and its luminances; ITU-R BT.2020 by way of colour-science 0.4.
XYZ = np.array([[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017],
                [0.0, 0.0280727, 1.0609851]])  # fmt: skip


def nits(code: float, transfer: Transfer) -> float:
    return float(gray_to_light(torch.tensor(code, dtype=torch.float64), transfer)) * REFERENCE_WHITE


@pytest.mark.parametrize(
    ("code", "light"),
    # Report ITU-R BT.2408-7, tables 1 and 2: gray card and white of PQ and HLG, in whole percents.
    [(0.38, 26), (0.58, 203), (0.75, 1000), (1.0, 10000)],
)
def test_pq_means_absolute_light(code: float, light: float) -> None:
    assert nits(code - 0.005, Transfer.PQ) < light <= nits(min(1.0, code + 0.005), Transfer.PQ) + 1


@pytest.mark.parametrize(("code", "light"), [(0.38, 26), (0.75, 203), (1.0, 1000)])
def test_hlg_is_shown_on_a_display_of_1000_candela(code: float, light: float) -> None:
    assert nits(code - 0.005, Transfer.HLG) < light <= nits(min(1.0, code + 0.005), Transfer.HLG)


@pytest.mark.parametrize("transfer", HDR)
def test_the_curves_go_back_to_where_they_came_from(transfer: Transfer) -> None:
    gray = torch.linspace(0.02, 1, 99, dtype=torch.float64)
    light = gray_to_light(gray, transfer)
    torch.testing.assert_close(light_to_rgb(light, light, transfer), gray, atol=1e-6, rtol=0)


@pytest.mark.parametrize("transfer", HDR)
def test_a_network_sees_hdr_as_a_photo_would_show_it(transfer: Transfer) -> None:
    shown = shown_gray(10, 64, 876, transfer)
    assert shown.shape == (1024,) and shown[64] == 0 and shown[940] == 1
    assert (np.diff(shown) >= 0).all()
    dark = 64 + round(876 * 0.35)
    light = float(gray_to_light(torch.tensor((dark - 64) / 876), transfer))
    seen = ((float(shown[dark]) + 0.055) / 1.055) ** 2.4  # the light of sRGB
    assert seen == pytest.approx(light, rel=0.01)  # dark and middle tones stay what they are
    white = 0.58 if transfer is Transfer.PQ else 0.75  # what a white wall has in HDR
    assert 0.8 < shown[64 + round(876 * white)] < 0.95


def displayed_light(rgb: np.ndarray, transfer: Transfer) -> np.ndarray:
    """cd/m² of R'G'B' (3,), written anew from BT.2100."""
    rgb = np.clip(rgb, 0, 1)
    if transfer is Transfer.PQ:
        root = rgb ** (32 / 2523)
        return 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
            16384 / 2610
        )
    scene = np.where(rgb <= 0.5, rgb**2 / 3, (np.exp((rgb - 0.55991073) / 0.17883277)
                                              + 0.28466892) / 12)  # fmt: skip
    light: np.ndarray = 1000 * (XYZ[1] @ scene) ** 0.2 * scene
    return light


def displayed_ab(gray: float, cb: float, cr: float, transfer: Transfer) -> np.ndarray:
    """Lab a and b, relative to the reference white, of a color of BT.2020."""
    red, blue = gray + 1.4746 * cr, gray + 1.8814 * cb
    green = (gray - 0.2627 * red - 0.0593 * blue) / 0.678
    xyz = XYZ @ displayed_light(np.array([red, green, blue]), transfer) / 203 / XYZ.sum(axis=1)
    x, y, z = np.cbrt(xyz)
    return np.array([500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("transfer", HDR)
@pytest.mark.parametrize("gray", [0.35, 0.45, 0.508, 0.58, 0.75])
@pytest.mark.parametrize("asked", [(15.0, 20.0), (-10.0, -25.0), (40.0, 30.0), (0.0, 0.0)])
def test_hdr_shows_the_color_that_was_asked_for(
    transfer: Transfer, gray: float, asked: tuple[float, float]
) -> None:
    code = PixelCode(Matrix.BT2020, 12, subsampling=(1, 1), transfer=transfer)
    luma = torch.full((1, 1, 4, 4), round(256 + 3504 * gray), dtype=torch.int32).to(torch.uint16)
    ab = torch.tensor(asked)[None, :, None, None].expand(1, 2, 2, 2)
    cb, cr = (chroma_planes(luma, ab, code)[0, :, 2, 2].numpy().astype(float) - 2048) / 3584
    found = displayed_ab((float(luma[0, 0, 0, 0]) - 256) / 3504, cb, cr, transfer)
    np.testing.assert_allclose(found, asked, atol=1.0)
