"""What systemd hears, over a socket of its own kind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from colordaemon.clock import Monotonic
from colordaemon.service.event_loop import Notifier


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)  # paths of sockets have to be short
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("notify")
        server.settimeout(1.0)
        yield server


def test_messages_arrive_as_systemd_wants_them(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "notify"})
    notifier.ready()
    notifier.status("3 queued")
    notifier.status("3 queued")  # nothing new
    notifier.reloading()
    notifier.stopping()
    assert systemd.recv(999) == b"READY=1"
    assert systemd.recv(999) == b"STATUS=3 queued"
    reloading = systemd.recv(999)
    assert reloading.startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert reloading.rpartition(b"=")[2].isdigit()
    assert systemd.recv(999) == b"STOPPING=1"


def test_an_abstract_address_is_understood() -> None:
    name = f"colordaemon-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert server.recv(999) == b"READY=1"


def test_pings_come_twice_as_often_as_asked(systemd: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "20000000"}
    notifier = Notifier(environment)
    assert notifier.ping_seconds == 10.0
    assert notifier.is_ping_due(Monotonic(5.0))
    notifier.ping(Monotonic(5.0))
    assert not notifier.is_ping_due(Monotonic(14.9)) and notifier.is_ping_due(Monotonic(15.0))
    assert systemd.recv(999) == b"WATCHDOG=1"


def test_a_watchdog_that_is_meant_for_another_process_is_ignored() -> None:
    assert Notifier({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}).ping_seconds is None


def test_without_systemd_or_when_it_is_gone_work_goes_on(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
