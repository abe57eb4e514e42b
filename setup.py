"""Adds the manual page, which is made of the commands themselves, to what pyproject.toml says."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))  # a builder need not look for modules here

from colordaemon.cli.manual import page

manual = Path("build", "man", "colordaemon.1")
manual.parent.mkdir(parents=True, exist_ok=True)
manual.write_text(page(), encoding="utf-8")
setup(data_files=[("share/man/man1", [str(manual)])])
