"""The page with a journal behind it, and what stands for the daemon."""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from colordaemon.clock import Clock
from colordaemon.inbox.folders import Folders
from colordaemon.service.control import Commands, Control
from colordaemon.service.job import Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.status import DaemonStatus, Reply
from colordaemon.web.app import Page, make_app
from colordaemon.web.guard import COOKIE, Keys, hosts_of

TOKEN = "a-token-that-is-long-enough-for-a-test"  # noqa: S105
LISTEN = "127.0.0.1:8765"
HERE = {"Sec-Fetch-Site": "same-origin"}
HTML = {"Accept": "text/html"}

CLUSTER = {
    "address": "store:6379",
    "waiting": "for a GPU node",
    "nodes": [
        {
            "name": "gpu1 (10.0.0.2)", "gpus": 2.0, "cpus": 16.0, "refused": "",
            "workers": [
                {"is_ready": True, "film": "/in/reel.mkv", "segment": 3, "seconds": 29.8,
                 "photo": None},
                {"is_ready": True, "film": "/in/reel.mkv", "segment": 9, "seconds": 90.2,
                 "photo": None},
                {"is_ready": True, "film": None, "segment": None, "seconds": None,
                 "photo": "/in/portrait.jpg"},
                {"is_ready": False, "film": None, "segment": None, "seconds": None,
                 "photo": None},
            ],
        },
        {
            "name": "gpu2 (10.0.0.3)", "gpus": 1.0, "cpus": 8.0,
            "refused": "found torch 1, expected 2", "workers": [],
        },
    ],
}  # fmt: skip


class House:
    """The folders of a daemon, with the page of them."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root / "in", root / "out", root / "state")
        for folder in (self.folders.inbox, self.folders.outbox, self.folders.state):
            folder.mkdir(parents=True)
        self.keys = Keys(TOKEN)
        self.is_over = False

    def page(self) -> Page:
        return Page((self.folders,), self.keys, lambda: self.is_over)

    def client(self, *, known: bool = True, hosts: Sequence[str] = ()) -> TestClient:
        """A browser. known: whether it has the cookie."""
        app = make_app(self.page(), self.keys, hosts_of(LISTEN, hosts))
        client = TestClient(app, base_url=f"http://{LISTEN}", follow_redirects=False)
        if known:
            client.cookies.set(COOKIE, self.keys.cookie)
        return client

    def journal(self) -> Journal:
        return Journal(self.folders.journal)

    def fill(self, state: State, count: int = 1, **more: Any) -> list[Path]:
        """Add jobs to the journal; returns their sources. more: columns, the source's {} is a
        number."""
        pattern = os.fspath(more.pop("source", self.folders.inbox / f"{state} {{}}.png"))
        sources = [Path(pattern.format(number)) for number in range(count)]
        with self.journal() as journal:
            db = journal._db
            (last,) = db.execute("SELECT ifnull(max(changed), 0) FROM jobs").fetchone()
            names = ("source", "size", "mtime_ns", "rank", "priority", "state", "changed", *more)
            query = f"INSERT INTO jobs ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
            db.execute("BEGIN")
            db.executemany(
                query,
                [
                    (os.fsencode(source), 1000, 5, 0, 0, state, last + 1 + n, *more.values())
                    for n, source in enumerate(sources)
                ],
            )
            db.execute("COMMIT")
        return sources

    def fail(self, count: int = 1, code: Reason = Reason.MEDIA, **more: Any) -> list[Path]:
        return self.fill(State.FAILED, count, code=code, reason="no film", **more)

    @contextmanager
    def daemon(self, **more: Any) -> Iterator[list[Reply]]:
        """A loop like the daemon's, which carries out commands; yields the requests so far. more:
        of its part of the status."""
        asked, ended, ready = list[Reply](), threading.Event(), threading.Event()

        def loop() -> None:
            selector = selectors.DefaultSelector()
            with self.journal() as journal:
                commands = Commands(journal, Clock().time)

                def answer(request: Reply) -> Reply:
                    asked.append(request)
                    reply = commands.run(request)
                    if request["verb"] == "status":
                        said = DaemonStatus("a GPU", 0, 0, (), None).as_json([], [])
                        reply["daemon"] = {"ready": True} | said | more
                    return reply

                control = Control(self.folders.control, selector, answer)
                ready.set()
                while not ended.is_set():
                    for key, _ in selector.select(0.02):
                        key.data()
                control.close()
            selector.close()

        thread = threading.Thread(target=loop)
        thread.start()
        assert ready.wait(30)
        try:
            yield asked
        finally:
            ended.set()
            thread.join()
