"""Where pictures come from, as a table beside them tells."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from pictures import colorful, fill, write

from colordaemon.errors import DataError
from colordaemon.evaluation.pictures import choose_pictures
from colordaemon.pictures import dataset
from colordaemon.pictures.collection import Collection, collect
from colordaemon.pictures.dataset import read_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures of two labels; of each label the first six are of one source."""
    fill(tmp_path, "animal", 10)
    fill(tmp_path, "face", 10, first_seed=10)
    rows = [
        f"{label}/{number:02}.png,{'zoo' if number < 6 else 'street'}"
        for label in ("animal", "face")
        for number in range(10)
    ]
    (tmp_path / "sources.csv").write_text("\n".join(["file,source", *rows]) + "\n")
    return tmp_path


def gather(folder: Path, **options: Any) -> Collection:
    return collect(folder, held_out=0.3, side=64, **options)


def test_without_a_table_nothing_is_known(tmp_path: Path) -> None:
    assert read_sources(tmp_path) == {}


def test_a_table_may_be_compressed_and_have_other_columns(tmp_path: Path) -> None:
    text = "\ufeffterms,source,file\r\nfree,zoo,animal/1.png\r\nfree,,animal/2.png\r\n"
    (tmp_path / "sources.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert read_sources(tmp_path) == {"animal/1.png": "zoo", "animal/2.png": ""}


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("sources.csv", b"name,source\na,b\n", "found name, source"),
        ("sources.csv", b"", "found nothing"),
        ("sources.csv", b"file,source\n\xff,b\n", "invalid start byte"),
        ("sources.csv.gz", b"file,source\n", "Not a gzipped file"),
        ("sources.csv", b'file,source\n"a,b\nc,d\n', "unexpected end of data"),
        ("sources.csv.gz", gzip.compress(b"file,source\n", mtime=0)[:-9], "ended before"),
    ],
)
def test_a_table_that_is_none_is_named(
    tmp_path: Path, name: str, content: bytes, found: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*expected .*file and source.*{found}"):
        read_sources(tmp_path)


def test_a_table_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_MOST_TABLE_BYTES", 1 << 20)
    (tmp_path / "sources.csv.gz").write_bytes(gzip.compress(b"file,source\n" + bytes(1 << 20)))
    with pytest.raises(DataError, match="more than 1 MiB"):
        read_sources(tmp_path)


def test_a_short_row_and_spaces_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "sources.csv").write_text("file,source\nanimal/1.png\n animal/2.png , zoo \n")
    assert read_sources(tmp_path) == {"animal/1.png": "", "animal/2.png": "zoo"}


def test_pictures_without_a_source_are_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / "face" / "new.png", colorful(77))
    gather(folder)
    assert "1 of 21 pictures have no source" in caplog.text


def test_every_sample_knows_its_source(folder: Path) -> None:
    collection = gather(folder)
    for sample in (*collection.training, *collection.validation):
        assert sample.source == ("zoo" if sample.name[-6:] < "06.png" else "street")
    assert collection.unseen == []


def test_a_source_is_held_out_whole(folder: Path) -> None:
    collection = gather(folder, held_out_sources=["street"])
    assert {sample.source for sample in collection.unseen} == {"street"}
    assert len(collection.unseen) == 8
    others = [*collection.training, *collection.validation]
    assert {sample.source for sample in others} == {"zoo"} and len(others) == 12
    assert "unseen: of the sources street" in collection.report()
    assert collection.fingerprint != gather(folder).fingerprint


def test_a_near_duplicate_of_an_unseen_picture_is_not_trained_on(folder: Path) -> None:
    near = colorful(9)  # that of animal/09.png
    near[:4] += 1
    names = [f"animal/y{number}.png" for number in range(3)]
    for name in names:
        write(folder / name, near)
        near = near.copy()
        near[-2:] += 1
    training = {sample.name for sample in gather(folder, held_out_sources=["street"]).training}
    assert not training & set(names)


def test_a_label_without_pictures_of_a_held_out_source_can_be_trained_on(folder: Path) -> None:
    lines = (folder / "sources.csv").read_text().replace("face/09.png,street", "face/09.png,sea")
    (folder / "sources.csv").write_text(lines)
    assert gather(folder, subset="animal", held_out_sources=["sea"]).unseen == []


def test_a_source_that_is_not_there_is_an_error_that_names_those_that_are(folder: Path) -> None:
    with pytest.raises(DataError, match="no picture of the source 'sea'; it names street, zoo"):
        gather(folder, held_out_sources=["sea"])
    (folder / "sources.csv").unlink()
    with pytest.raises(DataError, match=r"it names none: it has no sources\.csv"):
        gather(folder, held_out_sources=["zoo"])


def test_pictures_of_one_source_can_be_evaluated(folder: Path) -> None:
    pictures, _ = choose_pictures(folder, None, None, None, ["street"])
    assert len(pictures) == 8
    with pytest.raises(DataError, match="no picture of the source 'sea'"):
        choose_pictures(folder, None, None, None, ["sea"])


def test_a_table_is_no_picture_to_warn_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    gather(folder)
    assert "sources.csv" not in caplog.text
