"""What was measured: for programs as JSON, for people as one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from colordaemon.bench.timing import Measured
from colordaemon.logs import printable

VERSION = 1  # of the JSON; another number means that a field has another meaning or is gone
# The stages of a film in the order of the table, by their names in the JSON.
STAGES = {
    "whole": "whole pipeline",
    "null": "null transcode",
    "decode": "decode only",
    "smoothing": "smoothing only",
    "chroma": "chroma planes only",
}
COLUMNS = ("frames", "per s", "÷ null", "wall\nms", "cpu\nms", "MiB", "GPU\nMiB")
_TEXT_WIDTH = 100


@dataclass(frozen=True)
class ClipReport:
    """A clip and its stages, by name."""

    name: str
    own: bool
    codec: str
    width: int
    height: int
    stages: Mapping[str, Measured]

    def ratio(self, stage: str) -> float | None:
        """How many times as fast as the null transcode of this clip, in this call."""
        null, found = self.stages.get("null"), self.stages.get(stage)
        return found.ratio_to(null) if null and found else None

    def to_json(self) -> dict[str, Any]:
        null = self.stages.get("null")
        stages = {
            name: stage.to_json()
            | {
                "ratio_to_null": self.ratio(name),
                "processor_ratio_to_null": null and stage.processor_ratio_to(null),
            }
            for name, stage in self.stages.items()
        }
        return {
            "name": self.name,
            "own": self.own,
            "codec": self.codec,
            "width": self.width,
            "height": self.height,
            "stages": stages,
            "ratio": self.ratio("whole"),
        }


@dataclass(frozen=True)
class NetworkReport:
    """The network alone. tflops: what it does in a second, 10^12 multiplications and additions;
    peak_tflops: what a matrix product does on the same device."""

    batch: int
    height: int
    width: int
    measured: Measured
    tflops: float
    peak_tflops: float

    def to_json(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "height": self.height,
            "width": self.width,
            "tflops": self.tflops,
            "peak_tflops": self.peak_tflops,
            "share_of_peak": self.tflops / self.peak_tflops,
        } | self.measured.to_json()


@dataclass(frozen=True)
class PhotosReport:
    width: int
    height: int
    measured: Measured

    def to_json(self) -> dict[str, Any]:
        return {"width": self.width, "height": self.height} | self.measured.to_json()


@dataclass(frozen=True)
class GrowthReport:
    """The whole pipeline on a short and a long film of the same kind."""

    name: str
    seconds: tuple[float, float]
    short: Measured
    long: Measured

    @property
    def time_ratio(self) -> float:
        """Of the time for a frame: 1 if it does not grow."""
        return self.short.ratio_to(self.long)

    @property
    def processor_ratio(self) -> float:
        return self.short.processor_ratio_to(self.long)

    @property
    def memory_ratio(self) -> float:
        """Of the most memory: 1 if it does not grow."""
        return self.long.peak_mib / self.short.peak_mib

    def to_json(self) -> dict[str, Any]:
        short, long = self.seconds
        return {
            "name": self.name,
            "short": {"seconds": short} | self.short.to_json(),
            "long": {"seconds": long} | self.long.to_json(),
            "time_ratio": self.time_ratio,
            "processor_ratio": self.processor_ratio,
            "memory_ratio": self.memory_ratio,
        }


@dataclass
class Report:
    """machine, network_on, settings: as plain values. failures: what failed, and why."""

    machine: dict[str, Any]
    network_on: dict[str, Any]
    settings: dict[str, Any]
    clips: list[ClipReport] = field(default_factory=list)
    network: list[NetworkReport] = field(default_factory=list)
    photos: PhotosReport | None = None
    growth: GrowthReport | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "machine": self.machine,
            "network_on": self.network_on,
            "settings": self.settings,
            "clips": [clip.to_json() for clip in self.clips],
            "network": [row.to_json() for row in self.network],
            "photos": self.photos and self.photos.to_json(),
            "growth": self.growth and self.growth.to_json(),
            "failures": self.failures,
        }


def show(report: Report, console: Console) -> None:
    """Print what it was made on, the table, and remarks; plain lines into a file or pipe."""
    if not console.is_terminal:
        console.width = _TEXT_WIDTH
    for line in _facts(report):
        console.print(Text(line), soft_wrap=True)
    box_style = box.SIMPLE_HEAD if console.is_terminal else None
    grid = Table(box=box_style, padding=(0, 1, 0, 0), show_edge=False)
    grid.add_column("", overflow="fold")
    for column in COLUMNS:
        grid.add_column(column, justify="right", no_wrap=True)
    for number, (name, found, ratio) in enumerate(_rows(report)):
        if found is None:
            if number:
                grid.add_row()
            grid.add_row(Text(name, style="bold"))
        else:
            grid.add_row(Text(name), *_cells(found, ratio))
    console.print(grid)
    for line in _remarks(report):
        console.print(Text(line), soft_wrap=True)


def _facts(report: Report) -> list[str]:
    machine, on = report.machine, report.network_on
    versions, threads = (
        ", ".join(f"{name} {value}" for name, value in machine[key].items())
        for key in ("versions", "threads")
    )
    gpu = f"{machine['gpu']}, {machine['gpu_memory_mib']} MiB" if machine["gpu"] else "no GPU"
    film = report.settings["film"]
    return [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mib']} MiB; {gpu}",
        f"network on {on['device']}, {on['precision']}, {on['quality']} ({on['short_side']} px), "
        f"batches of {on['batch_size']}; threads: {threads}",
        f"{film['codec']}, smoothing {film['smoothing']}, stride {film['stride']}; "
        f"workers: {report.settings['workers']}",
        versions,
    ]


Row = tuple[str, Measured | None, float | None]  # name; none is measured: a heading


def _rows(report: Report) -> list[Row]:
    rows: list[Row] = []
    for clip in report.clips:
        rows.append((f"{printable(clip.name)}, {clip.width}x{clip.height}", None, None))
        for name, shown in STAGES.items():
            if name in clip.stages:
                rows.append((f"  {shown}", clip.stages[name], clip.ratio(name)))
    if report.network:
        one = report.network[0]
        rows.append((f"network only, {one.width}x{one.height}", None, None))
        rows += [(f"  batches of {row.batch}", row.measured, None) for row in report.network]
    if photos := report.photos:
        rows.append((f"photos, {photos.width}x{photos.height}", None, None))
        rows.append(("  once", photos.measured, None))
    if growth := report.growth:
        rows.append((f"growth, {printable(growth.name)}", None, None))
        for seconds, measured in zip(growth.seconds, (growth.short, growth.long), strict=True):
            rows.append((f"  {seconds / 60:g} min", measured, None))
    return rows


def _cells(measured: Measured, ratio: float | None) -> list[str]:
    device = measured.device_peak_mib
    return [
        str(measured.count),
        f"{measured.per_second:.1f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{measured.wall_ms:.2f}",
        f"{measured.processor_ms:.2f}",
        f"{measured.peak_mib:.0f}",
        "–" if device is None else f"{device:.0f}",
    ]


def _remarks(report: Report) -> list[str]:
    said = [
        f"network, batches of {row.batch}: {row.tflops:.2f} TFLOP/s, "
        f"{row.tflops / row.peak_tflops:.0%} of a matrix product's"
        for row in report.network
    ]
    if growth := report.growth:
        said.append(
            f"from {growth.seconds[0] / 60:g} to {growth.seconds[1] / 60:g} min: "
            f"{growth.time_ratio:.2f} times the time for a frame, "
            f"{growth.processor_ratio:.2f} times that of the processors, "
            f"{growth.memory_ratio:.2f} times the memory"
        )
    said += [
        f"{printable(name)}: failed: {printable(reason)}"
        for name, reason in report.failures.items()
    ]
    return said
