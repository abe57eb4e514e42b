"""Asking the daemon, and its journal where there is no daemon."""

from __future__ import annotations

import json
import os
import select
import selectors
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from colordaemon.cli.common import app
from colordaemon.clock import Clock, Monotonic, UnixTime
from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.service import control
from colordaemon.service.control import BadRequest, Commands, Control, NoAnswer, ask, run_command
from colordaemon.service.job import Found, Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.status import Reply, jobs_text, listed, status, status_text


def answer(request: Reply) -> Reply:
    if request.get("verb") == "bad":
        raise BadRequest("no such verb")
    if request.get("verb") == "full":
        raise sqlite3.OperationalError("database or disk is full")
    if request.get("verb") == "much":
        return {"much": "x" * (1 << 22)}
    return {"heard": request}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """The path of a socket behind which a loop like the daemon's runs."""
    folder = tmp_path / ("long" * 40)  # sockets have short names, folders need not
    folder.mkdir()
    selector, ended = selectors.DefaultSelector(), threading.Event()
    control = Control(folder / "control.sock", selector, answer)

    def loop() -> None:
        while not ended.is_set():
            for key, _ in selector.select(0.02):
                key.data()

    thread = threading.Thread(target=loop)
    thread.start()
    yield folder / "control.sock"
    ended.set()
    thread.join()
    control.close()
    selector.close()


def test_a_request_is_answered(served: Path) -> None:
    assert ask(served, {"verb": "status"}) == {"heard": {"verb": "status"}}
    assert served.stat().st_mode & 0o777 == 0o660


def test_a_bad_request_harms_nobody(served: Path) -> None:
    with pytest.raises(BadRequest, match="no such verb"):
        ask(served, {"verb": "bad"})
    assert ask(served, {"verb": "status"}) is not None


@pytest.mark.parametrize("data", [b"", b"no json\n", b"[1]\n", b"x" * 100, b"\xff\n"])
def test_nonsense_and_sudden_ends_are_survived(served: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        folder = os.open(served.parent, os.O_PATH)
        caller.connect(f"/proc/self/fd/{folder}/control.sock")
        os.close(folder)
        caller.sendall(data)
    assert ask(served, {"verb": "status"}) is not None


def connect(path: Path) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_PATH)
    caller.connect(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    caller.settimeout(20)
    return caller


@pytest.mark.parametrize(
    "data", [b"[" * 200_000 + b"\n", b"null\n", b"9" * 5000 + b"\n", b"\xff\n", b"x" * (1 << 21)]
)
def test_every_line_gets_an_answer(served: Path, data: bytes) -> None:
    with connect(served) as caller, caller.makefile("rb") as file:
        with suppress(BrokenPipeError):
            caller.sendall(data)
        assert "expected" in json.loads(file.readline())["error"]


def test_a_full_disk_is_told_to_whoever_asks(served: Path) -> None:
    with pytest.raises(BadRequest, match="disk is full"):
        ask(served, {"verb": "full"})
    assert ask(served, {"verb": "status"}) is not None


def serve(selector: selectors.BaseSelector) -> None:
    """A few turns of a loop like the daemon's."""
    for _ in range(10):
        for key, _ in selector.select(0):
            key.data()


def is_closed(caller: socket.socket) -> bool:
    """Whether the other side has closed the connection, read or not."""
    poll = select.poll()
    poll.register(caller, select.POLLRDHUP)
    return bool(poll.poll(0))


def test_who_does_not_read_holds_nobody_up_and_is_dropped(tmp_path: Path) -> None:
    selector, now = selectors.DefaultSelector(), 0.0
    control = Control(tmp_path / "control.sock", selector, answer, lambda: now)
    with connect(tmp_path / "control.sock") as sleeper:
        sleeper.sendall(b'{"verb": "much"}\n')
        serve(selector)
        with connect(tmp_path / "control.sock") as other, other.makefile("rb") as file:
            other.sendall(b'{"verb": "status"}\n')
            serve(selector)
            assert json.loads(file.readline()) == {"heard": {"verb": "status"}}
        control.turn(Monotonic(9.9))
        assert not is_closed(sleeper)
        control.turn(Monotonic(10.0))
        assert is_closed(sleeper)
    control.close()
    selector.close()


def test_a_slow_reader_gets_all_of_a_long_reply(served: Path) -> None:
    with connect(served) as caller, caller.makefile("rb") as file:
        caller.sendall(b'{"verb": "much"}\n')
        assert ask(served, {"verb": "status"}) is not None
        assert len(json.loads(file.readline())["much"]) == 1 << 22


def test_a_caller_who_is_dropped_in_the_turn_in_which_he_speaks_harms_nobody(
    tmp_path: Path,
) -> None:
    selector = selectors.DefaultSelector()
    control = Control(tmp_path / "control.sock", selector, answer)
    callers = []
    for _ in range(40):
        callers.append(connect(tmp_path / "control.sock"))
        for each in callers:
            with suppress(BrokenPipeError):
                each.send(b"half a line")
        serve(selector)
    with callers[-1].makefile("rb") as file:
        callers[-1].sendall(b" {}\n")
        serve(selector)
        assert "error" in json.loads(file.readline())
    control.close()
    selector.close()
    for caller in callers:
        caller.close()


def test_nobody_listens_where_no_daemon_runs(tmp_path: Path) -> None:
    assert ask(tmp_path / "control.sock", {"verb": "status"}) is None


@pytest.mark.parametrize("reply", [b"", b"\n", b"[]\n", None])
def test_a_daemon_that_says_nothing_sensible_is_named(tmp_path: Path, reply: bytes | None) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply or b"")

        thread = threading.Thread(target=hang_up)
        if reply is not None:
            thread.start()
        with pytest.raises(NoAnswer, match=rf"the daemon \(process {os.getpid()}\) (has|does)"):
            ask(path, {"verb": "status"}, seconds=0.2 if reply is None else 10)
        if reply is not None:
            thread.join()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "in").mkdir()
    (tmp_path / "state").mkdir()
    return Config(inbox=tmp_path / "in", outbox=tmp_path / "out", state_dir=tmp_path / "state")


def fill(config: Config) -> None:
    assert config.state_dir is not None and config.inbox is not None
    with Journal(config.state_dir / "journal.sqlite3") as journal:
        journal.add([Found(config.inbox / f"{n}.png", 1, 1) for n in range(3)], UnixTime(1.0))
        job = journal.claim(UnixTime(1.0))
        assert job is not None
        journal.set_aside(job, State.FAILED, UnixTime(2.0), code=Reason.MEDIA, reason="no film")


def test_without_a_daemon_the_journal_answers(config: Config) -> None:
    fill(config)
    status = run_command(config, {"verb": "status"})
    assert status["daemon"] is None
    assert status["counts"]["queued"] == 2
    assert [job["reason"] for job in status["failed"]] == ["no film"]
    queue = run_command(config, {"verb": "queue"})
    assert [job["id"] for job in queue["jobs"]] == [2, 3]
    assert run_command(config, {"verb": "retry"}) == {"count": 1}
    source = str(config.inbox and config.inbox / "1.png")
    assert run_command(config, {"verb": "cancel", "jobs": [source, "3"]}) == {"count": 2}
    assert run_command(config, {"verb": "forget", "jobs": [2]}) == {"count": 1}
    assert run_command(config, {"verb": "pause"}) == {"paused": True}
    assert run_command(config, {"verb": "status"})["paused"]


def test_many_files_are_retried_a_few_at_a_time_and_over_restarts(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "BATCH", 2)
    assert config.inbox is not None and config.state_dir is not None
    path = config.state_dir / "journal.sqlite3"
    with Journal(path) as journal:
        journal.add([Found(config.inbox / f"{n}.png", 1, 1) for n in range(5)], UnixTime(1.0))
        for job in journal.jobs(State.QUEUED):
            journal.set_aside(job, State.FAILED, UnixTime(2.0), code=Reason.MEDIA, reason="no film")
        assert Commands(journal, lambda: UnixTime(3.0)).run({"verb": "retry"}) == {"count": 5}
        assert journal.ids(State.QUEUED) == [1, 2]
    with Journal(path) as journal:  # of the next daemon
        later = Commands(journal, lambda: UnixTime(4.0))
        later.turn()
        assert journal.ids(State.QUEUED) == [1, 2, 3, 4] and later.is_busy
        later.turn()
        assert journal.ids(State.FAILED) == [] and not later.is_busy
        for job in journal.jobs(State.QUEUED):
            journal.set_aside(job, State.FAILED, 5.0, code=Reason.MEDIA, reason="no film")
        later.turn()
        assert len(journal.ids(State.FAILED)) == 5  # it was asked for once
    assert run_command(config, {"verb": "retry"}) == {"count": 5}
    with Journal(path) as journal:
        assert journal.ids(State.FAILED) == []


@pytest.mark.parametrize("which", ["99", "/no/such/file.png", str(10**30)])
def test_a_job_that_there_is_not_is_told(config: Config, which: str) -> None:
    fill(config)
    with pytest.raises(BadRequest, match="no job"):
        run_command(config, {"verb": "forget", "jobs": [which]})


@pytest.mark.parametrize(
    "jobs",
    [5, True, None, "1", {}, [True], [None], [[1]], [1.5], ["\ud800"], ["a\0"], [1] * 10_001],
)
def test_jobs_that_are_no_jobs_are_refused(config: Config, jobs: object) -> None:
    fill(config)
    for verb in ("forget", "cancel", "first", "retry"):
        with pytest.raises(BadRequest, match=r"^jobs: |^no job"):
            run_command(config, {"verb": verb, "jobs": jobs})


def test_before_the_first_start_there_is_nothing_to_ask(config: Config) -> None:
    with pytest.raises(ConfigError, match="no journal in"):
        run_command(config, {"verb": "status"})


def test_the_commands_print_what_is_known_and_say_whether_it_worked(
    config: Config, tmp_path: Path
) -> None:
    fill(config)
    file = tmp_path / "config.yaml"
    file.write_text("inbox: in\noutbox: out\nstate_dir: state\n")

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*words, "--config", str(file)])
        return result.exit_code, result.output

    code, said = run("status")
    assert code == 0 and "the daemon is not running" in said and "no film" in said
    assert json.loads(run("status", "--json")[1])["counts"]["failed"] == 1
    assert [job["id"] for job in json.loads(run("queue", "--json")[1])["jobs"]] == [2, 3]
    assert run("first", str(tmp_path / "in" / "2.png")) == (0, "1 file moved to the front\n")
    assert run("retry", "1") == (0, "1 file queued again\n")
    expected = "done or failed or skipped or cancelled"
    assert run("forget", "1") == (
        1, f"0 files forgotten; job 1 is queued, and `forget` is for jobs that are {expected}\n"
    )  # fmt: skip
    assert run("cancel", "1", "2") == (0, "2 files cancelled\n")
    assert run("cancel", "1") == (
        1,
        "0 files cancelled; job 1 is cancelled, and `cancel` is for jobs that are queued or"
        " running\n",
    )
    assert run("cancel", "77") == (1, "no job 77\n")
    assert run("pause") == (0, "paused\n")
    assert "paused by command" in run("status")[1]
    assert run("resume") == (0, "no longer paused\n")


def test_a_word_that_no_request_has_is_told_and_nothing_done(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "journal") as journal,
        pytest.raises(BadRequest, match="found path too"),
    ):
        Commands(journal, Clock().time).run({"verb": "retry", "path": "a.png"})


def test_verbs_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal, pytest.raises(BadRequest, match="'sing'"):
        Commands(journal, lambda: UnixTime(1.0)).run({"verb": "sing"})


def test_lists_have_their_columns_one_below_the_other_and_names_on_one_line(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        names = "a.png", "a longer name\nwith two lines.png"
        journal.add([Found(Path("/in") / name, 1, 2) for name in names], UnixTime(1.0))
        journal.set_aside(
            journal.job(1), State.FAILED, UnixTime(2.0), code=Reason.MEDIA, reason="broken"
        )
        jobs = [listed(journal.job(number)) for number in (1, 2)]
        reply = status(journal) | {"daemon": None}
    heading, first, second = jobs_text(jobs).splitlines()
    assert heading.index("why") == first.index("broken") > len("/in/a longer name")
    assert second == "2    queued  /in/a longer name\\nwith two lines.png"
    said = status_text(reply).splitlines()
    assert reply["left"] == {"seconds": 0.0, "unknown": 1}
    assert said[0] == "the daemon is not running" and "1 queued" in said[1]
    assert said[2:] == jobs_text(jobs[:1]).splitlines()


def test_status_says_how_long_the_whole_queue_will_take(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.add([Found(Path(f"/in/{n}.mp4"), 100, 2, rank=1) for n in "ab"], UnixTime(1.0))
        job = journal.claim(UnixTime(2.0))
        assert job is not None
        journal.finish(job, UnixTime(302.0), reason="done", retire="")
        reply = status(journal)
    running = {"status": "1 queued", "inboxes": [], "orphaned": 0, "running": []}
    assert "about 5:00 left for all" in status_text(reply | {"daemon": running})
    running["running"] = [{"id": 3, "seconds_left": 65.0}]
    assert "about 6:05 left for all" in status_text(reply | {"daemon": running})
