"""Color math against other people's numbers, and what must hold for any color."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from colordaemon.color import (
    AB_LIMIT,
    Matrix,
    PixelCode,
    Siting,
    ab_to_cbcr,
    chroma_planes,
    decode_luma,
    decode_ycbcr,
    enlarging,
    fit_to_gamut,
    gray_to_lightness,
    lab_to_rgb,
    lightness_to_gray,
    linear_to_srgb,
    rgb_to_lab,
    rgb_to_ycbcr,
    srgb_to_linear,
    ycbcr_to_rgb,
)

# scikit-image 0.26: skimage.color.rgb2lab(np.array([[rgb]], np.uint8)), D65, 2° observer.
# Its white is rounded to three digits and is not that of its matrix, so its grays are off by 0.005
# and its saturated colors by up to 0.02; ours have a = b = 0 for gray.
SCIKIT_IMAGE_LAB = (
    ((0, 0, 0), (0.0000, 0.0000, 0.0000)),
    ((255, 255, 255), (100.0000, -0.0025, 0.0047)),
    ((128, 128, 128), (53.5850, -0.0015, 0.0028)),
    ((255, 0, 0), (53.2406, 80.0923, 67.2028)),
    ((0, 255, 0), (87.7351, -86.1830, 83.1797)),
    ((0, 0, 255), (32.2957, 79.1856, -107.8573)),
    ((200, 150, 100), (65.7601, 12.7589, 33.5647)),
    ((12, 34, 56), (12.6562, 0.1214, -16.8316)),
    ((250, 240, 10), (92.8695, -16.3544, 90.4439)),
    ((90, 20, 130), (24.5943, 48.5738, -46.4602)),
    ((1, 2, 3), (0.5098, -0.1225, -0.4705)),
    ((37, 180, 190), (67.0892, -32.0207, -15.4471)),
)

# colour-science 0.4.7, for the same RGB and each matrix, bits and range:
# colour.RGB_to_YCbCr(rgb / 255, K=colour.WEIGHTS_YCBCR["ITU-R BT.709"], in_bits=8, in_int=False,
#                     in_legal=False, out_bits=bits, out_int=True, out_legal=not full_range)
COLOUR_SCIENCE_YCBCR = {
    (Matrix.BT601, 8, False): (
        (16, 128, 128),
        (235, 128, 128),
        (126, 128, 128),
        (81, 90, 240),
        (145, 54, 34),
        (41, 240, 110),
        (153, 99, 154),
        (42, 141, 117),
        (202, 25, 149),
        (62, 166, 151),
        (18, 129, 127),
        (135, 154, 64),
    ),
    (Matrix.BT601, 8, True): (
        (0, 128, 128),
        (255, 128, 128),
        (128, 128, 128),
        (76, 85, 255),
        (150, 44, 21),
        (29, 255, 107),
        (159, 95, 157),
        (30, 143, 115),
        (217, 11, 152),
        (53, 171, 154),
        (2, 129, 127),
        (138, 157, 56),
    ),
    (Matrix.BT601, 10, False): (
        (64, 512, 512),
        (940, 512, 512),
        (504, 512, 512),
        (326, 361, 960),
        (578, 215, 137),
        (164, 960, 439),
        (611, 395, 614),
        (167, 564, 467),
        (809, 102, 595),
        (248, 664, 604),
        (70, 514, 510),
        (539, 614, 258),
    ),
    (Matrix.BT601, 10, True): (
        (0, 512, 512),
        (1023, 512, 512),
        (514, 512, 512),
        (306, 339, 1023),
        (601, 173, 84),
        (117, 1023, 429),
        (639, 378, 629),
        (120, 571, 461),
        (870, 44, 607),
        (215, 685, 617),
        (7, 515, 510),
        (555, 629, 222),
    ),
    (Matrix.BT709, 8, False): (
        (16, 128, 128),
        (235, 128, 128),
        (126, 128, 128),
        (63, 102, 240),
        (173, 42, 26),
        (32, 240, 118),
        (151, 101, 152),
        (43, 140, 117),
        (210, 26, 142),
        (53, 169, 154),
        (18, 129, 128),
        (145, 147, 65),
    ),
    (Matrix.BT709, 8, True): (
        (0, 128, 128),
        (255, 128, 128),
        (128, 128, 128),
        (54, 99, 255),
        (182, 30, 12),
        (18, 255, 116),
        (157, 97, 155),
        (31, 142, 116),
        (226, 12, 144),
        (43, 175, 158),
        (2, 129, 127),
        (150, 149, 56),
    ),
    (Matrix.BT709, 10, False): (
        (64, 512, 512),
        (940, 512, 512),
        (504, 512, 512),
        (250, 409, 960),
        (691, 167, 105),
        (127, 960, 471),
        (603, 404, 608),
        (170, 560, 470),
        (839, 104, 567),
        (211, 677, 617),
        (70, 514, 510),
        (580, 587, 259),
    ),
    (Matrix.BT709, 10, True): (
        (0, 512, 512),
        (1023, 512, 512),
        (514, 512, 512),
        (217, 395, 1023),
        (732, 118, 47),
        (74, 1023, 465),
        (630, 389, 621),
        (124, 566, 464),
        (905, 46, 574),
        (172, 700, 632),
        (7, 514, 510),
        (603, 598, 223),
    ),
    (Matrix.BT2020, 8, False): (
        (16, 128, 128),
        (235, 128, 128),
        (126, 128, 128),
        (74, 97, 240),
        (164, 47, 25),
        (29, 240, 119),
        (154, 100, 152),
        (41, 140, 118),
        (213, 26, 141),
        (55, 168, 155),
        (18, 129, 128),
        (139, 150, 65),
    ),
    (Matrix.BT2020, 8, True): (
        (0, 128, 128),
        (255, 128, 128),
        (128, 128, 128),
        (67, 92, 255),
        (173, 36, 11),
        (15, 255, 118),
        (160, 96, 155),
        (30, 142, 116),
        (229, 12, 142),
        (45, 173, 159),
        (2, 129, 127),
        (143, 153, 56),
    ),
    (Matrix.BT2020, 10, False): (
        (64, 512, 512),
        (940, 512, 512),
        (504, 512, 512),
        (294, 387, 960),
        (658, 189, 100),
        (116, 960, 476),
        (614, 400, 607),
        (165, 561, 470),
        (851, 103, 562),
        (218, 671, 619),
        (70, 514, 510),
        (555, 600, 259),
    ),
    (Matrix.BT2020, 10, True): (
        (0, 512, 512),
        (1023, 512, 512),
        (514, 512, 512),
        (269, 369, 1023),
        (694, 143, 42),
        (61, 1023, 471),
        (643, 384, 620),
        (118, 568, 464),
        (919, 45, 569),
        (180, 693, 635),
        (7, 515, 510),
        (574, 612, 224),
    ),
}
RGB = torch.tensor([rgb for rgb, _ in SCIKIT_IMAGE_LAB]).float().T.reshape(3, 1, -1) / 255

GRID = torch.tensor(list(product(range(0, 256, 17), repeat=3))).float().T.reshape(3, 1, -1) / 255
SUBSAMPLINGS = ((1, 1), (2, 1), (2, 2), (1, 2), (4, 1))
unit = st.floats(0, 1, width=32)
matrices = st.sampled_from(Matrix)


def encode_ycbcr(ycbcr: Tensor, code: PixelCode) -> Tensor:
    """Y' 0..1 and Cb, Cr ±0.5 (*, 3, H, W) to integer codes, as int32."""
    luma = ycbcr[..., :1, :, :] * code.luma_span + code.black
    chroma = ycbcr[..., 1:, :, :] * code.chroma_span + code.neutral
    top = (1 << code.depth) - 1
    return torch.cat((luma, chroma), dim=-3).round().clamp(0, top).to(torch.int32)


def pixel(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1)


def smooth(*shape: int) -> Tensor:
    """A random picture without detail, 0..1."""
    coarse = torch.rand(*shape[:-2], 4, 4)
    return functional.interpolate(coarse, shape[-2:], mode="bilinear", align_corners=True)


def ramp(code: PixelCode, height: int, width: int) -> Tensor:
    """(1, 1, H, W) luma from black to white, of the type that the depth asks for."""
    shares = torch.linspace(0, 1, height * width).view(1, 1, height, width)
    dtype = torch.uint8 if code.depth == 8 else torch.uint16
    return (shares * code.luma_span + code.black).round().to(torch.int32).to(dtype)


def test_lab_agrees_with_scikit_image() -> None:
    expected = torch.tensor([lab for _, lab in SCIKIT_IMAGE_LAB]).T.reshape(3, 1, -1)
    torch.testing.assert_close(rgb_to_lab(RGB), expected, atol=0.02, rtol=0)
    # Within half a code of 8 bits.
    torch.testing.assert_close(lab_to_rgb(expected), RGB, atol=0.5 / 255, rtol=0)


@pytest.mark.parametrize(("matrix", "depth", "full_range"), COLOUR_SCIENCE_YCBCR)
def test_ycbcr_codes_agree_with_colour_science(
    matrix: Matrix, depth: int, full_range: bool
) -> None:
    code = PixelCode(matrix, depth, full_range)
    expected = torch.tensor(COLOUR_SCIENCE_YCBCR[matrix, depth, full_range]).T.reshape(3, 1, -1)
    codes = encode_ycbcr(rgb_to_ycbcr(RGB, matrix), code)
    torch.testing.assert_close(codes, expected.int(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("code", "numbers"),
    [
        (PixelCode(Matrix.BT709), (16, 219, 128, 224)),
        (PixelCode(Matrix.BT709, 10), (64, 876, 512, 896)),
        (PixelCode(Matrix.BT709, full_range=True), (0, 255, 128, 255)),
        (PixelCode(Matrix.BT709, 10, full_range=True), (0, 1023, 512, 1023)),
    ],
)
def test_codes_are_those_of_the_standards(code: PixelCode, numbers: tuple[int, ...]) -> None:
    assert (code.black, code.luma_span, code.neutral, code.chroma_span) == numbers


def test_gray_has_no_color_at_all() -> None:
    lab = rgb_to_lab(torch.linspace(0, 1, 1024).expand(3, 1, 1024))
    assert lab[1:].abs().max() < 1e-4


def test_every_srgb_color_stays_within_the_limit_of_ab() -> None:
    assert rgb_to_lab(GRID)[1:].abs().max() < AB_LIMIT


@given(st.tuples(unit, unit, unit))
def test_lab_and_back_is_the_same_color(rgb: tuple[float, float, float]) -> None:
    x = pixel(*rgb)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(x)), x, atol=2e-5, rtol=0)


@given(st.tuples(unit, unit, unit), matrices)
def test_ycbcr_and_back_is_the_same_color(rgb: tuple[float, float, float], matrix: Matrix) -> None:
    x = pixel(*rgb)
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(x, matrix), matrix), x, atol=2e-6, rtol=0)


@given(unit)
def test_linear_light_and_back_is_the_same_value(value: float) -> None:
    x = torch.tensor(value)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(x)), x, atol=1e-6, rtol=0)


@given(unit)
def test_gray_and_lightness_are_each_others_inverse(value: float) -> None:
    gray = torch.tensor(value)
    torch.testing.assert_close(lightness_to_gray(gray_to_lightness(gray)), gray, atol=1e-6, rtol=0)


def test_lightness_of_gray_is_that_of_lab() -> None:
    gray = torch.linspace(0, 1, 256)
    torch.testing.assert_close(
        gray_to_lightness(gray), rgb_to_lab(gray.expand(3, 1, 256))[0, 0], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("full_range", [False, True])
def test_decoded_codes_encode_to_themselves(depth: int, full_range: bool) -> None:
    code = PixelCode(Matrix.BT709, depth, full_range)
    codes = torch.arange(1 << depth, dtype=torch.int32).expand(3, 1, -1)
    torch.testing.assert_close(encode_ycbcr(decode_ycbcr(codes, code), code), codes)


@given(unit, st.floats(-AB_LIMIT, AB_LIMIT), st.floats(-AB_LIMIT, AB_LIMIT))
def test_painted_bt709_gray_is_the_same_color_that_lab_gives(
    gray: float, a: float, b: float
) -> None:
    lab = torch.cat((gray_to_lightness(pixel(gray)), pixel(a, b)))
    expected = rgb_to_ycbcr(lab_to_rgb(lab), Matrix.BT709)[1:]
    cbcr = ab_to_cbcr(pixel(gray), pixel(a, b), Matrix.BT709)
    torch.testing.assert_close(cbcr, expected, atol=1e-4, rtol=1e-4)


chromas = st.tuples(st.floats(-0.75, 0.75, width=32), st.floats(-0.75, 0.75, width=32))


@given(unit, chromas, matrices)
def test_fitted_color_is_inside_the_gamut_and_as_strong_as_it_can_be(
    luma: float, cbcr: tuple[float, float], matrix: Matrix
) -> None:
    y, chroma = pixel(luma), pixel(*cbcr)
    fitted = fit_to_gamut(y, y, chroma, matrix)
    rgb = ycbcr_to_rgb(torch.cat((y, fitted)), matrix)
    tolerance = 1e-5  # black and white are allowed a millionth, magnified by the matrix
    assert -tolerance <= rgb.min() and rgb.max() <= 1 + tolerance
    unfitted = ycbcr_to_rgb(torch.cat((y, chroma)), matrix)
    if unfitted.min() >= 0 and unfitted.max() <= 1:
        torch.testing.assert_close(fitted, chroma, atol=1e-6, rtol=0)
    else:  # a face of the cube is touched: no greater share would fit
        to_edge = torch.minimum(rgb.min().abs(), (1 - rgb.max()).abs())
        assert to_edge <= tolerance


@given(unit, chromas, matrices)
def test_fitting_scales_color_and_turns_no_hue(
    luma: float, cbcr: tuple[float, float], matrix: Matrix
) -> None:
    fitted = fit_to_gamut(pixel(luma), pixel(luma), pixel(*cbcr), matrix).flatten()
    cb, cr = cbcr
    assert abs(float(fitted[0]) * cr - float(fitted[1]) * cb) < 1e-6
    assert float(fitted.norm()) <= (cb * cb + cr * cr) ** 0.5 + 1e-6


@given(unit, unit, chromas, matrices)
def test_shared_color_suits_the_darkest_and_the_brightest_pixel(
    one: float, other: float, cbcr: tuple[float, float], matrix: Matrix
) -> None:
    low, high = pixel(min(one, other)), pixel(max(one, other))
    fitted = fit_to_gamut(low, high, pixel(*cbcr), matrix)
    for y in (low, high):
        rgb = ycbcr_to_rgb(torch.cat((y, fitted)), matrix)
        assert rgb.min() >= -1e-5 and rgb.max() <= 1 + 1e-5


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", Matrix)
def test_the_strongest_colors_never_wrap_around(
    matrix: Matrix, full_range: bool, depth: int
) -> None:
    code = PixelCode(matrix, depth, full_range, (1, 1))
    top = 1 << depth
    luma = torch.arange(top, dtype=torch.int32).to(torch.uint8 if depth == 8 else torch.uint16)
    for a, b in product((-AB_LIMIT, 0.0, AB_LIMIT), repeat=2):
        ab = torch.tensor([a, b]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        planes = chroma_planes(luma.view(1, 1, 1, -1), ab, code).int()
        rgb = ycbcr_to_rgb(
            decode_ycbcr(torch.cat((luma.view(1, 1, 1, -1).int(), planes), 1), code), matrix
        )
        legal = slice(code.black, code.black + code.luma_span + 1)
        # Rounding chroma to codes moves R, G or B by a code at most.
        assert rgb[..., legal].min() > -1.0 / 219 and rgb[..., legal].max() < 1 + 1.0 / 219


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 23), (1, 1), (2, 7)])
def test_chroma_planes_have_the_size_and_type_of_the_pixel_code(
    depth: int, height: int, width: int
) -> None:
    for across, down in SUBSAMPLINGS:
        code = PixelCode(Matrix.BT709, depth, subsampling=(across, down))
        luma = ramp(code, height, width)
        planes = chroma_planes(luma, torch.zeros(1, 2, 4, 6), code)
        assert planes.shape == (1, 2, (height + down - 1) // down, (width + across - 1) // across)
        assert planes.dtype == luma.dtype


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", Matrix)
def test_gray_stays_at_the_neutral_code(matrix: Matrix, full_range: bool, depth: int) -> None:
    code = PixelCode(matrix, depth, full_range)
    planes = chroma_planes(ramp(code, 32, 32), torch.zeros(1, 2, 4, 6), code)
    assert (planes.int() == code.neutral).all()


def test_luma_is_not_touched() -> None:
    code = PixelCode(Matrix.BT709)
    luma = ramp(code, 18, 26)
    before = luma.clone()
    chroma_planes(luma, torch.randn(1, 2, 5, 5) * 60, code)
    assert torch.equal(luma, before)


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    code = PixelCode(Matrix.BT601)
    luma = (smooth(3, 1, 18, 26) * 219 + 16).round().byte()
    ab = torch.randn(3, 2, 5, 7) * 40
    alone = [chroma_planes(luma[i : i + 1], ab[i : i + 1], code) for i in range(3)]
    assert torch.equal(chroma_planes(luma, ab, code), torch.cat(alone))


def enlarged(ab: Tensor, size: tuple[int, int], code: PixelCode) -> Tensor:
    """ab (N, 2, h, w) at every chroma sample of a luma plane of this size."""
    vertical, wide = enlarging(ab, size, code)
    return vertical @ wide


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_centered_siting_is_the_bicubic_interpolation_of_torch(
    subsampling: tuple[int, int],
) -> None:
    code = PixelCode(Matrix.BT709, subsampling=subsampling, siting=Siting.CENTER)
    ab = torch.randn(2, 2, 8, 12) * 40
    expected = functional.interpolate(
        ab, code.chroma_size(32, 48), mode="bicubic", align_corners=False
    )
    torch.testing.assert_close(enlarged(ab, (32, 48), code), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("siting", Siting)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_color_is_sampled_where_the_siting_says(
    siting: Siting, subsampling: tuple[int, int]
) -> None:
    # a grows by one per luma pixel to the right and b downwards, so a sample tells its position.
    height, width = 32, 48
    down_axis, across_axis = torch.meshgrid(
        torch.arange(0.5, height), torch.arange(0.5, width), indexing="ij"
    )
    ab = torch.stack((across_axis, down_axis)).unsqueeze(0)
    code = PixelCode(Matrix.BT709, subsampling=subsampling, siting=siting)
    sampled = enlarged(ab, (height, width), code)
    for channel, axis, step, shift in (
        (0, -1, subsampling[0], siting.value[0]),
        (1, -2, subsampling[1], siting.value[1]),
    ):
        within_block = 0.5 if shift == 0 else step / 2  # in luma pixels from the block's edge
        line = sampled[0, channel].select(-1 if axis == -2 else -2, 3)
        expected = torch.arange(len(line)) * step + within_block
        inner = slice(2, -2)  # at the picture's edge a ramp does not go on
        torch.testing.assert_close(line[inner], expected[inner], atol=1e-3, rtol=0)


def test_an_odd_picture_keeps_its_samples_in_place() -> None:
    """The last chroma sample of an odd line covers one pixel; the others must not move for it."""
    ab = torch.arange(0.5, 47).expand(1, 2, 31, 47)
    code = PixelCode(Matrix.BT709, siting=Siting.CENTER)
    line = enlarged(ab, (31, 47), code)[0, 0, 5]
    torch.testing.assert_close(line[2:-2], torch.arange(2, 22) * 2.0 + 1, atol=1e-3, rtol=0)


def test_uniform_color_stays_uniform_at_any_size() -> None:
    ab = torch.tensor([20.0, -30.0]).view(1, 2, 1, 1).expand(1, 2, 5, 7)
    resampled = enlarged(ab, (101, 77), PixelCode(Matrix.BT709))
    torch.testing.assert_close(resampled, ab[..., :1, :1].expand_as(resampled), atol=1e-4, rtol=0)


@pytest.mark.parametrize("matrix", [Matrix.BT601, Matrix.BT709])
@pytest.mark.parametrize(("depth", "mean", "worst"), [(8, 0.8, 5.0), (10, 0.4, 4.0)])
def test_half_size_color_and_subsampling_cost_little_in_a_smooth_picture(
    matrix: Matrix, depth: int, mean: float, worst: float
) -> None:
    """Against painting every pixel at full size, unrounded; difference in Lab units."""
    code = PixelCode(matrix, depth, siting=Siting.CENTER)
    luma = ((0.2 + 0.6 * smooth(1, 1, 64, 96)) * code.luma_span + code.black).round().int()
    gray, ab = decode_luma(luma, code), 60 * smooth(1, 2, 64, 96) - 30
    cbcr = fit_to_gamut(gray, gray, ab_to_cbcr(gray, ab, matrix), matrix)
    truth = ycbcr_to_rgb(torch.cat((gray, cbcr), 1), matrix)
    source = luma.to(torch.uint8 if depth == 8 else torch.uint16)
    planes = chroma_planes(source, functional.avg_pool2d(ab, 2), code)
    enlarged = functional.interpolate(planes.float(), (64, 96), mode="bicubic")
    painted = ycbcr_to_rgb(decode_ycbcr(torch.cat((luma.float(), enlarged), 1), code), matrix)
    error = (rgb_to_lab(painted) - rgb_to_lab(truth)).norm(dim=1)
    assert error.mean() < mean
    assert error.max() < worst


@pytest.mark.parametrize("matrix", [Matrix.BT601, Matrix.BT709])
def test_true_color_painted_on_true_luma_looks_true(matrix: Matrix) -> None:
    """The whole way, photograph to planes to photograph.

    Luma is not quite lightness (a saturated blue is brighter than its luma says), so this is no
    identity; for the muted colors of most pictures the difference is hard to see.
    """
    code = PixelCode(matrix, siting=Siting.CENTER)
    rgb = 0.3 + 0.4 * smooth(1, 3, 64, 96)
    lab = rgb_to_lab(rgb)
    luma = encode_ycbcr(rgb_to_ycbcr(rgb, matrix), code)[:, :1]
    planes = chroma_planes(luma.byte(), functional.avg_pool2d(lab[:, 1:], 2), code)
    enlarged = functional.interpolate(planes.float(), (64, 96), mode="bicubic")
    painted = ycbcr_to_rgb(decode_ycbcr(torch.cat((luma.float(), enlarged), 1), code), matrix)
    error = (rgb_to_lab(painted) - lab).norm(dim=1)
    assert error.mean() < 2
    assert error.max() < 6
