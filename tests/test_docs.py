"""The documentation: its links lead somewhere, and the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PAGES = sorted((*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"), *PROJECT.glob("*/*.md")))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(line.lstrip("# ")) for line in page.read_text().split("\n") if line[:1] == "#"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (heading and heading not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_test_that_a_page_names_exists() -> None:
    tests = {
        name
        for path in (PROJECT / "tests").glob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) > 30
    assert not named - tests


def test_every_message_that_troubleshooting_quotes_is_one_of_the_program() -> None:
    page = (PROJECT / "docs" / "troubleshooting.md").read_text()
    table = page[page.index("## What you see") : page.index("Messages in the first column")]
    quoted = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    code = "\n".join(path.read_text() for path in (PROJECT / "colordaemon").rglob("*.py"))
    assert len(quoted) >= 7
    assert not [message for message in quoted if message not in code]
