"""Commands that are told how files ended."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from colordaemon.service.hooks import Hook
from colordaemon.service.job import Found, Job, State
from colordaemon.service.journal import Journal


@pytest.fixture
def job(tmp_path: Path) -> Job:
    with Journal(tmp_path / "journal") as journal:
        journal.add([Found(Path("/in/ü\n.png"), 1, 1)], 1.0)
        job = journal.claim(1.0)
        assert job is not None
        journal.set_aside(job, State.FAILED, 2.0, code="media", reason="no film")
        return journal.job(job.id)


def ended(hook: Hook, now: float = 0.0) -> Job:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if (job := hook.ended(now)) is not None:
            return job
        time.sleep(0.01)
    pytest.fail("the hook did not end")


def test_a_hook_reads_json_and_no_shell_reads_its_words(tmp_path: Path, job: Job) -> None:
    output = tmp_path / "$HOME; told"
    hook = Hook(f"tee {shlex.quote(str(output))}", 10.0)
    assert hook.start(job, 0.0) and hook.is_busy
    assert ended(hook) == job
    told = json.loads(output.read_text())
    assert (told["source"], told["state"], told["code"]) == ("/in/ü\n.png", "failed", "media")
    assert told["target"] is None and not hook.is_busy


def test_a_hook_that_takes_too_long_is_killed(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook("sleep 1000", 10.0)
    hook.start(job, 0.0)
    assert hook.ended(9.9) is None
    assert ended(hook, 10.0) == job
    assert "killed after 10 s" in caplog.text


def test_a_hook_that_fails_or_is_missing_is_told_and_no_more(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook(shlex.join([sys.executable, "-c", "raise SystemExit(3)"]), 10.0)
    hook.start(job, 0.0)
    ended(hook)
    assert "status 3" in caplog.text
    assert not Hook("/no/such/program", 10.0).start(job, 0.0)
    assert "cannot run /no/such/program" in caplog.text
