"""What the daemon does, for Prometheus and for dashboards."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from colordaemon import __version__
from colordaemon.logs import printable
from colordaemon.service.status import Reply
from colordaemon.web.look import Look
from colordaemon.web.words import name_of, shown

_NAME = "colordaemon"


class LookCollector(Collector):
    """The figures of one look. Only gauges: all of them can fall."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def collect(self) -> Iterable[GaugeMetricFamily | InfoMetricFamily]:
        look, daemon = self._look, self._look.daemon
        yield InfoMetricFamily(_NAME, "Which version this is.", {"version": __version__})
        yield _gauge("up", "Whether the daemon answers.", daemon is not None)
        yield _gauge("ready", "Whether its model is loaded.", bool(daemon and daemon["ready"]))
        yield _gauge("paused", "Whether work is paused by command.", look.paused)
        yield _gauge("waiting", "Whether work, or a part of it, waits for something.",
                     bool(daemon and daemon["waiting"]))  # fmt: skip
        yield _gauge("jobs", "Jobs in the journal.", look.counts, "state")
        fps = sum(job["fps"] or 0.0 for job in look.running)
        yield _gauge("frames_per_second", "Frames of films that are colored in a second.", fps)
        yield _gauge("left_seconds", "Until what is known of the queue is done.", look.left.seconds)
        yield _gauge("left_unknown_jobs", "Queued jobs of which that is unknown.",
                     look.left.unknown)  # fmt: skip
        inboxes = daemon["inboxes"] if daemon else []
        for key, text in (("queued", "Jobs that wait."), ("settling", "Files that arrive.")):
            yield _gauge(f"inbox_{key}", text, _of_each(inboxes, key), "inbox")
        there = {shown(each["inbox"]): each["state"] != "gone" for each in inboxes}
        yield _gauge("inbox_up", "Whether an inbox is there.", there, "inbox")
        if daemon and daemon["cluster"]:
            yield from _cluster(daemon["cluster"])
        free = {shown(disk.folder): disk.free for disk in look.disks if disk.free is not None}
        size = {shown(disk.folder): disk.total for disk in look.disks if disk.total is not None}
        yield _gauge("disk_free_bytes", "Free space of the disk of a folder.", free, "folder")
        yield _gauge("disk_size_bytes", "Size of the disk of a folder.", size, "folder")


def registry_of(look: Look) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(LookCollector(look))
    return registry


def summary_of(look: Look) -> Reply:
    """A few hundred bytes for a dashboard. version: of these keys; it rises when one changes its
    meaning or goes. seconds_left: null if it is unknown."""
    return {
        "version": 1,
        "state": look.state,
        "trouble": printable(look.trouble),
        "counts": look.counts,
        "running": [
            {"id": job["id"], "name": name_of(job["source"]), "share": job["share"],
             "fps": job["fps"], "seconds_left": job["seconds_left"]}
            for job in look.running
        ],
        "seconds_left": round(look.left.seconds),
        "unknown": look.left.unknown,
        "disks": [
            {"folder": shown(disk.folder), "free": disk.free, "total": disk.total}
            for disk in look.disks
        ],
    }  # fmt: skip


def _cluster(found: Reply) -> Iterable[GaugeMetricFamily]:
    """found: as `cluster.Cluster.as_json`."""
    nodes = found["nodes"]
    workers = [worker for node in nodes for worker in node["workers"]]
    busy = [worker["film"] for worker in workers if worker["film"]]
    for name, text, value in (
        ("nodes", "Machines of the cluster.", len(nodes)),
        ("refused_nodes", "Those that may not take part.", sum(bool(n["refused"]) for n in nodes)),
        ("gpus", "GPUs of the cluster.", sum(node["gpus"] for node in nodes)),
        ("workers", "Workers that are ready.", sum(each["is_ready"] for each in workers)),
        ("segments", "Segments of films that workers make now.", len(busy)),
        ("films", "Films that these are of.", len(set(busy))),
        ("photos", "Photos that workers color now.", sum(bool(each["photo"]) for each in workers)),
        ("waiting", "Whether work waits for machines.", bool(found["waiting"])),
    ):
        yield _gauge(f"cluster_{name}", text, value)


def _of_each(inboxes: Iterable[Reply], key: str) -> dict[str, float]:
    return {shown(inbox["inbox"]): inbox[key] for inbox in inboxes}


def _gauge(
    name: str, text: str, value: float | dict[str, int] | dict[str, float], label: str = ""
) -> GaugeMetricFamily:
    """value: one, or one for each value of the label."""
    if not isinstance(value, dict):
        return GaugeMetricFamily(f"{_NAME}_{name}", text, value)
    family = GaugeMetricFamily(f"{_NAME}_{name}", text, labels=[label])
    for key, each in value.items():
        family.add_metric([key], each)
    return family
