"""How the page says things: sizes, durations, times, names of files, and what to do about a
failure."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import PurePath

from colordaemon.logs import counted, printable
from colordaemon.service.job import Reason

# What an operator can do about a job that was given up, by its code.
ADVICE: dict[Reason, str] = {
    Reason.COLOR: "It has color already, so nothing was done. To color it all the same, "
    "use `colordaemon once --force` on the file.",
    Reason.MEDIA: "The file itself cannot be colored. Play it elsewhere; if it is damaged, copy it "
    "again from its source. A new copy in the inbox is taken by itself.",
    Reason.EMPTY: "The file has no content. Copy it again.",
    Reason.CRASH: "Decoding or coloring it ended the worker twice. Play the file elsewhere; if it "
    "is sound, please report it with this reason. Retry after an update.",
    Reason.UNFORESEEN: "Something that colordaemon does not know about. Retry once; if it fails "
    "again, the log has the details: journalctl -u colordaemon.",
    Reason.UNFINISHED: "The daemon ended again and again while it worked on this file, for lack of "
    "memory for instance. See the log, lower jobs.memory_mib or quality, then retry.",
    Reason.MACHINE: "The machine was at fault, not the file: a disk, a share or the GPU. See that "
    "it works, then retry.",
    Reason.PUBLISH: "The result was made but could not get its name. See that the outbox can be "
    "written to, then retry.",
    Reason.GONE: "The file was removed before its turn. If it comes back, it is taken by itself.",
    Reason.CHANGED: "The file was replaced by a newer version, which has a job of its own.",
    Reason.ASKED: "Somebody cancelled it. Retry, if it is wanted after all.",
}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def advice(code: str) -> str:
    """What to do about a job that was given up; empty if nothing is."""
    return ADVICE.get(Reason(code), "")


def size_of(count: float | None) -> str:
    """As in "1.4 GiB"."""
    if count is None:
        return "unknown"
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if count >= 100 or unit == "bytes" else f"{count:.1f} {unit}"


def duration_of(seconds: float) -> str:
    """As in "about 3 h 20 min"; two units at most, since nobody knows better."""
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if minutes < 1:
        return "under a minute"
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return counted(days, "day") + (f" {hours % 24} h" if days < 10 and hours % 24 else "")


def moment(seconds: float) -> str:
    """A time of this machine's clock, as in "2026-11-28 18:05"."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def iso(seconds: float) -> str:
    """The same for programs, with its zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def name_of(path: str | PurePath) -> str:
    """The last part of a path, for people."""
    return printable(PurePath(path).name)


def shown(path: str | PurePath) -> str:
    """A path for people, whatever it holds."""
    return printable(os.fspath(path))
