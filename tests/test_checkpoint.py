"""Model files: what comes back, what is refused, and what a full disk or a kill leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from colordaemon.errors import ModelError
from colordaemon.network.checkpoint import (
    BUILT_IN,
    FORMAT,
    VERSION,
    load_model,
    read_notes,
    save_model,
)
from colordaemon.network.model import ColorNet, Decoding, ModelSpec

NOTES = {"labels": ["animal", "face"], "validation": {"mse": 123.5}, "wörds": "ä"}


@pytest.fixture
def model_file(tmp_path: Path, tiny_model: ColorNet) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, tiny_model, NOTES)
    return path


def predict(model: ColorNet) -> Tensor:
    chance = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        return model.predict(torch.rand(2, 1, 64, 64, generator=chance))


def test_a_model_file_rebuilds_its_network(model_file: Path, tiny_spec: ModelSpec) -> None:
    model = load_model(model_file)
    assert model.spec == tiny_spec
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_decoding_comes_back_as_it_was(tmp_path: Path, tiny_model: ColorNet) -> None:
    tiny_model.decoding = Decoding(0.25, 0.7, 1.2, certainty_from=0.1, chroma_exponent=1.3)
    save_model(tmp_path / "tuned", tiny_model, {})
    assert load_model(tmp_path / "tuned").decoding == tiny_model.decoding


def test_a_file_of_the_first_format_is_a_model_with_one_head(
    tmp_path: Path, tiny_spec: ModelSpec
) -> None:
    old, path = ColorNet(replace(tiny_spec, bins=())), tmp_path / "old"
    save_model(path, old, NOTES)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    spec = json.loads(metadata["spec"])
    del spec["bins"], metadata["decoding"]
    save_file(tensors, path, metadata | {"version": "1", "spec": json.dumps(spec)})
    assert load_model(path).spec == old.spec


def test_notes_come_back_as_they_were(model_file: Path) -> None:
    assert read_notes(model_file) == NOTES


def test_eight_bits_change_colors_little(model_file: Path, tiny_model: ColorNet) -> None:
    before = predict(tiny_model)
    error = predict(load_model(model_file)) - before
    # 1/254 of a kernel's largest weight, through seven layers; the miniature averages out less of
    # it than the real network does.
    assert error.abs().mean() < 0.02 * before.abs().mean()
    assert error.abs().max() < 0.1 * before.abs().max()


def test_every_encoder_weight_is_within_half_a_step_of_int8(
    model_file: Path, tiny_model: ColorNet
) -> None:
    loaded = load_model(model_file)
    for old, new in zip(tiny_model.encoder.convolutions, loaded.encoder.convolutions, strict=True):
        step = old.weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
        assert ((new.weight - old.weight).abs() <= step * 0.5001).all()


def test_a_loaded_model_saved_again_is_the_same(model_file: Path) -> None:
    """So training that goes on from a file does not wear its encoder off."""
    first = load_model(model_file)
    save_model(model_file, first, NOTES)
    second = load_model(model_file)
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, atol=0, rtol=1e-6)


def test_a_model_file_holds_no_pickle(model_file: Path) -> None:
    tensors = load_file(model_file)  # safetensors reads all of it
    kernels = [t for n, t in tensors.items() if n.startswith("encoder.") and n.endswith(".weight")]
    assert {tensor.dtype for tensor in kernels} == {torch.int8}


def resave(path: Path, **metadata: str) -> None:
    """Another metadata over the same tensors."""
    whole = {"format": FORMAT, "version": str(VERSION), "spec": "{}", "notes": "{}"}
    save_file(load_file(path), path, whole | metadata)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.safetensors", "no such model file")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 99, b"\xff\xd8\xff\xe0" * 99])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture.safetensors"
    path.write_bytes(content)
    refused(path, "found a damaged file, or one of another kind")
    refused(path, "expected a safetensors model of colordaemon")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "found a folder")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(model_file: Path, share: float) -> None:
    content = model_file.read_bytes()
    model_file.write_bytes(content[: int(len(content) * share)])
    refused(model_file, "expected a safetensors model")


def test_a_safetensors_file_of_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    refused(path, "not a colordaemon model")


def test_a_file_of_a_newer_version_says_so(model_file: Path) -> None:
    resave(model_file, version=str(VERSION + 1))
    refused(model_file, f"model format {VERSION + 1}, this colordaemon reads up to {VERSION}")


@pytest.mark.parametrize(
    "spec", ["", "[]", "{}", "null", '{"encoder": 3, "decoder": [4], "short_side": 64}']
)
def test_a_spec_that_describes_no_network_is_refused(model_file: Path, spec: str) -> None:
    resave(model_file, spec=spec)
    refused(model_file, "describes no network")


@pytest.mark.parametrize(
    "lie",
    [
        '"short_side": 0',
        '"short_side": 1000000',
        '"short_side": "x"',
        '"short_side": true',
        '"encoder": [[1000000000, 1000000000], [6], [8], [8], [8]]',
        '"encoder": [[-1], [6], [8], [8], [8]]',
        '"encoder": [[0.5], [6], [8], [8], [8]]',
        '"encoder": [[], [6], [8], [8], [8]]',
        '"bins": [[NaN, 0], [0, 0], [0, 30]]',
        f'"bins": {"[" * 100_000}',
    ],
)
def test_a_spec_that_lies_is_refused_before_memory_is_taken(model_file: Path, lie: str) -> None:
    spec = '{"encoder": [[4, 4], [6], [8], [8], [8, 8]], "decoder": [8, 8, 6, 4], "short_side": 64'
    resave(model_file, spec=f"{spec}, {lie}}}")  # the last of two equal keys counts
    refused(model_file, "describes no network")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, tiny_model: ColorNet, value: float
) -> None:
    with torch.no_grad():
        tiny_model.decoder.head.bias.fill_(value)  # type: ignore[union-attr]
    save_model(tmp_path / "model", tiny_model, {})
    refused(tmp_path / "model", r"decoder\.head\.bias holds values that are no finite numbers")


def test_scales_of_another_shape_are_refused(model_file: Path) -> None:
    tensors = load_file(model_file)
    with safe_open(model_file, framework="pt") as file:
        metadata = file.metadata()
    tensors["encoder.stages.0.0.weight.scale"] = torch.ones(1, 64, 64, 64)
    save_file(tensors, model_file, metadata)
    refused(model_file, "has scales of shape")


def test_a_version_that_is_no_number_is_refused(model_file: Path) -> None:
    resave(model_file, version="first")
    refused(model_file, "describes no network")


@pytest.mark.parametrize("widths", ["[[4, 4], [6], [8], [8], [8]]", "[[4, 4], [6], [8], [9], [8]]"])
def test_weights_that_do_not_fit_the_spec_are_refused(model_file: Path, widths: str) -> None:
    spec = f'{{"encoder": {widths}, "decoder": [8, 8, 6, 4], "short_side": 64}}'
    resave(model_file, spec=spec)
    refused(model_file, "weights do not fit the spec")


def test_notes_that_are_no_json_are_refused(model_file: Path) -> None:
    resave(model_file, notes="{")
    with pytest.raises(ModelError, match="notes are no JSON"):
        read_notes(model_file)


@pytest.mark.skipif(not BUILT_IN.exists(), reason="this checkout has no built-in model")
def test_the_built_in_model_is_the_default_network_and_tells_its_labels() -> None:
    notes: dict[str, Any] = read_notes(BUILT_IN)
    spec = load_model(BUILT_IN).spec
    assert replace(spec, bins=()) == ModelSpec()
    assert len(spec.bins) > 100  # both heads
    assert notes["labels"]
