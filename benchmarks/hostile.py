"""A hostile hour: a second user attacks inbox, outbox and socket; disks, clock and kills play up.

    sudo .venv/bin/python benchmarks/hostile.py [--seconds 3600] [--seed 1]

A real daemon with a miniature network colors small photos that an honest user drops. Meanwhile the
hostile user, who may write to the inbox, the outbox and the control socket, swaps folders for
links, plants links, FIFOs, odd names, dates, bombs and half copies, locks folders, and sends
garbage; the disks of journal and outbox fill and empty, the daemon's wall clock jumps, and daemon
and worker are killed. Then all that calms down and the honest files are counted. Ends with 0 if
each of them was done once, nothing outside the inbox was read or removed, and the daemon ended only
when it was killed.

It needs root, for the second user and for small disks in memory.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch

from colordaemon.bench.machine import describe_machine
from colordaemon.network.checkpoint import save_model
from colordaemon.network.model import ColorNet, ModelSpec

HOSTILE, GROUP = 65534, 65533  # the group is that of everybody who may drop files
DISK_MIB, SECRET_SIDE, HONEST_SIZE = 48, 47, (40, 56)
CLOCK_SHIFTS = ("0", "-172800", "259200", "-3600", "34560000", "90")  # seconds
HONEST_SECONDS, CALM_SECONDS = 1.0, 300.0
SHIFTED_CLOCK = Path(__file__).with_name("shifted_clock.py")
CONFIG = """\
inbox: in
outbox: out
state_dir: state
model: {file: model.safetensors, device: cpu, precision: fp32, quality: draft}
watch: {settle_seconds: 1, empty_seconds: 5, scan_seconds: 5, poll_seconds: 2}
jobs: {free_mib: 4, retry_seconds: 2, hang_seconds: 60}
after: {source: delete}
"""


@dataclass
class Place:
    """The folders of one run, below a folder of its own."""

    root: Path
    honest: list[str] = field(default_factory=list)  # names of what was dropped

    @property
    def inbox(self) -> Path:
        return self.root / "in"

    @property
    def outbox(self) -> Path:
        return self.root / "out"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def secret(self) -> Path:
        """What only root may read."""
        return self.root / "secret"


# The attack: one function for each trick; all of them may fail.


def swap_a_folder(place: Place, chance: random.Random) -> None:
    """A folder with a decoy, then a link to the secret in its place, and back."""
    name = place.inbox / f"swap{chance.randrange(4)}"
    if name.is_symlink():
        name.unlink()
        return
    if name.is_dir():
        name.rename(place.inbox / f".away{chance.random()}")
        name.symlink_to(place.secret)
        return
    name.mkdir()
    for secret in ("photo0.png", "photo1.png"):
        decoy = name / secret
        decoy.write_bytes(png(SECRET_SIDE, SECRET_SIDE, 60))


def link_to_the_secret(place: Place, chance: random.Random) -> None:
    folder = chance.choice((place.inbox, place.outbox))
    names = (
        "link.png",
        "photo0.color.png",
        "failed",
        ".colordaemon-0-1.partial",
        "swap0.color.png",
    )
    (folder / chance.choice(names)).symlink_to(
        place.secret / chance.choice(("", "photo0.png", "nowhere"))
    )


def link_where_work_will_be(place: Place, chance: random.Random) -> None:
    """Names of partial files and work folders of the next jobs, by those that stand there."""
    for path in place.outbox.glob(".colordaemon-*"):
        token, number = path.name.split("-")[1], chance.randrange(2000)
        suffix = chance.choice(("partial", "work"))
        link = place.outbox / f".colordaemon-{token}-{number}.{suffix}"
        link.symlink_to(place.secret / chance.choice(("photo0.png", "", "made")))


def plant_a_fifo(place: Place, chance: random.Random) -> None:
    os.mkfifo(place.inbox / f"fifo{chance.randrange(9)}.png")


def turn_a_file_into_a_fifo(place: Place, chance: random.Random) -> None:
    path = place.inbox / f"turned{chance.randrange(3)}.png"
    path.unlink(missing_ok=True)
    path.write_bytes(png(20, 20, 90))
    time.sleep(chance.uniform(0.5, 2.0))
    path.unlink()
    os.mkfifo(path)


def odd_names(place: Place, chance: random.Random) -> None:
    names = (
        b"caf\xe9.png", b"a\nb.png", b"\x1b[31m.png", b"n" * 251 + b".png", b" .png", b"-rf.png",
        b"%s%n.png", b"$(reboot).png", "ﷺ".encode() * 80 + b".png", b"x.color.png",
    )  # fmt: skip
    with open(os.path.join(os.fsencode(place.inbox), chance.choice(names)), "wb") as file:  # noqa: PTH118, PTH123
        file.write(png(16, 16, 100) if chance.random() < 0.5 else b"garbage")


def odd_dates(place: Place, chance: random.Random) -> None:
    path = place.inbox / f"date{chance.randrange(9)}.png"
    path.write_bytes(png(16, 16, 100))
    seconds = chance.choice((13_569_465_600, -2_208_988_800, 2**33, 0))
    os.utime(path, (seconds, seconds))


def bombs(place: Place, chance: random.Random) -> None:
    width, height = chance.choice(((30_000, 30_000), (1, 16_000_000), (2**31 - 1, 2**31 - 1)))
    (place.inbox / f"bomb{chance.randrange(9)}.png").write_bytes(png(width, height, 0, rows=8))


def half_copies(place: Place, chance: random.Random) -> None:
    whole = png(300, 300, 120)
    path = place.inbox / f"half{chance.randrange(9)}.png"
    path.write_bytes(whole[: chance.randrange(len(whole))])


def closed_files(place: Place, chance: random.Random) -> None:
    folder = place.inbox / f"closed{chance.randrange(5)}"
    folder.mkdir(exist_ok=True)
    (folder / "photo.png").write_bytes(png(16, 16, 100))
    chance.choice((folder, folder / "photo.png")).chmod(0)


def deep_folders(place: Place, chance: random.Random) -> None:
    here = os.open(place.inbox, os.O_RDONLY)
    for _ in range(chance.choice((50, 400, 1200))):
        with suppress(FileExistsError):
            os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def lock_folders(place: Place, chance: random.Random) -> None:
    handle = os.open(chance.choice((place.inbox, place.outbox)), os.O_RDONLY)
    try:
        flock(handle, LOCK_EX | LOCK_NB)
        time.sleep(chance.uniform(0.5, 3.0))
    finally:
        os.close(handle)


def garbage_for_the_socket(place: Place, chance: random.Random) -> None:
    lines = (
        b'{"verb":"cancel","jobs":5}\n', b'{"verb":"cancel","jobs":null}\n', b"null\n", b"{}\n",
        b'{"verb":"retry","jobs":[[[]]]}\n', b"\xff\xfe\n", b'{"verb":{}}\n', b"[" * 90_000,
        b'{"verb":"status"}\n', b"x" * (1 << 21),
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(2.0)
        caller.connect(os.fspath(place.state / "control.sock"))
        caller.sendall(chance.choice(lines))
        if chance.random() < 0.5:
            time.sleep(1.0)  # and never reads


def flood_the_socket(place: Place, chance: random.Random) -> None:
    """Twice as many callers as are heard at once; some say half of something."""
    callers = [socket.socket(socket.AF_UNIX) for _ in range(64)]
    try:
        for caller in callers:
            caller.setblocking(False)
            with suppress(OSError):
                caller.connect(os.fspath(place.state / "control.sock"))
                caller.send(chance.choice((b"", b'{"verb":', b'{"verb":"queue"}\n')))
        time.sleep(chance.uniform(0.0, 1.0))
    finally:
        for caller in callers:
            caller.close()


def tangled_exif(place: Place, chance: random.Random) -> None:
    """Directories that lead to each other, by many ways."""
    count = chance.choice((1, 60, 4000))
    pointers = struct.pack("<HHII", 34665, 4, 1, 8) * count
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + pointers + struct.pack("<I", 8)
    segment = b"Exif\0\0" + block
    plain = cv2.imencode(".jpg", np.full((20, 20), 90, np.uint8))[1].tobytes()
    head = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2)
    (place.inbox / f"exif{chance.randrange(3)}.jpg").write_bytes(head + segment + plain[2:])


def foreign_results(place: Place, chance: random.Random) -> None:
    """Files under names that results will want, in folders of his own."""
    folder = place.outbox / f"swap{chance.randrange(4)}"
    folder.mkdir(exist_ok=True)
    (folder / "photo0.color.png").write_bytes(b"mine")


TRICKS: tuple[Callable[[Place, random.Random], None], ...] = (
    swap_a_folder, swap_a_folder, swap_a_folder, link_to_the_secret, link_where_work_will_be,
    plant_a_fifo, turn_a_file_into_a_fifo, odd_names, odd_dates, bombs, half_copies, closed_files,
    deep_folders, lock_folders, garbage_for_the_socket, garbage_for_the_socket, foreign_results,
    flood_the_socket, tangled_exif,
)  # fmt: skip


def attack(place: Place, seed: int, said: TextIO) -> None:
    """Become the hostile user, and try one trick after the other until killed.

    A fork, because the hostile user may not be allowed to start this Python.
    """
    os.setgroups([])
    os.setgid(GROUP)
    os.setuid(HOSTILE)
    chance, done = random.Random(seed), Counter[str]()  # noqa: S311
    os.umask(0o002)
    while True:
        trick = chance.choice(TRICKS)
        with suppress(OSError):
            trick(place, chance)
        done[trick.__name__] += 1
        print(*(f"{name}={count}" for name, count in done.items()), file=said, flush=True)
        time.sleep(chance.uniform(0.02, 0.4))
        if sum(done.values()) % 40 == 0:
            tidy(place)


def tidy(place: Place) -> None:
    """His own inodes are not the attack."""
    for path in (*place.inbox.iterdir(), *place.outbox.iterdir()):
        with suppress(OSError):
            found = path.lstat()
            if found.st_uid == HOSTILE and stat.S_ISDIR(found.st_mode):
                remove_tree(path)
            elif found.st_uid == HOSTILE and found.st_mtime < time.time() - 20:
                path.unlink()


def remove_tree(folder: Path) -> None:
    """Python would call itself for each of a thousand levels."""
    line = ["rm", "-rf", str(folder)]  # fails in folders that he has closed himself
    subprocess.run(line, check=False, stderr=subprocess.DEVNULL)  # noqa: S603


# The rest of the hour


class Daemon:
    """Starts the daemon and starts it again after each kill."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        self.kills, self.ends = 0, Counter[int]()
        self.most_mib, self.most_descriptors = 0, 0
        self.clock = place.root / "clock"
        self.clock.write_text("0")

    def see_to_it(self) -> None:
        """Start it if it is not there; counts an end that nobody wanted."""
        if self._process is not None and self._process.poll() is None:
            self._measure(self._process.pid)
            return
        if self._process is not None and self._process.returncode != -signal.SIGKILL:
            self.ends[self._process.returncode] += 1
        config = str(self._place.root / "config.yaml")
        line = [sys.executable, str(SHIFTED_CLOCK), str(self.clock), "watch", "--config", config]
        with (self._place.root / "log").open("ab") as log:
            self._process = subprocess.Popen(line, stderr=log, stdout=log)  # noqa: S603

    def _measure(self, pid: int) -> None:
        """Memory at its highest, and open files of this moment."""
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{pid}/status").read_text()
            peak = int(status.partition("VmHWM:")[2].split()[0]) >> 10
            self.most_mib = max(self.most_mib, peak)
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  (never a Path more)
            self.most_descriptors = max(self.most_descriptors, descriptors)

    def kill(self, chance: random.Random) -> None:
        """The daemon, or its worker."""
        assert self._process is not None
        if chance.random() < 0.5:
            self._process.kill()
            self._process.wait()
            self.kills += 1
            return
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with suppress(OSError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
                self.kills += 1

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(90)
        if self._process.returncode != 0:
            self.ends[self._process.returncode or -1] += 1
            self._process.kill()


def drop(place: Place, number: int) -> None:
    """An honest photo, whole at once; its gray is its number."""
    name = f"honest{number:05}"
    pixels = np.full(HONEST_SIZE, 40, np.uint8)
    pixels[:, : HONEST_SIZE[1] // 2] = 40 + number % 200
    partial = place.root / "staged.png"
    cv2.imwrite(str(partial), pixels)
    shutil.copyfile(partial, place.inbox / "honest" / f".{name}.png")
    (place.inbox / "honest" / f".{name}.png").rename(place.inbox / "honest" / f"{name}.png")
    place.honest.append(name)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    filler = folder / ".filler"
    try:
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
        yield
    finally:
        filler.unlink(missing_ok=True)


def trouble(place: Place, daemon: Daemon, chance: random.Random) -> str:
    """One of the machine's own troubles; says which."""
    kind = chance.choice(("kill", "kill", "outbox full", "state full", "clock", "both full"))
    if kind == "kill":
        daemon.kill(chance)
    elif kind == "clock":
        daemon.clock.write_text(chance.choice(CLOCK_SHIFTS))
    elif kind == "both full":
        with full_disk(place.outbox), full_disk(place.state):
            time.sleep(chance.uniform(1, 6))
    else:
        with full_disk(place.outbox if kind == "outbox full" else place.state):
            time.sleep(chance.uniform(1, 6))
    return kind


def hour(place: Place, seconds: float, seed: int) -> bool:
    chance, troubles, daemon = random.Random(seed), Counter[str](), Daemon(place)  # noqa: S311
    before = {path.name: path.read_bytes() for path in place.secret.iterdir()}
    daemon.see_to_it()
    with (place.root / "tricks").open("w") as said:
        hostile = get_context("fork").Process(target=attack, args=(place, seed, said), daemon=True)
        hostile.start()
    began = time.monotonic()
    number, next_trouble = 0, 20.0
    while (passed := time.monotonic() - began) < seconds:
        daemon.see_to_it()
        if passed >= number * HONEST_SECONDS:
            with suppress(OSError):
                drop(place, number)
            number += 1
        if passed >= next_trouble:
            troubles[trouble(place, daemon, chance)] += 1
            next_trouble = passed + chance.uniform(5, 20)
        time.sleep(0.05)
    hostile.kill()
    hostile.join()
    daemon.clock.write_text("0")
    calm(place, daemon)
    daemon.stop()
    print("tricks:", (place.root / "tricks").read_text().splitlines()[-1])
    print("troubles:", dict(troubles), "kills:", daemon.kills)
    return verdict(place, daemon, before)


def calm(place: Place, daemon: Daemon) -> None:
    """Wait until the last honest file is done."""
    until = time.monotonic() + CALM_SECONDS
    while time.monotonic() < until and len(results(place)) < len(place.honest):
        daemon.see_to_it()
        time.sleep(0.5)


def results(place: Place) -> list[str]:
    return [path.name for path in (place.outbox / "honest").glob("honest*.png")]


def verdict(place: Place, daemon: Daemon, before: dict[str, bytes]) -> bool:
    found = Counter(name.split(".")[0].split(" ")[0] for name in results(place))
    lost = [name for name in place.honest if not found[name]]
    twice = [name for name, count in found.items() if count > 1]
    after = {path.name: path.read_bytes() for path in place.secret.iterdir()}
    stolen = [path for path in place.outbox.rglob("*.png") if shows_the_secret(path)]
    print(f"honest files: {len(place.honest)}, lost: {len(lost)} {lost[:5]}, twice: {len(twice)}")
    print(
        f"secret files changed, added or removed: {after != before}; "
        f"shown in the outbox: {stolen[:5]}"
    )
    print(f"ends of the daemon that nobody wanted, by status: {dict(daemon.ends)}")
    print(
        f"daemon at the most: {daemon.most_mib} MiB, {daemon.most_descriptors} descriptors; "
        f"log: {(place.root / 'log').stat().st_size >> 10} KiB"
    )
    log = (place.root / "log").read_text(errors="replace")
    print(f"tracebacks in the log: {log.count('Traceback')}", *tracebacks(log), sep="\n")
    return not (lost or twice or stolen or daemon.ends or after != before)


def tracebacks(log: str) -> Iterator[str]:
    """The end of each."""
    for part in log.split("Traceback")[1:]:
        error = next((line for line in part.splitlines()[1:] if line[:1].strip()), "")
        yield f"    {error}"


def shows_the_secret(path: Path) -> bool:
    """Whether a result was made of a secret picture, by its brightness; the decoys are dark."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    data = np.frombuffer(path.read_bytes(), np.uint8)  # imread dies of names that are no UTF-8
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    return (
        pixels is not None
        and pixels.shape[:2] == (SECRET_SIDE, SECRET_SIDE)
        and pixels.mean() > 150
    )


def png(width: int, height: int, value: int, rows: int | None = None) -> bytes:
    """A gray PNG by hand, which may claim more rows than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + bytes([value]) * min(width, 1 << 20)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(row * (rows or height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def furnish(place: Place) -> None:
    """Folders with their owners, a miniature network, the secret."""
    place.root.chmod(0o755)
    (place.root / "config.yaml").write_text(CONFIG)
    torch.manual_seed(0)
    widths = ((4, 4), (6,), (8,), (8,), (8, 8))
    spec = ModelSpec(encoder=widths, decoder=(8, 8, 6, 4), short_side=64)
    save_model(place.root / "model.safetensors", ColorNet(spec).eval(), {})
    for folder in (place.inbox, place.outbox, place.state):
        os.chown(folder, 0, GROUP)
    place.inbox.chmod(0o2775)
    place.outbox.chmod(0o2775)
    place.state.chmod(0o750)
    for folder in (place.inbox / "honest", place.outbox / "honest"):
        folder.mkdir(mode=0o755)
    place.secret.mkdir(mode=0o700)
    for number in range(2):
        pixels = png(SECRET_SIDE, SECRET_SIDE, 230)
        (place.secret / f"photo{number}.png").write_bytes(pixels)


@contextmanager
def small_disks(place: Place) -> Iterator[None]:
    mounted = []
    try:
        for folder in (place.outbox, place.state):
            folder.mkdir()
            line = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "colordaemon-hostile"]
            subprocess.run([*line, str(folder)], check=True)  # noqa: S603
            mounted.append(folder)
        place.inbox.mkdir()
        yield
    finally:
        for folder in mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)  # noqa: S603, S607


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if os.geteuid():
        parser.error("needs root, for a second user and for disks that fill")
    print(describe_machine())
    folder = Path(tempfile.mkdtemp(prefix="colordaemon-hostile-"))
    place = Place(folder)
    with small_disks(place):
        furnish(place)
        good = hour(place, asked.seconds, asked.seed)
    if good:
        remove_tree(folder)
    else:
        print(f"log: {folder / 'log'}")
    return not good


if __name__ == "__main__":
    sys.exit(main())
