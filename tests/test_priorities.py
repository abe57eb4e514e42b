"""Which files go before others."""

from __future__ import annotations

from pathlib import Path

from colordaemon.config import Config, InboxSettings
from colordaemon.service.priorities import Priorities


def test_a_folder_has_its_own_priority_and_else_that_of_its_inbox() -> None:
    entries = (
        InboxSettings(inbox=Path("/in/home"), outbox=Path("/out/home")),
        InboxSettings(inbox=Path("/in/urgent"), outbox=Path("/out/urgent"), priority=5),
    )
    config = Config(inboxes=entries, priorities={"urgent": 7, "*.mxf": -1})
    found = Priorities(config)
    assert found.of(Path("/in/home/a.png")) == 0
    assert found.of(Path("/in/urgent/a.png")) == 5  # folders above the inbox do not count
    assert found.of(Path("/in/home/urgent/a.mxf")) == 7
    assert found.of(Path("/in/urgent/deep/a.mxf")) == -1
    assert found.of(Path("/elsewhere/urgent/a.png")) == 0


def test_in_the_short_form_folders_have_priorities_too() -> None:
    config = Config(inbox=Path("/in"), outbox=Path("/out"), priorities={"urgent": 7})
    assert Priorities(config).of(Path("/in/urgent/a.png")) == 7
    assert Priorities(config).of(Path("/in/a.png")) == 0
