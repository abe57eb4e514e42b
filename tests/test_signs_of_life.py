"""Work that takes long says that it goes on, all the way, and by its own progress."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from films import EXACT, Listener, make_film, short_segments

from colordaemon.config import AfterSettings, Config, ModelSettings
from colordaemon.convert.routing import Routing
from colordaemon.errors import Interrupted
from colordaemon.film.colorize import color_film, plan_film
from colordaemon.inbox.safe_open import read_through
from colordaemon.inbox.stability import signature_of
from colordaemon.media.photo_pixels import _BAND_PIXELS
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet
from colordaemon.service import coloring, worker
from colordaemon.service.messages import (
    Failed,
    Fault,
    Finished,
    FromWorker,
    Heartbeat,
    Order,
    Progress,
    Segment,
    Started,
)


def words_of(source: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> list[FromWorker]:
    """All that the worker says about one file if it is never too early to say something."""
    said = last_words_of(source, model, monkeypatch)
    assert isinstance(said[-1], Finished)
    return said


def last_words_of(source: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> list[FromWorker]:
    monkeypatch.setattr(coloring, "ALIVE_SECONDS", 0.0)
    outbox = source.parent / "out"
    outbox.mkdir(exist_ok=True)
    config = Config(
        model=ModelSettings(file=model, device="cpu", precision="fp32"),
        film=EXACT,
        after=AfterSettings(checksum=True),
    )
    ours, theirs = Pipe()
    said: list[FromWorker] = []
    with ours, theirs, ThreadPoolExecutor(1) as executor:
        running = executor.submit(worker.Worker(theirs, Routing(config)).run)
        queued = signature_of(source)
        assert queued is not None
        ours.send(Order(1, source, outbox, ".job", source.parent, outbox, queued))
        while not said or not isinstance(said[-1], Finished | Failed):
            said.append(ours.recv())
        ours.close()
        assert isinstance(running.exception(), EOFError)
    assert isinstance(said[0], Started)
    return said


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_a_large_photo_tells_of_every_stretch_of_it(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    source = tmp_path / f"photo{suffix}"
    ramp = np.tile(np.linspace(0, 255, 2400, dtype=np.uint8), (1800, 1))
    cv2.imwrite(str(source), ramp)
    said = words_of(source, model, monkeypatch)
    bands = ramp.size // _BAND_PIXELS
    # Reading it small and encoding it tell about every percent.
    assert sum(isinstance(word, Heartbeat) for word in said) > bands + 20


def test_a_film_tells_of_its_end_after_the_last_frame(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = words_of(make_film(tmp_path / "film.mp4", 50), model, monkeypatch)
    kinds = [type(word) for word in said]
    assert kinds.count(Progress) == 1 + 50
    behind = kinds[len(kinds) - kinds[::-1].index(Segment) :]
    assert behind.count(Heartbeat) >= 50 + 50 + 1  # each packet joined and verified; the checksum


def test_the_way_to_where_a_film_goes_on_tells_too_and_can_be_stopped(
    tmp_path: Path, tiny_model: ColorNet
) -> None:
    film = make_film(tmp_path / "film.mp4", 200)
    job = plan_film(film, short_segments(EXACT, 2.0))
    colorizer = Colorizer(tiny_model, torch.device("cpu"), torch.float32)

    def run(listener: Listener) -> None:
        color_film(job, tmp_path / "partial", colorizer, listener, work=tmp_path / "work")

    with pytest.raises(Interrupted):
        run(Listener(lambda listener: listener.beats + len(listener.frames) >= 180))
    stopped = Listener(lambda listener: listener.beats >= 10)
    with pytest.raises(Interrupted):
        run(stopped)
    assert (stopped.beats, stopped.frames) == (10, [])
    beats: list[int] = []  # by the first frame that is new

    def note(listener: Listener) -> bool:
        beats.extend([listener.beats] if len(listener.frames) == 1 else [])
        return False

    run(Listener(note))
    assert beats[0] > 10
    again = Listener()
    run(again)  # all segments are there; each is read, and each packet joined and verified
    assert not again.frames and again.beats >= 4 + 200 + 200


def test_what_a_disk_cannot_read_is_no_damage_of_the_film(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(tmp_path / "film.mp4", 10)
    film.write_bytes(film.read_bytes()[:-400])  # as FFmpeg sees a film whose end cannot be read
    said = last_words_of(film, model, monkeypatch)[-1]
    assert isinstance(said, Failed) and said.fault is Fault.MEDIA

    def broken(file: int, length: int, at: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", broken)
    said = last_words_of(film, model, monkeypatch)[-1]
    assert said == Failed(1, Fault.MACHINE, f"Input/output error ({film})")


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.logs_errors
def test_a_file_that_asks_too_much_is_to_blame_where_others_could_be_done(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    def greedy(*_: object, **__: object) -> None:
        if is_full:
            (tmp_path / "out").rmdir()
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(coloring, "prepare", greedy)
    (tmp_path / "photo.png").write_bytes(b"1")
    monkeypatch.setattr(worker.Worker, "run", suppressing_exits(worker.Worker.run))
    said = last_words_of(tmp_path / "photo.png", model, monkeypatch)[-1]
    assert isinstance(said, Failed)
    assert said.fault is (Fault.MACHINE if is_full else Fault.FILE)


def suppressing_exits(run: Callable[[Any], None]) -> Callable[[Any], None]:
    """A worker that leaves, as after CUDA errors, has its connection closed with it."""

    def wrapped(self: Any) -> None:
        try:
            run(self)
        except SystemExit:
            raise EOFError from None

    return wrapped


def test_holes_of_a_file_are_not_read(tmp_path: Path) -> None:
    path, stretches = tmp_path / "film.mp4", list[int]()
    with path.open("wb") as file:
        file.write(b"1")
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"1")
    read_through(path, lambda: stretches.append(1))
    assert 2 <= len(stretches) < 10
