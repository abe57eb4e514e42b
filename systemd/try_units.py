"""Boot a real systemd on a copy of this machine, install the services there, color one photo and
look at the page.

    sudo .venv/bin/python systemd/try_units.py

It needs root, systemd-nspawn (Debian: systemd-container) and overlayfs, and changes nothing of the
machine. Ends with 0 if the result is in the outbox, the source in the archive, and both on the
page, 1 if not, and 77 where there is no such container to be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

SECONDS = 240  # for all of it; most is loading the model
NOT_HERE = 77
CONFIG = """\
inbox: /srv/colordaemon/in
outbox: /srv/colordaemon/out
state_dir: /var/lib/colordaemon
model: {device: cpu, quality: draft}
jobs: {free_mib: 0}
watch: {settle_seconds: 1}
after: {source: move, archive: /srv/colordaemon/old}
"""
PROBE = """\
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=-/bin/bash -c 'bash /probe/run.sh > /probe/said 2>&1'
ExecStart=/bin/systemctl --no-block poweroff
TimeoutStartSec=infinity
"""
RUN = """\
systemd-sysusers && systemd-tmpfiles --create /etc/tmpfiles.d/colordaemon.conf
systemctl daemon-reload
systemctl start colordaemon || journalctl -u colordaemon --no-pager -o cat
cp /probe/photo.png /srv/colordaemon/in/
for second in $(seq 100); do
    [ -e /srv/colordaemon/old/photo.png ] && break
    sleep 1
done
systemctl start colordaemon-web || journalctl -u colordaemon-web --no-pager -o cat
for second in $(seq 60); do
    journalctl -u colordaemon-web --no-pager | grep -q "page is at" && break
    sleep 1
done
@python@ /probe/ask.py GET status.json job/1 picture/1/0/after
@python@ /probe/ask.py POST do/pause
journalctl -u colordaemon -u colordaemon-gpu -u colordaemon-web --no-pager -o cat
systemctl show colordaemon -p ActiveState -p NRestarts
find /srv/colordaemon -type f -printf 'found %p %m\\n'
systemctl stop colordaemon
@python@ /probe/ask.py GET status.json
"""
ASK = """\
import http.client, sys
token = open("/var/lib/colordaemon/web.token").read().strip()
headers = {"Authorization": f"Bearer {token}", "Sec-Fetch-Site": "none"}
for address in sys.argv[2:]:
    page = http.client.HTTPConnection("127.0.0.1", 8765, timeout=30)
    page.request(sys.argv[1], f"/{address}", headers=headers)
    answer = page.getresponse()
    body = answer.read().decode() if address.endswith("json") else ""
    print(f"page: {address} {answer.status} {body}")
"""


def main() -> int:
    if os.geteuid() or not shutil.which("systemd-nspawn"):
        print("no container: this needs root and systemd-nspawn")
        return NOT_HERE
    with tempfile.TemporaryDirectory() as folder, _overlay(Path(folder)) as root:
        if root is None:
            print("no container: an overlay of / cannot be mounted")
            return NOT_HERE
        probe = Path(folder, "probe")
        said = _boot(root, probe)
    print(said)
    if not said:
        return NOT_HERE
    wanted = (
        "found /srv/colordaemon/out/photo.color.png",
        "found /srv/colordaemon/old/photo.png",
        "page: status.json 200",
        "page: picture/1/0/after 200",
        "page: do/pause 303",
        '"state":"down"',
        "ActiveState=active",
        "NRestarts=0",
    )
    return 0 if all(line in said for line in wanted) else 1


def _boot(root: Path, probe: Path) -> str:
    """What the container says of the service; empty if it does not start."""
    probe.mkdir(mode=0o755)
    photo = np.tile(np.linspace(0, 255, 96, dtype=np.uint8), (64, 1))
    cv2.imwrite(str(probe / "photo.png"), photo)
    (probe / "run.sh").write_text(RUN.replace("@python@", sys.executable))
    (probe / "ask.py").write_text(ASK)
    config = root / "etc/colordaemon/config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(CONFIG)
    line = [sys.executable, "-m", "colordaemon", "install-service"]
    subprocess.run([*line, "--config", str(config), "--root", str(root)], check=True)  # noqa: S603
    units = root / "etc/systemd/system"
    services = [units / "colordaemon.service", units / "colordaemon-web.service"]
    for service in services:
        service.write_text(service.read_text().replace(str(config), "/etc/colordaemon/config.yaml"))
    for folder in Path(sys.executable).resolve().parents[:-1]:
        (root / folder.relative_to("/")).chmod(0o755)  # for the service's user, as in /opt
    if path := os.environ.get("PYTHONPATH"):
        for service in services:
            drop_in = service.with_name(f"{service.name}.d") / "path.conf"
            drop_in.parent.mkdir()
            drop_in.write_text(f"[Service]\nEnvironment=PYTHONPATH={path}\n")
    (units / "probe.service").write_text(PROBE)
    container = [
        *("systemd-nspawn", "--quiet", "-D", str(root), "--private-network", "--register=no"),
        *("--keep-unit", f"--bind={probe}:/probe", "-b", "systemd.unit=probe.service"),
    ]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(container, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603
    said = probe / "said"
    return said.read_text(errors="replace") if said.exists() else ""


@contextmanager
def _overlay(folder: Path) -> Iterator[Path | None]:
    """This machine's files, where changes are kept in memory; None where that cannot be."""
    top = folder / "layers"
    top.mkdir()
    if not _mounted("tmpfs", "size=1g", top):
        yield None
        return
    try:
        upper, work, root = (top / name for name in ("upper", "work", "root"))
        for layer in (upper, work, root):
            layer.mkdir(mode=0o755)
        options = f"lowerdir=/,upperdir={upper},workdir={work}"
        is_there = _mounted("overlay", options, root)
        yield root if is_there else None
        if is_there:
            subprocess.run(["umount", "-l", str(root)], check=False)  # noqa: S603, S607
    finally:
        subprocess.run(["umount", "-l", str(top)], check=False)  # noqa: S603, S607


def _mounted(kind: str, options: str, point: Path) -> bool:
    line = ["mount", "-t", kind, "-o", options, "colordaemon-try", str(point)]
    return not subprocess.run(line, capture_output=True, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
