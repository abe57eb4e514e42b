"""The network's shapes, and the rewrites that must not change what it says."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from vgg import RgbVgg, save_vgg

from colordaemon.color import AB_LIMIT
from colordaemon.errors import ModelError
from colordaemon.network.model import (
    MID_GRAY,
    Climb,
    ColorNet,
    Decoding,
    Encoder,
    Heads,
    ModelSpec,
    annealed_mean,
    certainty,
    decode,
    fold_norms,
)
from colordaemon.network.vgg import balance, load_vgg

CAFFE_MEAN = (123.68, 116.779, 103.939)


def picture(*shape: int) -> Tensor:
    """A random picture with some structure, 0..1."""
    coarse = torch.rand(*shape[:-2], 5, 7)
    return functional.interpolate(coarse, shape[-2:], mode="bilinear")


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 32)])
def test_color_comes_out_at_half_size(tiny_model: ColorNet, height: int, width: int) -> None:
    ab, scores = tiny_model(picture(3, 1, height, width))
    assert ab.shape == (3, 2, height // 2, width // 2)
    assert scores.shape == (3, 5, height // 4, width // 4)


def test_the_encoder_shows_every_scale(tiny_spec: ModelSpec) -> None:
    taps = Encoder(tiny_spec.encoder)(picture(2, 1, 64, 96))
    assert [tuple(tap.shape) for tap in taps] == [
        (2, stage[-1], 64 >> level, 96 >> level) for level, stage in enumerate(tiny_spec.encoder)
    ]


def test_an_untrained_network_says_gray(tiny_spec: ModelSpec) -> None:
    one_head = replace(tiny_spec, bins=())
    assert not ColorNet(one_head).predict(picture(2, 1, 64, 64)).any()


def test_prediction_is_float32_within_the_range_of_real_colors(tiny_model: ColorNet) -> None:
    with torch.no_grad():
        tiny_model.decoder.head.weight *= 1000
    tiny_model.decoding = Decoding(bin_share=0.0)
    ab = tiny_model.to(torch.bfloat16).predict(picture(2, 1, 64, 64).bfloat16())
    assert ab.dtype == torch.float32
    assert ab.abs().max() == AB_LIMIT


def test_the_miniature_of_these_tests_says_colors(tiny_model: ColorNet) -> None:
    ab = tiny_model.predict(picture(2, 1, 64, 64))
    assert ab.std() > 1 and ab.abs().mean() < AB_LIMIT / 2


def test_a_spec_needs_a_decoder_width_per_climb() -> None:
    with pytest.raises(ValueError, match="decoder needs 1 widths for 2"):
        ModelSpec(encoder=((4,), (4,)), decoder=(4, 4))


def test_a_low_temperature_takes_the_likeliest_bin_and_a_high_one_the_middle() -> None:
    bins = torch.tensor([[0.0, 0.0], [30.0, 60.0]])
    scores = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    for temperature, expected in ((0.01, (30.0, 60.0)), (1000.0, (15.0, 30.0))):
        ab = annealed_mean(scores, bins, temperature).flatten()
        torch.testing.assert_close(ab, torch.tensor(expected), atol=0.1, rtol=0)
    # At one it is the mean itself.
    share = torch.sigmoid(torch.tensor(1.0))
    torch.testing.assert_close(
        annealed_mean(scores, bins, 1.0).flatten(), torch.stack((30 * share, 60 * share))
    )


def test_the_heads_are_mixed_as_the_decoding_says() -> None:
    bins = torch.tensor([[40.0, -20.0]])  # one bin is always the likeliest
    heads = Heads(torch.full((1, 2, 4, 4), 10 / AB_LIMIT), torch.zeros(1, 1, 2, 2))
    sure = torch.full((1, 1, 4, 4), 0.5)
    for decoding, expected in (
        (Decoding(bin_share=0.0), (10, 10)),
        (Decoding(bin_share=1.0), (40, -20)),
        (Decoding(bin_share=0.5), (25, -5)),
        (Decoding(bin_share=0.5, chroma_gain=2.0), (50, -10)),
        (Decoding(bin_share=1.0, chroma_gain=9.0), (AB_LIMIT, -AB_LIMIT)),
        (Decoding(bin_share=1.0, certainty_from=0.2), (25, -5)),  # half of the way up the ramp
        (Decoding(bin_share=1.0, certainty_from=0.6), (10, 10)),
    ):
        ab = decode(heads, sure, bins, decoding)
        assert ab.shape == (1, 2, 4, 4)
        torch.testing.assert_close(ab[0, :, 1, 2], torch.tensor(expected, dtype=torch.float32))


def test_the_network_is_sure_where_one_bin_has_all_the_likelihood() -> None:
    ab, scores = torch.zeros(1, 2, 2, 6), torch.zeros(1, 4, 1, 3)
    scores[0, 0, 0] = torch.tensor([0.0, 2.0, 50.0])
    sure = certainty(Heads(ab, scores))
    assert sure.shape == (1, 1, 2, 6)
    assert sure[0, 0, 0, 0] == 0 and sure[0, 0, 0, -1] == 1
    assert (sure.diff(dim=-1) >= 0).all() and 0.05 < sure[0, 0, 0, 2] < 0.95
    assert (certainty(Heads(ab, None)) == 1).all()


def test_an_exponent_spreads_chroma_and_leaves_hue_and_typical_chroma() -> None:
    ab = torch.tensor([[3.0, 4.0], [12.0, 16.0], [24.0, 32.0], [0.0, 0.0]]).T[None, :, None]
    spread = Decoding(chroma_exponent=1.5).strengthen(ab)
    chroma = torch.linalg.vector_norm(spread, dim=1).flatten()
    expected = [5 * (5 / 20) ** 0.5, 20, 40 * 2**0.5, 0]
    torch.testing.assert_close(chroma, torch.tensor(expected))
    assert torch.allclose(spread[0, 0] * 4, spread[0, 1] * 3, atol=1e-4)


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": 0.0},
        {"bin_share": 1.5},
        {"chroma_gain": float("nan")},
        {"chroma_exponent": 0.0},
        {"certainty_from": -0.1},
    ],
)
def test_a_decoding_out_of_bounds_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature, gain and exponent above 0"):
        Decoding(**bad)


def test_a_frozen_skip_is_taken_in_part_by_part_with_the_same_result() -> None:
    torch.manual_seed(0)
    climb = Climb(6, 4, 5).train()
    below, skip = torch.rand(2, 6, 8, 8), torch.rand(2, 4, 16, 16)
    results = []
    for learning in (True, False):  # whether the encoder learns, which takes the plain way
        climb.zero_grad()
        mixed = climb(below, skip.requires_grad_(learning))
        mixed.square().sum().backward()
        results.append((mixed, [p.grad.clone() for p in climb.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


def test_folding_norms_changes_nothing(tiny_model: ColorNet) -> None:
    gray = picture(2, 1, 64, 96)
    folded = fold_norms(copy.deepcopy(tiny_model))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(tuple(folded(gray)), tuple(tiny_model(gray)), atol=1e-4, rtol=0)


def test_balancing_gives_every_activation_unit_strength(tiny_spec: ModelSpec) -> None:
    encoder, gray = Encoder(tiny_spec.encoder), picture(4, 1, 64, 96)
    balance(encoder, gray)
    for tap in encoder(gray - MID_GRAY):
        torch.testing.assert_close(tap.square().mean(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_balancing_keeps_features_up_to_a_factor(tiny_spec: ModelSpec) -> None:
    encoder, gray = Encoder(tiny_spec.encoder), picture(4, 1, 64, 96)
    other = picture(1, 1, 32, 64) - MID_GRAY  # not the pictures it was balanced on
    with torch.no_grad():
        before = encoder(other)
        balance(encoder, gray)
        after = encoder(other)
    for old, new in zip(before, after, strict=True):
        factor = old.norm() / new.norm()
        torch.testing.assert_close(new * factor, old, rtol=1e-4, atol=1e-5 * float(old.max()))


def inside(x: Tensor) -> Tensor:
    """Without the border: RGB networks pad with black or mean, ours with mid gray."""
    return x[..., 2:-2, 2:-2]


def test_folded_vgg_sees_gray_as_the_original_weights_saw_equal_channels(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    vgg, encoder = RgbVgg(tiny_spec), Encoder(tiny_spec.encoder)
    described = f"RGB 0..255 minus {CAFFE_MEAN}, no division".replace(" 1", "1")
    load_vgg(save_vgg(tmp_path / "vgg.safetensors", vgg, {"input": described}), encoder)
    gray = picture(1, 1, 256, 256)
    mean = torch.tensor(CAFFE_MEAN).view(3, 1, 1)
    original = vgg.features[:2](gray.expand(1, 3, -1, -1) * 255 - mean)
    folded = torch.relu(encoder.convolutions[0](gray - MID_GRAY))
    torch.testing.assert_close(inside(folded), inside(original), atol=1e-3, rtol=1e-4)
    deep = encoder(gray - MID_GRAY)[-1]
    middle = (..., slice(6, 10), slice(6, 10))  # padding differs and reaches inwards
    whole = vgg(gray.expand(1, 3, -1, -1) * 255 - mean)
    torch.testing.assert_close(deep[middle], whole[middle], atol=1e-3, rtol=1e-3)


def test_weights_without_a_word_on_their_input_are_taken_for_torchvisions(
    tiny_spec: ModelSpec, tmp_path: Path
) -> None:
    vgg, encoder = RgbVgg(tiny_spec), Encoder(tiny_spec.encoder)
    load_vgg(save_vgg(tmp_path / "vgg.safetensors", vgg), encoder)
    gray = picture(1, 1, 64, 64)
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    original = vgg.features[:2]((gray.expand(1, 3, -1, -1) - mean) / std)
    folded = torch.relu(encoder.convolutions[0](gray - MID_GRAY))
    torch.testing.assert_close(inside(folded), inside(original), atol=1e-5, rtol=1e-4)


def test_vgg_of_another_shape_is_refused(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    path = save_vgg(tmp_path / "vgg.safetensors", RgbVgg(tiny_spec))
    wider = Encoder(((8, 8), *tiny_spec.encoder[1:]))
    with pytest.raises(ModelError, match=r"vgg\.safetensors: expected the 7 convolutions.*found 7"):
        load_vgg(path, wider)
    with pytest.raises(ModelError, match="expected the 6 convolutions"):
        load_vgg(path, Encoder((*tiny_spec.encoder[:4], (8,))))


def test_an_input_that_nobody_understands_is_refused(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    save_vgg(path, RgbVgg(tiny_spec), {"input": "BGR, whitened"})
    with pytest.raises(ModelError, match=r"vgg\.safetensors: expected the input.*BGR, whitened"):
        load_vgg(path, Encoder(tiny_spec.encoder))


def test_the_default_encoder_has_the_layout_of_vgg16() -> None:
    widths = [width for stage in ModelSpec().encoder for width in stage]
    assert widths == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6  # Simonyan & Zisserman, table 1 D


@pytest.mark.gpu
def test_a_gpu_says_the_same_colors(tiny_model: ColorNet) -> None:
    gray = picture(2, 1, 64, 96)
    expected = tiny_model.predict(gray)
    on_gpu = tiny_model.cuda().predict(gray.cuda()).cpu()
    torch.testing.assert_close(on_gpu, expected, atol=0.1, rtol=0)
