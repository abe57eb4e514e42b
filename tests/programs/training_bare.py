"""colordaemon where no library for films and photos is installed."""

from __future__ import annotations

import sys

for name in ("av", "pyvips"):
    sys.modules[name] = None  # type: ignore[assignment]  # who imports it fails

from colordaemon.cli import main  # noqa: E402  (only now)

main()
