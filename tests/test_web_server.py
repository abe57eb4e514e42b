"""`colordaemon web` as its users run it: a process of its own beside the daemon."""

from __future__ import annotations

import re
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from conftest import Start
from daemons import PATIENCE
from pages import HERE
from processes import Process, run
from test_daemon import drop

from colordaemon.cli import main as colordaemon
from colordaemon.service.job import State

Serve = Callable[[Path], tuple[Process, str]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts the page of a configuration at any port; its process and its address."""
    started, log = list[Process](), tmp_path / "web.log"

    def serve(config: Path) -> tuple[Process, str]:
        words = ("web", "--config", config, "--listen", "127.0.0.1:0")
        process = Process(colordaemon, words=words, stderr=log)
        started.append(process)
        until = time.monotonic() + PATIENCE
        while not (found := re.search(r"http://\S+:\d+/", log.read_text() if log.exists() else "")):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        return process, found[0]

    yield serve
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_the_page_shows_what_the_daemon_did_and_goes_on_without_it(
    start: Start, serve: Serve
) -> None:
    daemon = start("web: {hosts: [films.example]}")
    daemon.start()
    daemon.wait_ready()
    process, url = serve(daemon.config)
    file = daemon.root / "state" / "web.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().strip()
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
        assert client.post("/do/pause", headers=HERE).status_code == 303
        drop(daemon, "photo.png")
        daemon.wait(lambda: daemon.jobs(State.QUEUED))
        assert "Paused" in client.get("/").text and "photo.png" in client.get("/queue").text
        assert client.post("/do/resume", headers=HERE).status_code == 303
        daemon.wait_for_ends(1)
        assert "/picture/1/0/after" in client.get("/done").text
        for side in ("before", "after"):
            picture = client.get(f"/picture/1/0/{side}", headers={"Host": "films.example"})
            assert picture.content[:2] == b"\xff\xd8"
        with client.stream("GET", "/events") as stream:
            assert next(stream.iter_lines()).startswith("data: ")
            assert daemon.stop() == 0
            while "not running" not in client.get("/").text:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)  # with a browser that still looks on
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
    with httpx2.Client() as client, pytest.raises(httpx2.ConnectError):
        client.get(url)


def test_an_address_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text("inbox: in\noutbox: out\nstate_dir: state\n")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("web", "--config", config, "--listen", address, program=colordaemon)
    assert done.returncode == 78 and f"cannot listen on {address}" in done.stderr
    done = run("web", "--config", config, "--listen", "8765", program=colordaemon)
    assert done.returncode == 78 and "as in 127.0.0.1:8765" in done.stderr
