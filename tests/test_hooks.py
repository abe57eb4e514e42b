"""Commands that are told how files ended."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.config import AfterSettings
from colordaemon.service.hooks import END_SECONDS, Command, HookRunner, Hooks, commands_of
from colordaemon.service.job import Found, Job, Reason, State
from colordaemon.service.journal import Journal


@pytest.fixture
def job(tmp_path: Path) -> Job:
    with Journal(tmp_path / "journal") as journal:
        journal.add([Found(Path("/in/ü\n.png"), 1, 1)], UnixTime(1.0))
        job = journal.claim(UnixTime(1.0))
        assert job is not None
        journal.set_aside(job, State.FAILED, UnixTime(2.0), code=Reason.MEDIA, reason="no film")
        return journal.job(job.id)


def ended(hooks: Hooks, now: float = 0.0) -> Job:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if (job := hooks.ended(Monotonic(now))) is not None:
            return job
        time.sleep(0.01)
    pytest.fail("the hook did not end")


def test_a_hook_reads_json_and_no_shell_reads_its_words(tmp_path: Path, job: Job) -> None:
    output = tmp_path / "$HOME; told"
    settings = AfterSettings(hook=f"tee {shlex.quote(str(output))}")
    hooks = Hooks(commands_of(settings), 10.0)
    hooks.start(job, Monotonic(0.0))
    assert hooks.is_busy
    assert ended(hooks) == job
    told = json.loads(output.read_text())
    assert (told["source"], told["state"], told["code"]) == ("/in/ü\n.png", "failed", "media")
    assert told["target"] is None and not hooks.is_busy


def test_a_hook_that_takes_too_long_is_killed(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks([Command(["sleep", "1000"])], 10.0)
    hooks.start(job, Monotonic(0.0))
    assert hooks.ended(Monotonic(9.9)) is None
    assert ended(hooks, 10.0) == job
    assert "killed after 10 s" in caplog.text


def test_a_hook_that_fails_or_is_missing_is_told_and_the_next_one_runs(
    job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    commands = [["/no/such/program"], failing, ["touch", str(tmp_path / "ran")]]
    hooks = Hooks([Command(words) for words in commands], 10.0)
    hooks.start(job, Monotonic(0.0))
    assert ended(hooks) == job
    assert "cannot run /no/such/program" in caplog.text and "status 3" in caplog.text
    assert (tmp_path / "ran").exists()
    assert [command.words for command in hooks.failed] == commands[:2]


def test_without_hooks_there_is_nothing_to_run() -> None:
    assert not Hooks(commands_of(AfterSettings()), 10.0)


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it is sent; an address that ends with "bad" is refused."""

    heard: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(json.loads(body))
        self.send_response({"bad": 500, "moved": 302}.get(self.path[1:], 204))
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("path", "fails"), [("done", False), ("bad", True), ("moved", True)])
def test_a_webhook_is_sent_the_same_json(
    job: Job, caplog: pytest.LogCaptureFixture, path: str, fails: bool
) -> None:
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/{path}"
        commands = commands_of(AfterSettings(webhook=address))
        assert address not in commands[0].words
        hooks = Hooks(commands, 20.0)
        hooks.start(job, Monotonic(0.0))
        ended(hooks)
        thread.join()
    assert Receiver.heard[-1]["reason"] == "no film"
    assert ("status 1" in caplog.text) == fails


def told(herald: HookRunner, now: float, wall: float) -> None:
    """Until all that is due has been told."""
    herald.turn(Monotonic(now), UnixTime(wall))
    until = time.monotonic() + 20
    while herald.is_busy and time.monotonic() < until:
        time.sleep(0.01)
        herald.turn(Monotonic(now), UnixTime(wall))


@pytest.mark.logs_errors
def test_a_hook_that_fails_runs_again_and_no_other_one_with_it(tmp_path: Path) -> None:
    open_file, calls = tmp_path / "open", tmp_path / "calls"
    receiver = tmp_path / "receiver"
    receiver.write_text(f"#!/bin/sh\necho call >> {calls}\ntest -e {open_file}\n")
    receiver.chmod(0o755)
    with Journal(tmp_path / "journal") as journal:
        herald = HookRunner(journal, AfterSettings(hook=str(receiver)))
        for name in ("a.png", "b.png"):
            journal.add([Found(Path("/in") / name, 1, 1)], UnixTime(1.0))
            job = journal.claim(UnixTime(1.0))
            assert job is not None
            journal.set_aside(job, State.FAILED, UnixTime(2.0), code=Reason.MEDIA, reason="no film")
        for now in (0.0, 0.5, 1.0, 2.0, 3.0, 9.0):
            told(herald, now, 2.0)
        assert calls.read_text().count("call") == 2  # once for each
        for now in (10.0, 14.0, 20.0, 49.0):
            told(herald, now, 2.0)
        assert calls.read_text().count("call") == 4
        herald = HookRunner(journal, AfterSettings(hook=str(receiver)))  # a restart
        open_file.touch()
        told(herald, 100.0, 2.0)
        told(herald, 100.0, 2.0)
        assert calls.read_text().count("call") == 6 and not journal.to_announce()


@pytest.mark.logs_errors
def test_a_hook_that_never_succeeds_is_given_up(tmp_path: Path, job: Job) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.note("hook", "yes")
        herald = HookRunner(journal, AfterSettings(hook="false"))
        told(herald, 0.0, job.changed)
        assert journal.to_announce()
        told(herald, 100.0, job.changed + END_SECONDS)
        assert not journal.to_announce()
