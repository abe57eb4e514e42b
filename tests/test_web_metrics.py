"""Figures of the daemon for programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pages import CLUSTER, House
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from colordaemon.cli.common import app
from colordaemon.service.job import State

INBOX = {
    "inbox": os.fsdecode(b"/in \xff\n"), "outbox": "/out", "state": "watched", "why": "",
    "settling": 3, "late": [], "queued": 7,
}  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def figures(text: str) -> dict[str, float]:
    """By name and labels, read by Prometheus's own parser."""
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_the_daemon_does(house: House) -> None:
    house.fail(3)
    house.fill(State.RUNNING, 2)
    progress = [{"id": n, "share": 0.5, "frames": 9, "fps": 20.5, "seconds_left": 60.0}
                for n in (4, 5)]  # fmt: skip
    with house.daemon(running=progress, inboxes=[INBOX], waiting="room"):
        answer = house.client().get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = figures(answer.text)
    expected = {
        "colordaemon_up": 1, "colordaemon_ready": 1, "colordaemon_paused": 0,
        "colordaemon_waiting": 1, "colordaemon_jobs failed": 3, "colordaemon_jobs running": 2,
        "colordaemon_jobs done": 0, "colordaemon_frames_per_second": 41,
        "colordaemon_left_seconds": 60, "colordaemon_inbox_queued /in \\udcff\\n": 7,
        "colordaemon_inbox_settling /in \\udcff\\n": 3, "colordaemon_inbox_up /in \\udcff\\n": 1,
    }  # fmt: skip
    assert found.items() >= expected.items()
    assert found[f"colordaemon_disk_free_bytes {house.folders.outbox}"] > 0


def test_prometheus_reads_what_the_machines_of_a_cluster_do(house: House) -> None:
    with house.daemon(cluster=CLUSTER):
        found = figures(house.client().get("/metrics").text)
    assert {name: value for name, value in found.items() if "_cluster_" in name} == {
        "colordaemon_cluster_nodes": 2, "colordaemon_cluster_refused_nodes": 1,
        "colordaemon_cluster_gpus": 3, "colordaemon_cluster_workers": 3,
        "colordaemon_cluster_segments": 2, "colordaemon_cluster_films": 1,
        "colordaemon_cluster_photos": 1,
        "colordaemon_cluster_waiting": 1,
    }  # fmt: skip
    with house.daemon():
        assert "_cluster_" not in house.client().get("/metrics").text


def test_a_file_for_node_exporter_says_the_same_without_a_daemon(
    house: House, tmp_path: Path
) -> None:
    house.fail(2)
    config = tmp_path / "config.yaml"
    config.write_text("inbox: in\noutbox: out\nstate_dir: state\n")
    file = tmp_path / "colordaemon.prom"
    run = CliRunner().invoke
    assert run(app, ["metrics", "--config", str(config), "-o", str(file)]).exit_code == 0
    printed = run(app, ["metrics", "--config", str(config)])
    found = figures(file.read_text())
    assert found["colordaemon_up"] == 0 and found["colordaemon_jobs failed"] == 2
    assert figures(printed.stdout).keys() == found.keys()
    assert [path.name for path in tmp_path.glob("colordaemon.prom*")] == ["colordaemon.prom"]


def test_a_summary_fits_a_dashboard(house: House) -> None:
    house.fail(3000)
    house.fill(State.RUNNING, 3)
    client = house.client()
    down = client.get("/status.json")
    assert down.json()["state"] == "down" and down.json()["counts"]["failed"] == 3000
    assert len(down.content) < 2000
    with house.daemon(inboxes=[INBOX]):
        assert house.client().get("/status.json").json()["state"] == "coloring"
