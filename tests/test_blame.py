"""Who is to blame for a failure, by the real worker: a file, or the machine that all files need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import write_photo
from daemons import Daemon
from programs import blamed_worker

from colordaemon.service.job import State

Make = Callable[[str], Daemon]


@pytest.fixture
def make(tmp_path: Path, model: Path) -> Iterator[Make]:
    """Makes a daemon. jobs: its settings for them, beside those that make a test quick."""
    daemons: list[Daemon] = []

    def make(jobs: str) -> Daemon:
        daemon = Daemon(tmp_path / "place", model, work=blamed_worker.main)
        text = daemon.config.read_text()
        daemon.config.write_text(text.replace("retry_seconds: 0.5", f"retry_seconds: 0.1, {jobs}"))
        daemons.append(daemon)
        return daemon

    yield make
    for daemon in daemons:
        daemon.close()


def drop(daemon: Daemon, *names: str) -> None:
    for name in names:
        write_photo(daemon.root / "made.png").rename(daemon.inbox / name)


@pytest.mark.timeout(300)
def test_files_that_look_like_trouble_of_the_machine_pause_nobodys_work(make: Make) -> None:
    daemon = make("failures: 2, tries: 2")
    drop(daemon, *(f"{number} refused.png" for number in range(5)), "6 good.png")
    daemon.start(BROKEN="/nowhere")
    daemon.wait_for_ends(6)
    states = {job.source.name: (job.state, job.attempts) for job in daemon.jobs()}
    assert states.pop("6 good.png") == (State.DONE, 1)
    assert {*states.values()} == {(State.FAILED, 2)}
    assert "paused" not in daemon.said()
    assert daemon.stop() == 0


@pytest.mark.timeout(300)
def test_a_broken_model_pauses_all_work_before_files_fail_for_it(make: Make) -> None:
    daemon = make("failures: 2, tries: 5")
    broken = daemon.root / "broken"
    daemon.start(BROKEN=str(broken))
    daemon.wait_ready()
    broken.touch()
    drop(daemon, *(f"{number}.png" for number in range(4)))
    daemon.wait(lambda: "work is paused: 2 files failed" in daemon.said())
    assert not daemon.jobs(State.FAILED, State.DONE)
    broken.unlink()
    daemon.ask("resume")
    daemon.wait_for_ends(4)
    assert [job.state for job in daemon.jobs()] == [State.DONE] * 4
    assert daemon.stop() == 0


@pytest.mark.timeout(300)
def test_a_file_that_wants_too_much_memory_fails_for_that_and_others_go_on(make: Make) -> None:
    daemon = make("memory_mib: 1024")
    drop(daemon, "1.png", "2 greedy.png", "3.png")
    daemon.start(BROKEN="/nowhere")
    daemon.wait_for_ends(3)
    drop(daemon, "4.png")
    daemon.wait_for_ends(4)
    assert daemon.stop() == 0
    jobs = {job.source.name: job for job in daemon.jobs()}
    greedy = jobs.pop("2 greedy.png")
    assert (greedy.state, greedy.attempts) == (State.FAILED, 2)
    assert "out of memory, 1024 MiB is the limit (jobs.memory_mib)" in greedy.reason
    assert {job.state for job in jobs.values()} == {State.DONE}
    said = (daemon.outbox / "failed" / "2 greedy.png.error.txt").read_text()
    assert "out of memory" in said
