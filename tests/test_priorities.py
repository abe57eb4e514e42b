"""Which files go before others."""

from __future__ import annotations

from pathlib import Path

import pytest

from colordaemon.clock import UnixTime
from colordaemon.config import Config, InboxSettings
from colordaemon.convert.routing import Routing
from colordaemon.service import inboxes
from colordaemon.service.inboxes import Intake
from colordaemon.service.job import Found, State
from colordaemon.service.journal import Journal


def test_a_folder_has_its_own_priority_and_else_that_of_its_inbox() -> None:
    entries = (
        InboxSettings(inbox=Path("/in/home"), outbox=Path("/out/home")),
        InboxSettings(inbox=Path("/in/urgent"), outbox=Path("/out/urgent"), priority=5),
    )
    config = Config(inboxes=entries, priorities={"urgent": 7, "*.mxf": -1})
    found = Routing(config)
    assert found.priority_of(Path("/in/home/a.png")) == 0
    assert found.priority_of(Path("/in/urgent/a.png")) == 5  # folders above the inbox do not count
    assert found.priority_of(Path("/in/home/urgent/a.mxf")) == 7
    assert found.priority_of(Path("/in/urgent/deep/a.mxf")) == -1
    assert found.priority_of(Path("/elsewhere/urgent/a.png")) == 0


def test_what_waits_takes_other_priorities_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inboxes, "BATCH", 2)
    with Journal(tmp_path / "journal") as journal:
        journal.add([Found(Path(f"/in/{number}.png"), 1, 1) for number in range(5)], UnixTime(1.0))
        taker, changed = Intake(journal), []
        taker.prioritize(lambda source: 7)
        while taker.is_busy:
            taker.turn()
            changed.append(sum(job.priority == 7 for job in journal.jobs(State.QUEUED)))
            if len(changed) == 1:
                journal.claim(UnixTime(2.0))  # is at work by now, and no longer concerned
        taker.turn()
    assert changed == [2, 3, 4]


def test_in_the_short_form_folders_have_priorities_too() -> None:
    config = Config(inbox=Path("/in"), outbox=Path("/out"), priorities={"urgent": 7})
    assert Routing(config).priority_of(Path("/in/urgent/a.png")) == 7
    assert Routing(config).priority_of(Path("/in/a.png")) == 0
