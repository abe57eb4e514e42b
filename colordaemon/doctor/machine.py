"""Checks of the machine: libraries, the device, the model, codecs, memory."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from colordaemon.config import Codec, ModelSettings
from colordaemon.doctor.finding import Finding, fault, ok, warning
from colordaemon.memory import limit_bytes

# Of what is imported: the name under which it is installed.
_LIBRARIES = {
    "numba": "numba",
    "numpy": "numpy",
    "torch": "torch",
    "cv2": "opencv-python-headless",
    "av": "av",
    "pyvips": "pyvips[binary]",
    "pillow_heif": "pillow-heif",
    "watchdog": "watchdog",
    "safetensors": "safetensors",
}
_LEAST_MIB = 3072  # for one file; films of 4K take up to this, see benchmarks/memory.py
_NEAR = 0.02  # by which half precision may be off, as a share of the largest value
# What old films come in; others are tried when they come.
_DECODERS = (
    "h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "vc1", "dvvideo", "mjpeg",
    "prores", "dnxhd", "ffv1", "huffyuv", "msmpeg4", "svq3", "cinepak", "rawvideo",
)  # fmt: skip


def libraries(needed: Mapping[str, str] = _LIBRARIES) -> Iterator[Finding]:
    """Whether everything can be imported. needed: by the name that is imported, that of pip."""
    from colordaemon import __version__

    found, missing = [], False
    for name, package in needed.items():
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            missing = True
            yield fault(name, f"cannot be imported: {error}", _install(package, str(error)))
            continue
        version = getattr(module, "__version__", None)
        found.append(f"{package.split('[')[0]} {version}" if version else package.split("[")[0])
    if not missing:
        versions = ", ".join((f"Python {platform.python_version()}", *found))
        yield ok("libraries", f"colordaemon {__version__}, {versions}")


def _install(package: str, error: str) -> str:
    """OpenCV is linked with libraries of a desktop, which a server need not have."""
    if "libGL" in error or "libX" in error or "libgthread" in error:
        return "apt-get install libgl1 libglib2.0-0"
    return f"pip install --force-reinstall '{package}'"


def device(settings: ModelSettings) -> Iterator[Finding]:
    """Whether the network can run where the settings say: a small convolution in the precision
    that it will have (with the built-in model), compared with one of double precision."""
    import torch

    from colordaemon.errors import ModelError
    from colordaemon.network.device import DTYPES, choose_device, choose_dtype, overlooks_gpu
    from colordaemon.network.quantized import convolved

    driver = "nvidia-smi shows whether the driver runs; see docs/daemon.md"
    try:
        chosen = choose_device(settings.device)
        dtype = choose_dtype(settings.precision, chosen, integers=True)
    except ModelError as error:
        yield fault("device", str(error), driver)
        return
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "CPU"
    precision = {dtype: name for name, dtype in DTYPES.items()}[dtype]
    where = f"{name}, {precision}"
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 16, 24, 24, generator=generator, dtype=torch.float64)
    kernel = torch.rand(16, 16, 3, 3, generator=generator, dtype=torch.float64) - 0.5
    expected = torch.conv2d(picture, kernel)
    try:
        if dtype == torch.int8:
            got = convolved(picture.float(), kernel.float()).double()
        else:
            got = torch.conv2d(picture.to(chosen, dtype), kernel.to(chosen, dtype)).double().cpu()
    except RuntimeError as error:
        yield fault("device", f"{where}: {str(error).splitlines()[0]}", driver)
        return
    apart = float((got - expected).abs().max() / expected.abs().max())
    if not apart <= _NEAR:
        what = f"{where}: a convolution is off by {apart:.1%} of the largest value"
        yield fault("device", f"{what}, expected {_NEAR:.0%} at most", "set model.precision: fp32")
    elif overlooks_gpu(settings.device):
        yield warning("device", f"{where}; there is an NVIDIA GPU, but CUDA finds none", driver)
    else:
        yield ok("device", f"{where}: a convolution is right within {apart:.2%}")


def hardware_codecs() -> Iterator[Finding]:
    """Whether an NVIDIA card encodes and decodes one frame. Cards for data centers often cannot
    encode, and nothing here depends on it."""
    import torch

    if not torch.cuda.is_available():
        yield ok("NVENC, NVDEC", "not tried, there is no CUDA GPU")
        return
    for name in ("h264_nvenc", "h264_cuvid"):
        works = _encodes(name, {}) if name.endswith("nvenc") else _decodes(name)
        yield ok(name, "works" if works else "does not work here; the processor does it")


def codecs(wanted: Codec) -> Iterator[Finding]:
    """Whether each encoder makes a packet of a frame, and each decoder of old films is there."""
    import av

    from colordaemon.media.encoders import ENCODERS

    broken = [codec for codec, each in ENCODERS.items() if not _encodes(each.name, each.options)]
    for codec in broken:
        found, mend = f"{ENCODERS[codec].name} cannot encode a frame", _install("av", "")
        yield (fault if codec == wanted else warning)(f"codec {codec}", found, mend)
    missing = [name for name in _DECODERS if name not in av.codecs_available]
    if missing:
        yield warning("decoders", f"missing: {', '.join(missing)}", _install("av", ""))
    if not broken and not missing:
        encoders = ", ".join(ENCODERS)
        yield ok("codecs", f"encoders {encoders}; {len(_DECODERS)} decoders of old films")


def _encodes(name: str, options: Mapping[str, str]) -> bool:
    """Whether an encoder makes at least one packet of a gray frame, in a format that it takes."""
    from fractions import Fraction

    import av
    from av.video.codeccontext import VideoCodecContext

    try:
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, VideoCodecContext)
        known = {each.name for each in context.codec.video_formats or ()}
        pixels = "yuv420p" if "yuv420p" in known else "yuv422p10le"
        context.width, context.height, context.pix_fmt = 256, 144, pixels
        context.time_base, context.options = Fraction(1, 25), dict(options)
        context.framerate = Fraction(25)
        frame = av.VideoFrame(256, 144, pixels)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts = 0
        return bool(context.encode(frame) + context.encode(None))
    except (av.FFmpegError, av.codec.codec.UnknownCodecError, OSError, ValueError):
        return False


def _decodes(name: str) -> bool:
    """Whether a decoder can be opened, which NVDEC does on the card."""
    import av

    try:
        av.CodecContext.create(name, "r").open()
    except (av.FFmpegError, av.codec.codec.UnknownCodecError, OSError, ValueError):
        return False
    return True


def models(files: Iterable[Path | None]) -> Iterator[Finding]:
    """Whether each model file can be loaded; its size and checksum. None is the built-in one."""
    from colordaemon.convert.publish import sha256
    from colordaemon.errors import ModelError
    from colordaemon.network.checkpoint import BUILT_IN, BUILT_IN_SHA256, load_model

    for file in dict.fromkeys(each or BUILT_IN for each in files):
        try:
            load_model(file)
            size, digest = file.stat().st_size, sha256(file)
        except (ModelError, OSError) as error:
            mend = _install("colordaemon", "") if file == BUILT_IN else "name another model file"
            yield fault("model", str(error), mend)
            continue
        what = f"{file}: {size / 1e6:.1f} MB, SHA-256 {digest}"
        if file != BUILT_IN:
            yield ok("model", what)
        elif digest == BUILT_IN_SHA256:
            yield ok("model", f"built-in, {size / 1e6:.1f} MB, SHA-256 as released")
        else:
            yield warning(
                "model",
                f"{what}, expected {BUILT_IN_SHA256}: not the model of this release",
                _install("colordaemon", ""),
            )


def memory(memory_mib: int | None) -> Iterator[Finding]:
    """What one file may take."""
    mib = limit_bytes(memory_mib) >> 20
    if mib < _LEAST_MIB:
        found = f"{mib} MiB for one file; films of 4K need up to {_LEAST_MIB}"
        yield warning("memory", found, "raise jobs.memory_mib, or color only smaller films")
    else:
        yield ok("memory", f"{mib} MiB for one file")
