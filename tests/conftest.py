"""Miniatures that tests share, and guards around every test.

A test that logs an ERROR on purpose says so: @pytest.mark.logs_errors.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from colordaemon.network.checkpoint import save_model
from colordaemon.network.model import ColorNet, ModelSpec
from colordaemon.network.places import Axes

if TYPE_CHECKING:
    from daemons import Daemon

try:
    from hypothesis import settings
except ImportError:  # as on a bare GPU machine, where only tests that do without it run
    pass
else:
    # No deadline: a machine that is busy with something else is no reason to fail.
    settings.register_profile("colordaemon", deadline=None, max_examples=60)
    settings.load_profile("colordaemon")

LABELS = ("animal", "face", "landscape")
MakeDisk = Callable[[str], Path]
Start = Callable[..., "Daemon"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "logs_errors: this test expects ERROR records")
    # On miniatures, threads cost more than they bring, here and in processes that tests start.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if os.environ.get("COLORDAEMON_REQUIRE_GPU") == "1":
            pytest.fail("COLORDAEMON_REQUIRE_GPU is 1, but there is no CUDA device")
        pytest.skip("no CUDA device")


def own_threads() -> set[threading.Thread]:
    """All threads that Python started. libvips keeps a pool of its own; when one of those warns of
    a damaged photo, Python lists it as a dummy."""
    return {t for t in threading.enumerate() if not isinstance(t, threading._DummyThread)}


@pytest.fixture(autouse=True)
def _no_leaked_threads() -> Iterator[None]:
    before = own_threads()
    yield
    deadline = time.monotonic() + 5  # queues of data loaders end their threads a little later
    while (leaked := own_threads() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not leaked, f"threads left running: {leaked}"


@pytest.fixture(autouse=True)
def _same_chance_for_every_test() -> Iterator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def _no_unexpected_errors_in_the_log(request: pytest.FixtureRequest) -> Iterator[None]:
    errors, root = _Errors(), logging.getLogger()
    before = {*root.handlers}
    root.addHandler(errors)
    yield
    # Commands that ran in this process log to a standard error that is closed by now.
    for handler in {*root.handlers} - before:
        root.removeHandler(handler)
    if not request.node.get_closest_marker("logs_errors"):
        assert not errors.messages


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    """Five stages and two heads as in the real network, with a few channels each."""
    return ModelSpec(
        encoder=((4, 4), (6,), (8,), (8,), (8, 8)),
        decoder=(8, 8, 6, 4),
        short_side=64,
        bins=((-10, -50), (0, 0), (0, 30), (20, 20), (40, -10)),
    )


@pytest.fixture
def tiny_model(tiny_spec: ModelSpec) -> ColorNet:
    """A miniature in evaluation mode that always says the same, by no means gray, colors."""
    generator = torch.Generator().manual_seed(7)
    model = ColorNet(tiny_spec)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = (2 / max(1, parameter[0].numel())) ** 0.5 if parameter.dim() > 1 else 0.1
            parameter.normal_(0.0, spread, generator=generator)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.normal_(0.0, 0.2, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
    model.axes = Axes(tuple((torch.zeros(n), torch.eye(n)) for n in tiny_spec.compared_widths))
    return model.eval()


@pytest.fixture
def model(tmp_path: Path, tiny_model: ColorNet) -> Path:
    """The miniature as a file."""
    path = tmp_path / "tiny.safetensors"
    save_model(path, tiny_model, {})
    return path


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Start]:
    """Makes daemons with settings of their own, and ends them after the test."""
    from daemons import Daemon  # with libraries that a bare GPU machine lacks

    daemons: list[Daemon] = []

    def start(more: str = "", frame_seconds: float = 0.0) -> Daemon:
        daemons.append(Daemon(tmp_path / "place", model, more, frame_seconds))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


@pytest.fixture(scope="session")
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labels of 16 small PNGs in which brightness decides color. Do not change it."""
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(3)
    for label in LABELS:
        (folder / label).mkdir()
        for number in range(16):
            height, width = int(chance.integers(40, 64)), int(chance.integers(40, 64))
            coarse = chance.uniform(10, 90, (4, 4)).astype(np.float32)
            lightness = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
            # Dark is blue, bright is yellow; mid gray stays gray.
            lab = np.dstack((lightness, 0.1 * (lightness - 50), 0.5 * (lightness - 50)))
            bgr = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2BGR)
            pixels = (bgr * 255).round().clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / label / f"{number:02}.png"), pixels)
    return folder


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Mounts small file systems, by their options, for as long as the test runs."""
    disks: list[Path] = []

    def mount(options: str) -> Path:
        if os.geteuid():
            pytest.skip("only root can mount a small disk")
        disk = tmp_path / f"disk{len(disks)}"
        disk.mkdir()
        line = ["mount", "-t", "tmpfs", "-o", options, "colordaemon-test", str(disk)]
        result = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode:
            pytest.skip(f"no small disk can be mounted here: {result.stderr.strip()}")
        disks.append(disk)
        return disk

    yield mount
    for disk in disks:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S603, S607
