"""What each part of the work on a GPU brings, and how long the GPU waits; gpu.sh runs it.

    python benchmarks/gpu.py RESULTS [FILM] [--device cpu] [--seconds 180]

Colors one clip (1080 lines, made here unless a film is named) again and again, each time in a
process of its own: with everything that is usual, without one part of it, with NVDEC and NVENC, and
with several workers. Ratios are to the null transcode by the same encoder in the same call. Once it
is colored under torch's profiler, which tells for what share of the time the GPU had nothing to do.

Writes RESULTS/gpu.json and prints a table. What there is no time for is left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av

from colordaemon.bench import stages
from colordaemon.bench.clips import Clip, begin_of, make_clip
from colordaemon.bench.machine import describe_machine
from colordaemon.bench.network import look
from colordaemon.config import Config
from colordaemon.film.colorize import plan_film
from colordaemon.media.nvdec import UNPACKED, opened_on_gpu
from colordaemon.media.probe import FilmInfo
from colordaemon.network.cuda import SWITCHES, VARIABLE

_BATCH = 8  # that films are colored in
_WORKERS = 2, 4
_LONG = 3  # times the usual clip, for several workers


@dataclass(frozen=True)
class Case:
    """What one process does. kind: whole, null, network or profile. without: switched off. film:
    settings that differ from the usual ones."""

    name: str
    kind: str = "whole"
    without: str = ""
    film: dict[str, Any] = field(default_factory=dict)
    workers: int = 1

    @property
    def _parted(self) -> dict[str, Any]:
        """So that there are segments for all workers."""
        return {"segment_seconds": 2.0} if self.workers > 1 else {}

    def config(self, device: str) -> Config:
        return Config.model_validate(
            {
                "film": {"stride": 1} | self._parted | self.film,
                "model": {"device": device, "batch_size": _BATCH},
                "jobs": {"workers": self.workers},
            }
        )


def cases() -> Iterator[Case]:
    """The most important ones first; the usual one again at the end, which shows the noise."""
    nvenc = {"encode_on": "gpu"}
    all_on_gpu = nvenc | {"decode_on": "gpu", "smooth_on": "gpu"}
    yield Case("usual")
    yield Case("null transcode", "null")
    yield Case("profile", "profile")
    for switch in SWITCHES:
        yield Case(f"without {switch}", without=switch)
    yield Case("smoothing on the GPU", film={"smooth_on": "gpu"})
    yield Case("NVDEC", film={"decode_on": "gpu"})
    yield Case("NVENC", film=nvenc)
    yield Case("null transcode, NVENC", "null", film=nvenc)
    for count in _WORKERS:
        yield Case(f"{count} workers", workers=count)
    yield Case("network without graphs", "network", without="graphs")
    yield Case("network without fusing", "network", without="fusing")
    yield Case("NVENC, all on the GPU", film=all_on_gpu)
    yield Case("NVENC, all, 2 workers", film=all_on_gpu, workers=2)
    yield Case("stride auto", film={"stride": "auto"})
    yield Case("usual, again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("results", type=Path)
    parser.add_argument("film", type=Path, nargs="?")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=180.0, help="for everything")
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--clip-seconds", type=float, default=5.0)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case = Case(**json.loads(arguments.case))
        print(json.dumps(run(case, arguments.film, arguments.folder, arguments.device)))
        return
    arguments.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="colordaemon-gpu-") as name:
        folder = Path(name)
        clip, long = (begin(folder / str(times), arguments, times) for times in (1, _LONG))
        found, left_out = measure(clip.path, long.path, folder, arguments)
    report = {
        "machine": describe_machine(),
        "clip": [clip.name, clip.width, clip.height],
        "cases": found,
        "left_out": left_out,
    }
    (arguments.results / "gpu.json").write_text(json.dumps(report, indent=2))
    print(describe_machine())
    print("\n".join(table(found)))
    for name, reason in left_out.items():
        print(f"{name}: left out, {reason}")


def begin(folder: Path, arguments: argparse.Namespace, times: int) -> Clip:
    """The clip, or one that is as many times as long."""
    folder.mkdir()
    seconds = times * arguments.clip_seconds
    if arguments.film:
        return begin_of(arguments.film, seconds, folder)
    return make_clip(folder, arguments.height, seconds)


def measure(
    clip: Path, long: Path, folder: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, str]]:
    """What each case says, and why others say nothing. long: the clip for several workers."""
    found, left_out = dict[str, Any](), dict[str, str]()
    ends, took = time.monotonic() + arguments.seconds, [0.0]
    for case in cases():
        begins = time.monotonic()
        if ends - begins < statistics.mean(took):
            left_out[case.name] = "no time left"
            continue
        film = str(long if case.workers > 1 else clip)
        command = [sys.executable, __file__, str(folder), film, "--device", arguments.device]
        command += ["--case", json.dumps(asdict(case)), "--folder", str(folder)]
        try:
            said = subprocess.run(  # noqa: S603  (ourselves)
                command,
                env=os.environ | {VARIABLE: case.without},
                capture_output=True,
                text=True,
                timeout=max(1.0, ends - begins),
            )
        except subprocess.TimeoutExpired:
            left_out[case.name] = "no time left"
            continue
        took.append(time.monotonic() - begins)
        if said.returncode == 0:
            found[case.name] = json.loads(said.stdout.splitlines()[-1])
        else:
            left_out[case.name] = (said.stderr.strip() or "no output").splitlines()[-1]
        print(f"{case.name}: {took[-1]:.1f} s", file=sys.stderr, flush=True)
    return found, left_out


def run(case: Case, clip: Path, folder: Path, device: str) -> dict[str, Any]:
    """Of one case, in a process of its own."""
    config, result = case.config(device), folder / "colored"
    kept = folder / f"chroma-{config.film.encode_on}"
    if case.kind == "network":
        speed = look(config.model, _BATCH, 2.0)
        took = speed.ran.result
        flops = took.count / took.wall_seconds * speed.operations
        return {
            "wall_ms": 1000 * took.wall_seconds / took.count,
            "tflops": flops / 1e12,
            "share_of_peak": flops / speed.peak,
        }
    job = plan_film(clip, config.film, force=True)
    if case.film.get("encode_on") == "gpu" and not job.encoder.on_gpu:
        raise SystemExit("; ".join(job.remarks))
    if case.film.get("decode_on") == "gpu" and not decodes(job.source):
        raise SystemExit("the GPU does not decode this film")
    if case.kind == "null":
        took = stages.transcode(clip, config.film, kept, folder / "null")
    elif case.kind == "profile":
        return profiled(clip, config, result)
    else:
        took = stages.color(clip, config, result)
        if not kept.exists():
            stages.keep_chroma(clip, config.film, result, kept)
    return {
        "count": took.count,
        "wall_ms": 1000 * took.wall_seconds / took.count,
        "processor_ms": 1000 * took.processor_seconds / took.count,
    }


def decodes(info: FilmInfo) -> bool:
    """Whether pictures come as the GPU packs them, and not from the processor after all."""
    container = opened_on_gpu(info)
    if container is None:
        return False
    with container:
        picture = next(container.decode(video=0))
        return isinstance(picture, av.VideoFrame) and picture.format.name in UNPACKED


def profiled(clip: Path, config: Config, result: Path) -> dict[str, Any]:
    """Shares of the time in which the device does something, and with what it is busy most."""
    import torch
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    from colordaemon.convert.models import Model, ModelCache
    from colordaemon.film.colorize import color_film

    colorizer = Model(config.model, ModelCache()).load()
    colorizer.warm_up()
    on_gpu = colorizer.device.type == "cuda"
    job = plan_film(clip, config.film, force=True)
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    every_thread = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with profile(activities=[activity], experimental_config=every_thread) as tracing:
        began = time.perf_counter()
        frames = color_film(job, result, colorizer).frames
        took = time.perf_counter() - began
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    assert tracing.profiler is not None and tracing.profiler.kineto_results is not None
    events = [
        event for event in tracing.profiler.kineto_results.events() if event.device_type() == kind
    ]
    spans = [(e.start_ns(), e.start_ns() + e.duration_ns()) for e in events]
    copies = [span for span, e in zip(spans, events, strict=True) if "emcpy" in e.name()]
    by_name = dict[str, int]()
    for event in events:
        by_name[event.name()] = by_name.get(event.name(), 0) + event.duration_ns()
    most = sorted(by_name.items(), key=lambda item: -item[1])[:12]
    return {
        "count": frames,
        "wall_ms": 1000 * took / frames,
        "busy": covered(spans) / 1e9 / took,
        "copying": covered(copies) / 1e9 / took,
        "idle": 1 - covered(spans) / 1e9 / took,
        "kernels_a_frame": len(events) / frames,
        "most_ms_a_frame": {name: nanoseconds / 1e6 / frames for name, nanoseconds in most},
    }


def covered(spans: Sequence[tuple[int, int]]) -> int:
    """How much time at least one of the spans takes."""
    total, until = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, until))
        until = max(until, end)
    return total


def table(found: dict[str, Any]) -> Iterator[str]:
    usual = found.get("usual")
    nulls = {"gpu": found.get("null transcode, NVENC"), "cpu": found.get("null transcode")}
    yield f"{'':26} {'ms':>8} {'cpu ms':>8} {'÷ null':>7} {'÷ usual':>8}   of a frame"
    for name, said in found.items():
        if "processor_ms" not in said:
            continue
        null = nulls["gpu" if "NVENC" in name else "cpu"]
        to_null = f"{null['wall_ms'] / said['wall_ms']:7.2f}" if null else f"{'':7}"
        to_usual = f"{usual['wall_ms'] / said['wall_ms']:8.2f}" if usual else ""
        yield f"{name:26} {said['wall_ms']:8.2f} {said['processor_ms']:8.2f} {to_null} {to_usual}"
    for name, said in found.items():
        if "share_of_peak" in said:
            yield (
                f"{name}, batches of {_BATCH}: {said['wall_ms']:.3f} ms a frame, "
                f"{said['tflops']:.1f} TFLOP/s, {said['share_of_peak']:.0%} of a matrix product's"
            )
    if profile := found.get("profile"):
        yield (
            f"profile: idle {profile['idle']:.0%} of the time, copying {profile['copying']:.0%}, "
            f"{profile['kernels_a_frame']:.0f} kernels and copies a frame; most of it:"
        )
        for name, milliseconds in profile["most_ms_a_frame"].items():
            yield f"  {milliseconds:8.3f} ms a frame  {name[:90]}"


if __name__ == "__main__":
    main()
