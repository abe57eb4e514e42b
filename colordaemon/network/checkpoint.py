"""Model files: safetensors that can rebuild their network, and the weights VGG starts from.

A model file holds the encoder's kernels as int8 with one scale per output channel and everything
else as float16, so that the default model weighs 30 MB. The metadata carries the spec, the tuned
decoding, the metrics and where the training data came from. No pickle anywhere.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from colordaemon.errors import ModelError
from colordaemon.network.model import MID_GRAY, ColorNet, Decoding, Encoder, ModelSpec

FORMAT = "colordaemon"
# 1 knew one head only; such files are read as models without bins. 2 had no exponent and one share
# of the bins for all places.
VERSION = 3
BUNDLED = Path(__file__).parent / "default.safetensors"

_SCALE = ".scale"  # suffix of the tensor that holds an int8 kernel's scales


def save_model(path: Path, model: ColorNet, notes: dict[str, Any]) -> None:
    """Write a model file whole or not at all.

    notes: JSON-able facts about the model (labels, metrics, data fingerprint, command).
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if name.startswith("encoder.") and name.endswith(".weight"):
            scale = tensor.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
            tensors[name] = (tensor / scale).round().to(torch.int8)
            tensors[name + _SCALE] = scale
        elif name.endswith("running_var"):
            tensors[name] = tensor  # may be smaller than float16 can hold
        elif tensor.is_floating_point():
            tensors[name] = tensor.half()
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "spec": json.dumps(asdict(model.spec)),
        "decoding": json.dumps(asdict(model.decoding)),
        "notes": json.dumps(notes),
    }
    write_durably(path, save(tensors, metadata))


def load_model(path: Path) -> ColorNet:
    """Rebuild a network from its file, in float32 and evaluation mode. Raises ModelError."""
    metadata, tensors = _read(path)
    spec, decoding = _description(path, metadata)
    state = {
        name: _unpacked(path, name, tensor, tensors.get(name + _SCALE))
        for name, tensor in tensors.items()
        if not name.endswith(_SCALE)
    }
    _check_weights(path, state, spec)
    model = ColorNet(spec, decoding)
    model.load_state_dict(state, strict=False)
    return model.eval()


def _unpacked(path: Path, name: str, tensor: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return tensor.float()
    if tensor.dim() != 4 or scale.shape != (len(tensor), 1, 1, 1):
        raise ModelError(
            f"{path}: {name} of shape {[*tensor.shape]} has scales of shape {[*scale.shape]}"
        )
    return tensor.float() * scale


def _check_weights(path: Path, state: dict[str, Tensor], spec: ModelSpec) -> None:
    """Before memory is taken for a network. Raises ModelError."""
    with torch.device("meta"):  # which takes none, whatever the spec says
        network = ColorNet(spec).state_dict()
    shapes = {n: t.shape for n, t in network.items() if not n.endswith("num_batches_tracked")}
    missing, unknown = sorted({*shapes} - {*state}), sorted({*state} - {*shapes})
    if missing or unknown:
        raise ModelError(
            f"{path}: weights do not fit the spec (missing {missing[:3]}, unknown {unknown[:3]})"
        )
    for name, tensor in state.items():
        if tensor.shape != shapes[name]:
            raise ModelError(
                f"{path}: weights do not fit the spec ({name}: found {[*tensor.shape]}, "
                f"expected {[*shapes[name]]})"
            )
        if not tensor.isfinite().all():
            raise ModelError(f"{path}: {name} holds values that are no finite numbers")


def _description(path: Path, metadata: dict[str, str]) -> tuple[ModelSpec, Decoding]:
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path}: not a colordaemon model (its metadata names no such format)")
    try:
        version = int(metadata["version"])
        if version > VERSION:
            raise ModelError(
                f"{path}: model format {version}, this colordaemon reads up to {VERSION}"
            )
        fields = json.loads(metadata["spec"])
        spec = ModelSpec(
            encoder=tuple(tuple(stage) for stage in fields["encoder"]),
            decoder=tuple(fields["decoder"]),
            short_side=fields["short_side"],
            bins=tuple((float(a), float(b)) for a, b in fields.get("bins", ())),
        )
        return spec, Decoding(**json.loads(metadata.get("decoding", "{}")))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its metadata describes no network ({error!r})") from error


def read_notes(path: Path) -> dict[str, Any]:
    """The facts that were stored with a model. Raises ModelError."""
    metadata, _ = _read(path, tensors=False)
    try:
        notes: dict[str, Any] = json.loads(metadata.get("notes", "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its notes are no JSON ({error})") from error
    return notes


def load_vgg(path: Path | None, encoder: Encoder) -> None:
    """Start an encoder from ImageNet VGG16 convolutions, folded to one gray channel if it has one.

    path: safetensors with torchvision's `features.N` keys, or None for torchvision's own weights.
    The file's metadata says what input they want: "RGB 0..255 minus (r,g,b), no division" for the
    original weights of Simonyan & Zisserman. Without such a mean, torchvision's normalization of
    0..1 is assumed. Raises ModelError.

    Activations are not rescaled here; see `balance`.
    """
    metadata, tensors = _torchvision_vgg() if path is None else _read(path)
    kernels = [tensors[name].float() for name in _convolution_names(tensors, "weight")]
    biases = [tensors[name].float() for name in _convolution_names(tensors, "bias")]
    # VGG sees three channels where this encoder may see one; otherwise they are the same.
    wanted = [
        (c.out_channels, 3 if c.in_channels == 1 else c.in_channels, 3, 3)
        for c in encoder.convolutions
    ]
    widths = [shape[0] for shape in wanted]
    if [tuple(kernel.shape) for kernel in kernels] != wanted or [*map(len, biases)] != widths:
        raise ModelError(
            f"{path or 'torchvision'}: expected the {len(wanted)} convolutions of VGG16 with "
            f"widths {widths}, found {len(kernels)} with widths {[*map(len, kernels)]} and "
            f"{len(biases)} biases"
        )
    gain, mean = _input_convention(path, metadata.get("input", ""))
    # Each color channel would see gain * gray - mean; the network is fed gray - MID_GRAY.
    offset = gain * MID_GRAY - mean
    biases[0] = biases[0] + (kernels[0].sum(dim=(2, 3)) * offset).sum(dim=1)
    kernels[0] = kernels[0] * gain[None, :, None, None]
    if encoder.convolutions[0].in_channels == 1:
        kernels[0] = kernels[0].sum(dim=1, keepdim=True)
    for conv, kernel, bias in zip(encoder.convolutions, kernels, biases, strict=True):
        conv.load_state_dict({"weight": kernel, "bias": bias})


@torch.no_grad()
def balance(encoder: Encoder, gray: Tensor) -> None:
    """Rescale an encoder so that every activation has unit mean square, its features unchanged.

    ReLU and pooling pass a positive factor through, so dividing a convolution's output by s and the
    next one's kernel likewise cancels out. The original VGG weights reach activations of thousands;
    after this, half precision has room and the decoder meets all scales at the same strength.
    gray: (N, 1, h, w) typical pictures in 0..1.
    """
    x, incoming = gray - MID_GRAY, torch.tensor(1.0)
    for number, stage in enumerate(encoder.stages):
        if number:
            x = torch.nn.functional.max_pool2d(x, 2)
        for conv in stage.children():
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            conv.weight *= incoming  # the input now arrives divided by `incoming`
            raw = torch.relu(conv(x))
            scale = raw.square().mean().sqrt().clamp(min=1e-6)
            conv.weight /= scale
            conv.bias /= scale
            x, incoming = raw / scale, scale


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Replace a file by another in one step that survives a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if tensors else []
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: expected a safetensors model, found {error}") from error


def _torchvision_vgg() -> tuple[dict[str, str], dict[str, Tensor]]:
    # Slow to import, seldom needed.
    from torchvision.models import (  # type: ignore[import-untyped]  # torchvision ships no types
        VGG16_Weights,
        vgg16,
    )

    try:
        state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
    except (OSError, RuntimeError) as error:  # not reachable, or a download with a wrong hash
        raise ModelError(
            f"torchvision's VGG16 weights cannot be had ({error}); name a file"
        ) from error
    return {}, {name: tensor for name, tensor in state.items() if name.startswith("features.")}


def _convolution_names(tensors: dict[str, Tensor], kind: str) -> list[str]:
    """The names `features.N.kind` in the order of N."""
    pattern = re.compile(rf"features\.(\d+)\.{kind}")
    numbers = sorted(int(match[1]) for name in tensors if (match := pattern.fullmatch(name)))
    return [f"features.{number}.{kind}" for number in numbers]


def _input_convention(path: Path | None, described: str) -> tuple[Tensor, Tensor]:
    """(gain, mean) per RGB channel: the network saw gain * value - mean for values in 0..1."""
    if not described:
        std = torch.tensor([0.229, 0.224, 0.225])
        return 1 / std, torch.tensor([0.485, 0.456, 0.406]) / std
    number = r"\s*([\d.]+)\s*"
    mean = re.search(rf"0\.\.255 minus \({number},{number},{number}\)", described)
    if mean is None:
        raise ModelError(
            f"{path}: expected the input to be told as 'RGB 0..255 minus (r,g,b)', "
            f"found {described!r}"
        )
    return torch.full((3,), 255.0), torch.tensor([float(value) for value in mean.groups()])
