"""Model files: safetensors that can rebuild their network.

A model file holds the encoder's kernels as int8 with one scale per output channel and everything
else as float16, so that the default model weighs 30 MB. The metadata carries the spec, the tuned
decoding, the metrics and where the training data came from. No pickle anywhere.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from colordaemon.durable import replace_file
from colordaemon.errors import ModelError
from colordaemon.network.model import ColorNet, Decoding, ModelSpec
from colordaemon.network.places import Axes
from colordaemon.network.quantized import peak_names

FORMAT = "colordaemon"
# 1 knew one head only; such files are read as models without bins. 2 had no exponent and one share
# of the bins for all places. Axes and peaks may be missing in any: they are fitted when training
# ends.
VERSION = 3
BUILT_IN = Path(__file__).parent / "default.safetensors"
BUILT_IN_SHA256 = "91a264cdd978fa12ce64ab44c2b7b03ff0fa6e458b4e8d20e7ed61b4e45bfe6c"

_SCALE = ".scale"  # suffix of the tensor that holds an int8 kernel's scales
_PEAKS = "peaks"  # in the metadata
_AXES = "axes."  # prefix of the tensors by which pictures are compared


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
    if model.axes is not None:
        tensors |= _axes_tensors(model.axes)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "spec": json.dumps(asdict(model.spec)),
        "decoding": json.dumps(asdict(model.decoding)),
        "notes": json.dumps(notes),
    }
    if model.peaks is not None:
        metadata[_PEAKS] = json.dumps(model.peaks)
    replace_file(path, save(tensors, metadata))


def save_fitted(path: Path, axes: Axes, peaks: dict[str, float]) -> None:
    """Put axes and peaks into a model file, in place of its own if it has any; all else stays as it
    is. Raises ModelError."""
    metadata, tensors = read_tensors(path)
    spec, _ = _description(path, metadata)
    _check_axes(path, axes, spec)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(_AXES)}
    # Not the version of the file: a model of one head stays one.
    metadata |= {_PEAKS: json.dumps(peaks)}
    replace_file(path, save(kept | _axes_tensors(axes), metadata))


def load_model(path: Path) -> ColorNet:
    """Rebuild a network from its file, in float32 and evaluation mode. Raises ModelError."""
    metadata, tensors = read_tensors(path)
    spec, decoding = _description(path, metadata)
    state = {
        name: _unpacked(path, name, tensor, tensors.get(name + _SCALE))
        for name, tensor in tensors.items()
        if not name.endswith(_SCALE) and not name.startswith(_AXES)
    }
    with torch.device("meta"):  # takes no memory, whatever the spec says, and no time
        model = ColorNet(spec, decoding)
    _check_weights(path, state, model)
    model.load_state_dict(state, assign=True)
    model.axes = _read_axes(path, tensors, spec)
    model.peaks = _read_peaks(path, metadata, model)
    return model.eval()


def _unpacked(path: Path, name: str, tensor: Tensor, scale: Tensor | None) -> Tensor:
    if not (tensor if scale is None else scale).isfinite().all():
        raise ModelError(f"{path}: {name} holds values that are no finite numbers")
    if scale is None:
        return tensor.float()
    if tensor.dim() != 4 or scale.shape != (len(tensor), 1, 1, 1):
        raise ModelError(
            f"{path}: {name} of shape {[*tensor.shape]} has scales of shape {[*scale.shape]}"
        )
    return tensor.float() * scale


def _axes_tensors(axes: Axes) -> dict[str, Tensor]:
    """Axes as a file holds them."""
    layers = enumerate(axes.layers)
    return {
        f"{_AXES}{number}.{name}": tensor.detach().cpu().half().contiguous()
        for number, layer in layers
        for name, tensor in zip(("mean", "axes"), layer, strict=True)
    }


def _read_axes(path: Path, tensors: dict[str, Tensor], spec: ModelSpec) -> Axes | None:
    """The axes of a file, None if it has none. Raises ModelError."""
    found = {name: tensor.float() for name, tensor in tensors.items() if name.startswith(_AXES)}
    if not found:
        return None
    numbers = range(len(found) // 2)
    try:
        pairs = [(found[f"{_AXES}{n}.mean"], found[f"{_AXES}{n}.axes"]) for n in numbers]
    except KeyError as error:
        raise ModelError(f"{path}: axes without {error}, found {sorted(found)[:3]}") from None
    axes = Axes(tuple(pairs))
    _check_axes(path, axes, spec)
    return axes


def _read_peaks(path: Path, metadata: dict[str, str], model: ColorNet) -> dict[str, float] | None:
    """The peaks of a file, None if it has none. Raises ModelError."""
    if _PEAKS not in metadata:
        return None
    try:
        peaks = {str(name): float(peak) for name, peak in json.loads(metadata[_PEAKS]).items()}
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its peaks are no numbers by name ({error!r})") from error
    if wrong := sorted(peaks.keys() ^ peak_names(model)):
        raise ModelError(f"{path}: peaks do not fit the spec (missing or unknown {wrong[:3]})")
    if strange := [peak for peak in peaks.values() if not 0 <= peak < inf]:
        raise ModelError(f"{path}: peaks are numbers from 0 on, found {strange[0]}")
    return peaks


def _check_axes(path: Path, axes: Axes, spec: ModelSpec) -> None:
    """Raises ModelError for axes of another network."""
    expected = spec.compared_widths
    found = [[*mean.shape, *rows.shape[1:]] for mean, rows in axes.layers]
    if found != [[width, width] for width in expected]:
        raise ModelError(
            f"{path}: axes do not fit the spec (found widths {found}, expected {[*expected]})"
        )
    if not all(tensor.isfinite().all() for layer in axes.layers for tensor in layer):
        raise ModelError(f"{path}: axes hold values that are no finite numbers")


def _check_weights(path: Path, state: dict[str, Tensor], model: ColorNet) -> None:
    """Before memory is taken for a network; adds what files leave out. Raises ModelError."""
    expected = model.state_dict()
    counts = {name for name in expected if name.endswith("num_batches_tracked")}
    shapes = {name: tensor.shape for name, tensor in expected.items() if name not in counts}
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
    state |= {name: torch.zeros((), dtype=torch.int64) for name in counts}


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
    metadata, _ = read_tensors(path, tensors=False)
    try:
        notes: dict[str, Any] = json.loads(metadata.get("notes", "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its notes are no JSON ({error})") from error
    return notes


def read_tensors(path: Path, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and, if wanted, the tensors of a safetensors file. Raises ModelError."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if tensors else []
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file") from None
    except (SafetensorError, OSError) as error:
        found = "a folder" if path.is_dir() else "a damaged file, or one of another kind"
        raise ModelError(
            f"{path}: found {found} ({error}), expected a safetensors model of colordaemon"
        ) from error
