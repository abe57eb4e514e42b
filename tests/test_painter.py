"""References and dabs of color in the network: what they do to a picture, and what they leave."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from colordaemon.color import lightness_to_gray, rgb_to_lab
from colordaemon.errors import ModelError
from colordaemon.network.checkpoint import BUILT_IN, load_model
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.hints import MOST_DABS, Frame, read_dabs, solve
from colordaemon.network.match import (
    TOGETHER,
    Matchable,
    Reference,
    closest,
    make_reference,
    match,
    sampled,
)
from colordaemon.network.model import ColorNet, Look
from colordaemon.network.painter import HintedFrame, Painter, hinted_frame, most_alike

CPU = torch.device("cpu")
Pixels = NDArray[np.uint8]
needs_built_in = pytest.mark.skipif(
    not BUILT_IN.exists(), reason="this checkout has no built-in model"
)


@pytest.fixture
def colorizer(tiny_model: ColorNet) -> Colorizer:
    return Colorizer(tiny_model, CPU, torch.float32)


@pytest.fixture(scope="module")
def real() -> Colorizer:
    return Colorizer(load_model(BUILT_IN), CPU, torch.float32, quality="draft")


def scene(seed: int = 0, height: int = 48, width: int = 64) -> Pixels:
    """Patches of texture in four colors, as (H, W, 3)."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    rgb = np.zeros((height, width, 3), np.float32)
    colors = ((200, 60, 40), (40, 130, 60), (60, 80, 190), (210, 190, 70))
    for number, color in enumerate(colors):
        here = (rows * 2 // height) * 2 + columns * 2 // width == number
        wave = np.sin((rows * (number + 1) + columns * (4 - number)) * 0.6)
        rgb[here] = (np.array(color) * (0.8 + 0.2 * wave[..., None]))[here]
    return (rgb + chance.normal(0, 3, rgb.shape)).clip(0, 255).astype(np.uint8)


def lab_of(rgb: Pixels) -> Tensor:
    return rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255)


def gray_of(rgb: Pixels) -> Tensor:
    return lightness_to_gray(lab_of(rgb)[:, :1])


def wrong(ab: Tensor, rgb: Pixels) -> float:
    """The mean distance from the truth, ab units."""
    small = torch.nn.functional.interpolate(lab_of(rgb)[:, 1:], ab.shape[-2:], mode="area")
    return float((ab - small).norm(dim=1).mean())


def dabs_on(rgb: Pixels, *spots: tuple[int, int], color: tuple[int, int, int]) -> Pixels:
    """(H, W, 4) with dabs of 4 x 4 pixels."""
    rgba = np.zeros((*rgb.shape[:2], 4), np.uint8)
    for row, column in spots:
        rgba[row : row + 4, column : column + 4] = (*color, 255)
    return rgba


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_painter_without_a_guide_is_the_colorizer_bit_for_bit(colorizer: Colorizer) -> None:
    gray = torch.cat([gray_of(scene(n)) for n in range(3)])
    painter = Painter(colorizer)
    assert same(painter.guess(gray, [0.0, 1.0, 2.0]), colorizer.guess(gray))
    assert torch.equal(painter.predict_ab(gray), colorizer.predict_ab(gray))
    assert painter.weights == [None] * 3
    assert str(painter) == str(colorizer)


def test_a_painter_without_a_guide_needs_no_axes(tiny_model: ColorNet) -> None:
    tiny_model.axes = None
    old = Colorizer(tiny_model, CPU, torch.float32)
    gray = gray_of(scene())
    assert same(Painter(old).guess(gray), old.guess(gray))


def test_a_model_without_axes_refuses_references_and_dabs(tiny_model: ColorNet) -> None:
    tiny_model.axes = None
    old, rgb = Colorizer(tiny_model, CPU, torch.float32), scene()
    with pytest.raises(ModelError, match="axes"):
        make_reference(old, rgb)
    with pytest.raises(ModelError, match="axes"):
        hinted_frame(Painter(old), gray_of(rgb), dabs_on(rgb, (8, 8), color=(0, 0, 255)))


@needs_built_in
def test_a_reference_of_the_picture_itself_gives_its_colors_back(real: Colorizer) -> None:
    rgb = scene()
    painter = Painter(real, [make_reference(real, rgb)])
    before, after = (wrong(each.predict_ab(gray_of(rgb)), rgb) for each in (real, painter))
    assert before > 30 and after < 8
    [weight] = painter.weights
    assert weight is not None and weight > 0.95


@needs_built_in
def test_a_reference_of_something_else_changes_nothing(real: Colorizer) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    painter = Painter(real, [make_reference(real, rgb)])
    rows = torch.linspace(0.1, 0.9, 48)[:, None].expand(48, 64)[None, None]
    assert torch.equal(painter.predict_ab(rows), real.predict_ab(rows))
    assert painter.weights == [0.0]


@needs_built_in
def test_a_reference_mirrored_is_as_good(real: Colorizer) -> None:
    rgb = scene()
    mirrored = np.ascontiguousarray(rgb[:, ::-1])
    ab = Painter(real, [make_reference(real, mirrored)]).predict_ab(gray_of(rgb))
    assert wrong(ab, rgb) < 0.5 * wrong(real.predict_ab(gray_of(rgb)), rgb)


def test_the_result_does_not_depend_on_the_batch_or_the_order(tiny_model: ColorNet) -> None:
    """Bit for bit, if the network says the same of a picture in every batch."""

    class Steady(Colorizer):
        def _look(self, gray: Tensor) -> Look:
            looks = [super(Steady, self)._look(each[None]) for each in gray]
            ab, sure = (torch.cat([(look.ab, look.sure)[n] for look in looks]) for n in (0, 1))
            layers = zip(*(look.features for look in looks), strict=True)
            return Look(ab, sure, tuple(torch.cat(layer) for layer in layers))

    one, many = (
        Steady(copy.deepcopy(tiny_model), CPU, torch.float32, batch_size=size) for size in (1, 4)
    )
    grays = torch.cat([gray_of(scene(n)) for n in range(5)])
    references = [make_reference(one, scene(n)) for n in (7, 8)]
    hints = [
        hinted_frame(Painter(one), gray_of(scene(9)), dabs_on(scene(9), (8, 8), color=(0, 0, 255)))
    ]
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    singles = [
        Painter(one, references, hints).guess(gray[None], [time])
        for gray, time in zip(grays, times, strict=True)
    ]
    together = Painter(many, references, hints).guess(grays, times)
    backward = Painter(many, references, hints).guess(grays.flip(0), times[::-1])
    for n, (ab, sure) in enumerate(singles):
        assert same((together[0][n : n + 1], together[1][n : n + 1]), (ab, sure))
        assert same((backward[0][4 - n : 5 - n], backward[1][4 - n : 5 - n]), (ab, sure))


def test_a_reference_is_seen_alike_every_time(colorizer: Colorizer) -> None:
    one, other = (make_reference(colorizer, scene(height=400, width=600)) for _ in range(2))
    assert torch.equal(one.known.places, other.known.places)
    assert torch.equal(one.known.values, other.known.values)


def test_only_so_many_places_are_compared_with() -> None:
    places = torch.nn.functional.normalize(torch.randn(5000, 8), dim=1)
    known = sampled(places, torch.randn(5000, 2), torch.arange(5000))
    assert known.places.shape == (2048, 8)
    # None is taken twice, and they are from all over the picture.
    rows = (known.places[:, None] == places[None, :64]).all(dim=2).any(dim=0)
    assert 10 < rows.sum() < 50


def test_places_with_dabs_are_always_compared_with() -> None:
    places, values = torch.randn(5000, 8), torch.arange(5000.0)[:, None]
    kept = torch.tensor([17, 4711])
    known = sampled(places, values, torch.arange(5000), kept)
    assert len(known.values) == 2048 == len(set(known.values[:, 0].tolist()))
    assert {17, 4711} <= {int(value) for value in known.values}


def test_transparent_places_are_left_out(colorizer: Colorizer) -> None:
    rgb = scene()
    opaque = np.zeros(rgb.shape[:2], bool)
    opaque[:, :32] = True
    known = make_reference(colorizer, rgb, opaque).known
    whole = make_reference(colorizer, rgb).known
    assert 0 < len(known.places) <= len(whole.places) // 2 + 16
    # The colors of the right half, whatever they are, play no part.
    other = rgb.copy()
    other[:, 32:] = 255
    again = make_reference(colorizer, other, opaque).known
    assert torch.equal(known.places, again.places) and torch.equal(known.values, again.values)


def test_a_speck_of_color_is_a_reference_too(colorizer: Colorizer) -> None:
    rgb = scene()
    opaque = np.zeros(rgb.shape[:2], bool)
    opaque[20, 30] = True
    known = make_reference(colorizer, rgb, opaque).known
    expected = lab_of(rgb)[0, 1:, 20, 30]
    assert len(known.places) == 1
    torch.testing.assert_close(known.values[0], expected, atol=0.05, rtol=0)


def test_a_picture_without_an_opaque_pixel_is_no_reference(colorizer: Colorizer) -> None:
    with pytest.raises(ValueError, match="opaque"):
        make_reference(colorizer, scene(), np.zeros((48, 64), bool))


def test_a_reference_counts_from_its_start_and_up_to_its_end(colorizer: Colorizer) -> None:
    gray = torch.cat([gray_of(scene())] * 4)
    painter = Painter(colorizer, [make_reference(colorizer, scene(), start=1.0, end=3.0)])
    ab, _ = painter.guess(gray, [0.999, 1.0, 2.999, 3.0])
    assert [weight is not None for weight in painter.weights] == [False, True, True, False]
    plain = colorizer.predict_ab(gray)
    assert torch.equal(ab[0], plain[0]) and torch.equal(ab[3], plain[3])
    assert not torch.equal(ab[1], plain[1]) and torch.equal(ab[1], ab[2])


def test_of_many_references_a_picture_takes_the_two_that_it_is_most_like() -> None:
    def around(center: int, spread: float = 0.2) -> Tensor:
        places = spread * torch.randn(64, 12)
        places[:, center] += 1
        return torch.nn.functional.normalize(places, dim=1)

    knowns = [Matchable(around(n), torch.full((64, 2), float(n))) for n in range(5)]
    target = torch.cat((around(3), around(1), around(3), around(1)))
    assert TOGETHER == 2
    assert closest(target, 16, knowns) == [knowns[1], knowns[3]]
    assert closest(target, 16, knowns[::-1]) == [knowns[3], knowns[1]]
    assert closest(target, 16, knowns[:2]) == knowns[:2]


def test_a_place_takes_the_values_of_what_it_is_like() -> None:
    places = torch.eye(4)
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    found, weight = match(places.flip(0), [Matchable(places, values)])
    torch.testing.assert_close(found, values.flip(0))
    assert (weight == 1).all()
    found, weight = match(-places, [Matchable(places, values)])
    assert (weight == 0).all()


def test_rows_are_matched_as_all_at_once() -> None:
    places = torch.nn.functional.normalize(torch.randn(2500, 16), dim=1)
    known = Matchable(places[:300], torch.randn(300, 2))
    found, weight = match(places, [known])
    cosines = places @ known.places.T
    expected = torch.softmax(cosines / 0.03, dim=1) @ known.values
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert len(weight) == 2500


def frame_of_two_halves(rows: int = 12, columns: int = 16) -> Frame:
    """Left and right differ in all that is compared."""
    left = (torch.arange(columns) < columns // 2).expand(rows, columns).flatten()
    places = torch.stack((left.float(), 1 - left.float()), dim=1)
    return Frame(places, torch.where(left, 30.0, 80.0), rows, columns)


def test_a_dab_fills_what_it_is_on_and_leaves_the_rest() -> None:
    frame = frame_of_two_halves()
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[20:28, 8:16] = (200, 40, 40, 255)
    dabs = read_dabs(rgba, frame.rows, frame.columns)
    added, influence = solve(frame, torch.zeros(192, 2), dabs)
    wanted = lab_of(np.full((1, 1, 3), (200, 40, 40), np.uint8))[0, 1:, 0, 0]
    grid, strength = added.reshape(12, 16, 2), influence.reshape(12, 16)
    torch.testing.assert_close(grid[5, 2], wanted, atol=1.0, rtol=0)
    assert (grid[:, :8] @ wanted / wanted.square().sum()).min() > 0.6
    assert grid[:, 8:].norm(dim=2).max() < 0.05 * wanted.norm()
    assert strength[:, :8].min() > 0.6 and strength[:, 8:].max() < 0.05


def test_dabs_of_the_color_that_is_there_change_nothing() -> None:
    frame = frame_of_two_halves()
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[20:28, 8:16] = (200, 40, 40, 255)
    dabs = read_dabs(rgba, frame.rows, frame.columns)
    added, _ = solve(frame, dabs.ab[:1].expand(192, 2), dabs)
    assert added.abs().max() < 1e-3


def test_the_solution_is_the_one_that_a_direct_solver_finds() -> None:
    """The equations of the edge-aware step, written out as a matrix."""
    from colordaemon.network import hints

    rows, columns = 6, 7
    places = torch.nn.functional.normalize(torch.randn(42, 5) + 2, dim=1)
    frame = Frame(places, 50 + 3 * torch.randn(42), rows, columns)
    field, where, targets = torch.randn(42, 3), torch.tensor([3, 30]), torch.randn(2, 3)
    matrix, right = torch.zeros(42, 42, dtype=torch.float64), torch.zeros(42, 3).double()
    for one in range(42):
        matrix[one, one] += 0.005
        right[one] += 0.005 * field[one]
        for other, near in ((one + 1, (one + 1) % columns != 0), (one + columns, True)):
            if near and other < 42:
                cosine = float(places[one] @ places[other])
                step = float(frame.lightness[one] - frame.lightness[other])
                edge = np.exp((cosine - 1) / 0.05 - step**2 / 18)
                matrix[one, one] += edge
                matrix[other, other] += edge
                matrix[one, other] -= edge
                matrix[other, one] -= edge
    for number, place in enumerate(where):
        matrix[place, place] += 10
        right[place] += 10 * targets[number]
    found = hints._smoothed(frame, field, where, targets)
    torch.testing.assert_close(found.double(), torch.linalg.solve(matrix, right), atol=2e-3, rtol=0)


def test_zero_dabs_are_refused_and_change_nothing(colorizer: Colorizer) -> None:
    rgb = scene()
    with pytest.raises(ValueError, match="no dabs"):
        hinted_frame(Painter(colorizer), gray_of(rgb), np.zeros((48, 64, 4), np.uint8))
    places = torch.nn.functional.normalize(torch.randn(40, 30), dim=1)
    nothing = HintedFrame(Matchable(places, torch.zeros(40, 3)))
    assert same(
        Painter(colorizer, hints=[nothing]).guess(gray_of(rgb)), colorizer.guess(gray_of(rgb))
    )


def test_dabs_smaller_than_a_place_count() -> None:
    rgba = np.zeros((480, 640, 4), np.uint8)
    rgba[100:103, 200:203] = (0, 0, 255, 255)  # of places of 10 x 10 pixels
    dabs = read_dabs(rgba, 48, 64)
    assert dabs.where.tolist() == [10 * 64 + 20]
    blue = lab_of(np.full((1, 1, 3), (0, 0, 255), np.uint8))[0, 1:, 0, 0]
    torch.testing.assert_close(dabs.ab[0], blue, atol=0.1, rtol=0)


def test_the_rim_of_a_large_dab_does_not_count() -> None:
    rgba = np.zeros((480, 640, 4), np.uint8)
    rgba[98:132, 198:232] = (0, 0, 255, 255)  # 2 pixels over the edges of 3 x 3 places
    assert len(read_dabs(rgba, 48, 64).where) == 9


def test_more_dabs_than_can_be_used_are_thinned_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[:, :40] = (0, 0, 255, 255)
    rgba[2, 60] = (255, 0, 0, 255)
    with caplog.at_level(logging.INFO):
        dabs = read_dabs(rgba, 48, 64)
    assert len(dabs.where) == MOST_DABS == len(set(dabs.where.tolist()))
    assert f"{48 * 40 + 1} places have dabs: {MOST_DABS} of them are used" in caplog.text
    assert 2 * 64 + 60 in dabs.where.tolist()  # the smallest dab is not lost
    rows = dabs.where // 64
    assert rows.min() == 0 and rows.max() == 47


@needs_built_in
def test_a_dab_colors_what_it_is_on_and_is_carried_to_other_frames(real: Colorizer) -> None:
    rgb = scene()
    dabs = dabs_on(rgb, (8, 8), (14, 20), color=(40, 60, 220))
    painter = Painter(real, hints=[hinted_frame(Painter(real), gray_of(rgb), dabs)])
    moved = np.ascontiguousarray(scene(1)[:, ::-1])
    for picture, corner in (
        (rgb, (slice(2, 20), slice(2, 28))),
        (moved, (slice(2, 20), slice(36, 62))),
    ):
        plain, guided = (each.predict_ab(gray_of(picture)) for each in (real, painter))
        change = torch.nn.functional.interpolate(guided - plain, picture.shape[:2])[0]
        inside = change[1][corner].mean()
        outside = (change[1].sum() - change[1][corner].sum()) / (
            change[1].numel() - change[1][corner].numel()
        )
        assert inside < -20 and abs(outside) < 0.5 * abs(inside)


@needs_built_in
def test_the_same_dab_on_two_frames_is_no_stronger_than_on_one(real: Colorizer) -> None:
    rgb = scene()
    dabs = dabs_on(rgb, (8, 8), (14, 20), color=(40, 60, 220))
    hints = hinted_frame(Painter(real), gray_of(rgb), dabs)
    once, twice = (Painter(real, hints=[hints] * n).predict_ab(gray_of(rgb)) for n in (1, 2))
    strongest = (once - real.predict_ab(gray_of(rgb))).norm(dim=1).max()
    assert (twice - real.predict_ab(gray_of(rgb))).norm(dim=1).max() <= 1.1 * strongest


@needs_built_in
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_half_precision_paints_like_float32(real: Colorizer, device: str) -> None:
    dtype = torch.bfloat16 if device == "cpu" else torch.float16
    half = Colorizer(load_model(BUILT_IN), torch.device(device), dtype, quality="draft")
    rgb, gray = scene(), gray_of(scene(3))
    dabs = dabs_on(rgb, (8, 8), (14, 20), color=(40, 60, 220))
    exact, rounded = (
        Painter(
            each,
            [make_reference(each, rgb)],
            [hinted_frame(Painter(each), gray_of(rgb), dabs)],
        ).predict_ab(gray)
        for each in (real, half)
    )
    assert (exact - rounded.cpu()).norm(dim=1).mean() < 2


def test_references_make_the_network_sure(colorizer: Colorizer) -> None:
    rgb = scene()
    painter = Painter(colorizer, [make_reference(colorizer, rgb)])
    (_, before), (_, after) = colorizer.guess(gray_of(rgb)), painter.guess(gray_of(rgb))
    assert (after >= before).all() and after.mean() > before.mean()


def test_saturation_leaves_the_colors_of_references_as_they_are(tiny_model: ColorNet) -> None:
    rgb = scene()
    plain, strong = (
        Colorizer(copy.deepcopy(tiny_model), CPU, torch.float32, saturation=factor)
        for factor in (1.0, 1.5)
    )
    one, other = (make_reference(each, rgb).known for each in (plain, strong))
    assert torch.equal(one.values, other.values)


def test_a_reference_knows_when_it_serves() -> None:
    known = Matchable(torch.eye(2), torch.zeros(2, 2))
    assert Reference(known).serves(None) and Reference(known).serves(1e9)
    assert not Reference(known, start=2.0).serves(1.0) and Reference(known, end=2.0).serves(0.0)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 200), (200, 3), (65, 97)])
def test_pictures_of_any_shape_can_be_guided(colorizer: Colorizer, height: int, width: int) -> None:
    rgb = scene(height=height, width=width)
    gray, rgba = gray_of(rgb), np.zeros((height, width, 4), np.uint8)
    rgba[:2, :2] = (0, 0, 255, 255)
    reference = make_reference(colorizer, rgb)
    hints = hinted_frame(Painter(colorizer, [reference]), gray, rgba)
    ab, sure = Painter(colorizer, [reference], [hints]).guess(gray)
    plain, _ = colorizer.guess(gray)
    assert ab.shape == plain.shape and sure.shape[-2:] == ab.shape[-2:]
    assert not torch.equal(ab, plain)


def test_bytes_and_numbers_of_a_picture_are_the_same(colorizer: Colorizer) -> None:
    codes = torch.from_numpy(scene()[..., 0].copy())[None, None]
    rgba = dabs_on(scene(), (8, 8), color=(0, 0, 255))
    one, other = (
        hinted_frame(Painter(colorizer), gray, rgba) for gray in (codes, codes.float() / 255)
    )
    assert torch.equal(one.known.values, other.known.values)


# Candidates


def on_black(picture: Pixels) -> Pixels:
    """The picture in the middle of darkness."""
    height, width, _ = picture.shape
    dark = np.full((3 * height, 3 * width, 3), 6, np.uint8)
    dark[height : 2 * height, width : 2 * width] = picture
    return dark


@needs_built_in
def test_a_frame_has_candidates_of_its_own_place_and_no_strangers_in_the_dark(
    real: Colorizer,
) -> None:
    from colordaemon.film.guide import KNOWN  # with libraries that a bare machine lacks

    rows, columns = np.mgrid[-1:1:96j, -1:1:128j]
    disc = 250 * np.exp(-3 * (rows**2 + columns**2))
    stranger = np.dstack((disc, disc * 0.6, disc * 0.3)).astype(np.uint8)
    pictures = on_black(stranger), on_black(scene(1, 96, 128))
    candidates = [make_reference(real, each) for each in pictures]
    gray = gray_of(on_black(scene(3, 96, 128)))

    def chosen(gray: Tensor, least: float) -> list[bool]:
        found = most_alike(real, gray, candidates, least)
        return [any(one is each for one in found) for each in candidates]

    assert chosen(gray, KNOWN) == [False, True]
    assert chosen(gray, -1.0) == [True, True]
    assert chosen(torch.zeros_like(gray), KNOWN) == [False, False]
