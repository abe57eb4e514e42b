"""The page: what it shows and commands, of a daemon that runs or of its journal alone."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import anyio
import pytest
from pages import CLUSTER, HERE, House
from starlette.testclient import TestClient

from colordaemon.service.job import ENDS, Reason, State
from colordaemon.service.records import VERSION, Records
from colordaemon.web import app, look
from colordaemon.web.look import Looks
from colordaemon.web.words import ADVICE, duration_of, size_of


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def names_on(client: TestClient, address: str) -> list[str]:
    """The files that a list names, in its order."""
    answer = client.get(address)
    assert answer.status_code == 200
    found = list[str]()

    class Reader(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.inside = dict(attributes).get("class") == "name"

        def handle_data(self, data: str) -> None:
            if self.inside:
                found.append(data)
            self.inside = False

    Reader().feed(answer.text)
    return found


# Without a daemon


def test_without_a_daemon_the_page_says_so_and_shows_the_journal(house: House) -> None:
    house.fill(State.QUEUED)
    house.fail()
    text = house.client().get("/").text
    assert "The daemon is not running" in text
    assert "queued 0.png" in text and "failed 0.png" in text and "Pause" not in text


def test_without_a_journal_the_page_says_that_there_is_none_yet(house: House) -> None:
    client = house.client()
    assert "There is no journal yet" in client.get("/").text
    assert client.get("/done").status_code == 200
    assert client.get("/job/1").status_code == 404


def test_a_journal_that_cannot_be_read_is_named_with_the_reason(house: House) -> None:
    house.folders.journal.write_bytes(b"no journal" * 1000)
    client = house.client()
    assert "journal rebuild" in client.get("/").text
    assert "journal rebuild" in client.get("/done").text
    house.folders.journal.unlink()
    house.fill(State.QUEUED)
    with closing(sqlite3.connect(house.folders.journal)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    assert f"version {VERSION + 1}" in house.client().get("/failed").text


def test_a_command_that_no_daemon_hears_changes_nothing(house: House) -> None:
    house.fail()
    client = house.client()
    assert client.post("/do/retry", data={"job": "1"}, headers=HERE).status_code == 303
    assert "not running, so nothing was done" in client.get("/failed").text
    with Records(house.folders.journal) as records:
        assert records.counts()[State.FAILED] == 1


# With one


def test_commands_reach_the_daemon_and_their_answer_is_shown_once(house: House) -> None:
    house.fail()
    house.fill(State.QUEUED, 3)
    client = house.client()
    with house.daemon():
        back = {"back": "/queue?page=1"}
        answer = client.post("/do/first", data={"job": "4", **back}, headers=HERE)
        assert (answer.status_code, answer.headers["location"]) == (303, "/queue?page=1")
        assert "1 file moved to the front" in client.get("/queue").text
        assert "moved to the front" not in client.get("/queue").text
        assert names_on(client, "/queue") == ["queued 2.png", "queued 0.png", "queued 1.png"]
        client.post("/do/cancel", data={"job": ["2", "3"]}, headers=HERE)
        assert "2 files cancelled" in client.get("/").text
        client.post("/do/retry", data={"all": "yes"}, headers=HERE)
        assert names_on(client, "/queue") == ["queued 2.png", "failed 0.png"]
        client.post("/do/pause", headers=HERE)
        page = client.get("/").text
        assert "Paused" in page and "Resume" in page
        client.post("/do/resume", headers=HERE)
        assert "Work goes on." in client.get("/").text


def test_what_the_daemon_refuses_is_told(house: House) -> None:
    house.fill(State.DONE)
    client = house.client()
    with house.daemon():
        client.post("/do/cancel", data={"job": "1"}, headers=HERE)
        assert "0 files cancelled. job 1 is done" in client.get("/done").text
        client.post("/do/cancel", data={"job": "99"}, headers=HERE)
        assert "no job 99" in client.get("/done").text


@pytest.mark.parametrize(
    ("verb", "form", "status"),
    [
        ("forget", {"job": "1"}, 404),
        ("status", {}, 404),
        ("cancel", {}, 400),
        ("retry", {}, 400),
        ("cancel", {"job": "/etc/passwd"}, 400),
        ("cancel", {"job": "-1"}, 400),
        ("cancel", {"job": "9" * 40}, 400),
    ],
)
def test_other_commands_and_other_jobs_than_numbers_are_refused(
    house: House, verb: str, form: dict[str, str], status: int
) -> None:
    client = house.client()
    with house.daemon() as asked:
        assert client.post(f"/do/{verb}", data=form, headers=HERE).status_code == status
        assert client.get(f"/do/{verb}").status_code == 405
    assert not asked


def test_running_jobs_are_shown_with_their_progress(house: House) -> None:
    house.fill(State.RUNNING, 2)
    progress = {"id": 1, "share": 0.413, "frames": 90, "fps": 12.34, "seconds_left": 5400.0}
    with house.daemon(running=[progress]):
        client = house.client()
        text = client.get("/").text
        assert "41 %" in text and "12.3</b> frames a second" in text and "1 h 30 min" in text
        assert text.count("<progress") == 2 and 'value="0.4130"' in text
        summary = client.get("/status.json").json()
    assert summary["state"] == "coloring" and summary["seconds_left"] == 5400
    assert [job["share"] for job in summary["running"]] == [0.413, None]


def test_a_film_that_is_joined_shows_how_far_that_is(house: House) -> None:
    house.fill(State.RUNNING, 1)
    joining = {"id": 1, "share": 1.0, "frames": 90, "fps": 12.3, "stage": "joining",
               "stage_share": 0.41}  # fmt: skip
    with house.daemon(running=[joining]):
        text = house.client().get("/").text
    assert "joining <b>41 %" in text and 'value="0.4100"' in text
    assert "frames a second" not in text


def test_inboxes_disks_and_what_work_waits_for_are_shown(house: House) -> None:
    inbox = {
        "inbox": "/mnt/nas/in", "outbox": "/srv/out", "state": "gone", "why": "not mounted",
        "settling": 3, "late": [{"path": "/in/a.jpg", "why": "came too late"}], "queued": 7,
    }  # fmt: skip
    with house.daemon(inboxes=[inbox], waiting="the disk is full", orphaned=2):
        text = house.client().get("/").text
    for said in ("/mnt/nas/in", "not mounted", "came too late", "the disk is full", "2 jobs wait",
                 "3 arriving", "a GPU", "free of"):  # fmt: skip
        assert said in text


def test_the_machines_of_a_cluster_are_shown_with_what_they_do(house: House) -> None:
    assert "Cluster" not in house.client().get("/").text
    with house.daemon(cluster=CLUSTER):
        text = house.client().get("/").text
    for said in ("store:6379", "gpu1 (10.0.0.2)", "2 GPUs, 16 cores", "3 of 4 workers ready",
                 "portrait.jpg", "reel.mkv", "from 30 s", "from 90 s", "Work waits for a GPU node",
                 "Does not take part: found torch 1, expected 2"):  # fmt: skip
        assert said in " ".join(text.split())


# Lists


def test_ten_thousand_done_and_seven_thousand_failed_are_paged_and_searched(house: House) -> None:
    house.fill(State.DONE, 10_000)
    house.fail(7_000)
    client = house.client()
    first = names_on(client, "/failed")
    assert first == [f"failed {n}.png" for n in range(6999, 6949, -1)]
    assert "7000 in all" in client.get("/failed").text
    assert "Page 1 of 140" in client.get("/failed").text
    assert names_on(client, "/failed?page=140")[-1] == "failed 0.png"
    assert names_on(client, "/done?page=2")[0] == "done 9949.png"
    assert names_on(client, "/done?q=DONE+77") == [
        f"done {n}.png" for n in (*range(7799, 7769, -1), *range(7769, 7749, -1))
    ]
    assert "111 with" in client.get("/done?q=done+77").text
    assert names_on(client, "/done?q=done+1234") == ["done 1234.png"]


@pytest.mark.parametrize("page", ["0", "-1", "x", "99", "9" * 30, "²"])
def test_a_page_that_does_not_exist_is_the_nearest_that_does(house: House, page: str) -> None:
    house.fail(60)
    assert len(names_on(house.client(), f"/failed?page={page}")) in (10, 50)


def test_a_search_takes_every_letter_for_itself(house: House) -> None:
    for name in ("100%.png", "100x.png", "a_b.png", "aXb.png", "c\\d.png", "Ünï.png"):
        house.fill(State.QUEUED, source=house.folders.inbox / name)
    client = house.client()
    for search, expected in (
        ("100%25", ["100%.png"]),
        ("a_b", ["a_b.png"]),
        ("c%5Cd", ["c\\d.png"]),
        ("Ün", ["Ünï.png"]),
        ("'; DROP TABLE jobs; --", []),
    ):
        assert names_on(client, f"/queue?q={search}") == expected
    assert len(names_on(client, "/queue")) == 6


def test_a_search_reads_no_rows_but_those_it_finds(house: House) -> None:
    house.fill(State.DONE)
    with Records(house.folders.journal) as records:
        seen = list[str]()
        records._db.set_trace_callback(seen.append)
        records.listed(State.DONE, "x", limit=50)
        records._db.set_trace_callback(None)
        plan = "; ".join(row[3] for row in records._db.execute(f"EXPLAIN QUERY PLAN {seen[-1]}"))
    assert "USING COVERING INDEX latest" in plan
    assert "SCAN jobs" not in plan


def test_failures_come_with_their_reason_and_what_to_do(house: House) -> None:
    house.fail(3)
    house.fail(1, Reason.MACHINE, source=house.folders.inbox / "other.png")
    text = house.client().get("/failed").text
    assert text.count("no film") == 4
    assert "<b>3 × media:</b>" in text and "<b>1 × machine:</b>" in text
    assert ADVICE[Reason.MACHINE] in house.client().get("/job/4").text


def test_there_is_advice_for_every_way_a_file_is_given_up() -> None:
    queued_again = {
        Reason.INBOX, Reason.TOUCHED, Reason.GUIDE, Reason.HALF, Reason.LOST, Reason.SPACE,
        Reason.WAY, Reason.SETTINGS, Reason.STOPPED, Reason.MEMORY,
    }  # fmt: skip
    assert {*ADVICE} == {*Reason} - queued_again - {Reason.NONE}


def test_a_job_says_all_that_is_known_of_it(house: House) -> None:
    part = {"kind": "sound", "what": "audio stream 1", "fate": "converted", "how": "to AAC"}
    house.fill(
        State.DONE, target=os.fsencode(house.folders.outbox / "a.color.png"), reason="64x48",
        inventory=json.dumps([part]), attempts=2,
    )  # fmt: skip
    text = house.client().get("/job/1").text
    for said in ("a.color.png", "64x48", "audio stream 1", "to AAC", "2 attempts", "1000 bytes"):
        assert said in text
    assert house.client().get("/job/2").status_code == 404
    for number in (str(1 << 70), "9" * 5000, "1.5", "one"):  # Python refuses numbers of 5000 digits
        assert house.client().get(f"/job/{number}").status_code == 404


# News


def test_however_many_look_the_daemon_is_asked_once_a_second(house: House) -> None:
    house.fill(State.QUEUED)
    now = 0.0
    looks = Looks((house.folders,), lambda: now)

    async def many() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(looks.latest)

    with house.daemon() as asked:
        for seconds in (0.0, 0.5, 1.0, 1.9):
            now = seconds
            anyio.run(many)
        assert len(asked) == 2
        looks.forget()
        anyio.run(many)
        assert len(asked) == 3


def test_news_come_when_something_has_changed_and_else_a_sign_of_life(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(look, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(app, "_ALIVE_SECONDS", 0.03)
    house.fill(State.QUEUED)

    async def listen() -> list[str]:
        heard = list[str]()
        async for line in house.page()._news():
            heard.append(line)
            if len(heard) == 3:
                house.fail()
            house.is_over = len(heard) == 6
        return heard

    heard = anyio.run(listen)
    news = [json.loads(line.removeprefix("data: ")) for line in heard if line.startswith("data: ")]
    assert len(heard) == 6 and len(news) == 2 and heard[1] == ": alive\n\n"
    assert [each["parts"]["count-failed"] for each in news] == ["0", "1"]
    assert news[0]["revision"] != news[1]["revision"]
    assert "not running" in news[0]["parts"]["bar"]


def test_the_stream_of_news_ends_with_the_server(house: House) -> None:
    house.fill(State.QUEUED)
    house.is_over = True
    answer = house.client().get("/events")
    assert answer.headers["content-type"].startswith("text/event-stream") and answer.text == ""


# Words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3, "under a minute"),
        (61, "1 min"),
        (5400, "1 h 30 min"),
        (172_800, "2 days"),
        (200_000, "2 days 7 h"),
    ],
)
def test_durations_are_said_in_two_units_at_most(seconds: float, said: str) -> None:
    assert duration_of(seconds) == said


def test_sizes_are_said_in_three_digits_or_so() -> None:
    said = [size_of(size) for size in (0, 999, 1024, 1536, 150 << 20, 3 << 40, 5000 << 40)]
    assert said == ["0 bytes", "999 bytes", "1.0 KiB", "1.5 KiB", "150 MiB", "3.0 TiB", "5000 TiB"]


def test_every_state_that_ends_a_job_has_a_list() -> None:
    assert {*ENDS} <= {*app.LISTS.values()} and State.QUEUED in app.LISTS.values()
