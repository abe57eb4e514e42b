"""Existing color: none, tint or real, on pictures made of shapes and noise."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from colordaemon.media.tint import ExistingColor, existing_color

SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))


def scene(seed: int = 3, height: int = 150, width: int = 200) -> np.ndarray:
    """Gray (h, w) float32 0..255 with smooth tones, edges and texture."""
    rng = np.random.default_rng(seed)
    tones = cv2.resize(rng.uniform(0, 255, (6, 8)), (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(tones, (width // 3, height // 2), height // 5, 240.0, -1)
    cv2.rectangle(tones, (width // 2, height // 3), (width - 20, height - 25), 30.0, -1)
    noisy: np.ndarray = np.clip(tones + rng.normal(0, 6, tones.shape), 0, 255)
    return noisy.astype(np.float32)


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def sepia(gray: np.ndarray) -> np.ndarray:
    return np.clip(as_rgb(gray) @ np.array(SEPIA, np.float32).T, 0, 255)


def cyanotype(gray: np.ndarray) -> np.ndarray:
    share = gray[..., None] / 255
    return 255 * share ** np.array([1.9, 1.0, 0.55], np.float32)


def grainy(rgb: np.ndarray, codes: float) -> np.ndarray:
    return rgb + np.random.default_rng(7).normal(0, codes, rgb.shape)


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    codes = np.clip(rgb, 0, 255).round().astype(np.uint8)[..., ::-1]
    decoded = cv2.imdecode(cv2.imencode(".jpg", codes, options)[1], cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1].astype(np.float32)


def judge(rgb: np.ndarray) -> ExistingColor:
    red, green, blue = np.clip(rgb, 0, 255).astype(np.float32).transpose(2, 0, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return existing_color(luma, np.stack(((blue - luma) / 1.772, (red - luma) / 1.402)))


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_compressed_gray_has_no_color(quality: int) -> None:
    assert judge(jpeg(as_rgb(scene()), quality)) is ExistingColor.NONE


def test_colored_grain_on_gray_is_no_color() -> None:
    assert judge(jpeg(grainy(as_rgb(scene()), 12), 75)) is ExistingColor.NONE


@pytest.mark.parametrize("tone", [sepia, cyanotype])
@pytest.mark.parametrize("codes", [0, 8])
def test_toning_is_a_tint_however_strong(
    tone: Callable[[np.ndarray], np.ndarray], codes: float
) -> None:
    assert judge(jpeg(grainy(tone(scene()), codes), 60)) is ExistingColor.TINT


def test_a_cast_of_the_scanner_is_a_tint() -> None:
    assert judge(as_rgb(scene()) * (1.0, 0.95, 0.82) + (0, 6, 12)) is ExistingColor.TINT


def test_a_duotone_is_a_tint() -> None:
    share = scene()[..., None] / 255
    shadows, lights = np.array([20.0, 30.0, 90.0]), np.array([255.0, 235.0, 190.0])
    assert judge(shadows + (lights - shadows) * share) is ExistingColor.TINT


def test_a_tint_in_a_paper_border_is_a_tint() -> None:
    rgb = sepia(scene())
    framed = np.full_like(rgb, (225, 228, 235))
    framed[10:-10, 12:-12] = rgb[10:-10, 12:-12]
    assert judge(framed) is ExistingColor.TINT


def test_a_tint_of_one_tone_is_a_tint() -> None:
    assert judge(np.full((40, 40, 3), (180.0, 140.0, 90.0))) is ExistingColor.TINT


def test_a_pale_photo_of_several_hues_is_color() -> None:
    rng = np.random.default_rng(11)
    hues = cv2.resize(rng.normal(0, 12, (5, 7, 3)), (200, 150), interpolation=cv2.INTER_CUBIC)
    assert judge(jpeg(as_rgb(scene()) + hues, 75)) is ExistingColor.COLOR


def test_a_small_colored_thing_in_a_gray_street_is_color() -> None:
    rgb = as_rgb(scene())
    cv2.circle(rgb, (120, 60), 15, (190.0, 60.0, 60.0), -1)  # 2.4 % of the picture
    assert judge(rgb) is ExistingColor.COLOR


def test_an_ink_stamp_in_the_corner_is_not_color() -> None:
    rgb = as_rgb(scene())
    rgb[2:12, 2:18] = (200, 40, 40)
    assert judge(rgb) is ExistingColor.NONE


def test_an_ink_spot_inside_is_not_color() -> None:
    rgb = as_rgb(scene())
    rgb[70:77, 90:97] = (200, 40, 40)
    assert judge(rgb) is ExistingColor.NONE


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (7, 5)])
def test_tiny_pictures_are_judged_too(size: tuple[int, int]) -> None:
    assert judge(np.full((*size, 3), 90.0)) is ExistingColor.NONE


def test_integer_codes_are_taken_as_they_come() -> None:
    luma = scene().astype(np.uint8)
    assert existing_color(luma, np.zeros((2, *luma.shape), np.int16)) is ExistingColor.NONE
