"""Packs pictures for a machine that only so many bytes at a time can be carried to.

    python benchmarks/pack.py DATA OUT [--part-mib 30 61] [--config FILE] [--pictures N]

What a run with that configuration would train and validate on goes into zip shards part-0.zip,
part-1.zip …, under the names that it has, so that every picture stays on its side of the split.
What such a run would leave out stays here, and so do validation pictures beyond those that it would
choose. Every shard is a sample of the whole, source by source: the first alone is enough for a
trial. sources.csv.gz and SHA256SUMS, both small, belong with each of them.

--part-mib gives the most MiB of the first part, the second and so on; the last one repeats.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import logging
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path

from colordaemon.config_file import load_config
from colordaemon.pictures.collection import CollectedPicture, Collection
from colordaemon.pictures.dataset import lot
from colordaemon.training.train import collect_for
from colordaemon.training.validator import chosen

MIB = 2**20
ENTRY = 76  # bytes that a stored file takes in a zip besides its own and twice its name's
END = 22  # bytes of a zip's end
NAME = "part-{}.zip"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part-mib", type=float, nargs="+", default=[30, 61])
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("gpu.yaml"))
    parser.add_argument("--cache", type=Path, help="where decoded pictures are kept")
    parser.add_argument("--pictures", type=int, help="no more than these, a sample")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_config(arguments.config).train
    if arguments.cache:
        settings = settings.model_copy(update={"cache_folder": arguments.cache})
    collection = collect_for(settings, arguments.data)
    wanted = spread(sides(collection, settings.validation_pictures))[: arguments.pictures]
    limits = [int(mib * MIB) for mib in arguments.part_mib]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for old in arguments.out.glob(NAME.format("*")):
        old.unlink()
    parts = list(write_parts(wanted, limits, arguments.out))
    write_sources(wanted, arguments.out / "sources.csv.gz")
    write_checksums([*parts, arguments.out / "sources.csv.gz"], arguments.out / "SHA256SUMS")


def sides(collection: Collection, validation_pictures: int) -> list[list[CollectedPicture]]:
    """What training, validation and judging on unseen sources would look at."""
    held_out = collection.validation, collection.unseen
    return [collection.training, *(chosen(side, validation_pictures) for side in held_out)]


def spread(groups: Sequence[Sequence[CollectedPicture]]) -> list[CollectedPicture]:
    """In an order of which every stretch has its share of each group and source."""
    kinds: dict[tuple[int, str], list[CollectedPicture]] = defaultdict(list)
    for number, samples in enumerate(groups):
        for sample in samples:
            kinds[number, sample.source].append(sample)
    places = []
    for samples in kinds.values():
        samples.sort(key=lambda sample: lot(sample.name))
        places += [((i + 0.5) / len(samples), x.name, x) for i, x in enumerate(samples)]
    return [sample for _, _, sample in sorted(places, key=lambda place: place[:2])]


def write_parts(
    samples: Sequence[CollectedPicture], limits: Sequence[int], out: Path
) -> Iterator[Path]:
    """The shards; says what is in them."""
    for number, (limit, files) in enumerate(portions(samples, limits)):
        path = out / NAME.format(number)
        with zipfile.ZipFile(path, "w") as part:
            for name, data in files:
                part.writestr(zipfile.ZipInfo(name), data)  # without a time: always the same bytes
        size = path.stat().st_size
        if size > limit:
            raise SystemExit(f"{path}: {size:,} bytes, more than the {limit:,} it may have")
        print(f"{path.name}: {len(files)} pictures, {size:,} of at most {limit:,} bytes")
        yield path


def portions(
    samples: Sequence[CollectedPicture], limits: Sequence[int]
) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """The most bytes of each zip, and the names and bytes of the files that fill it."""
    rest = chain(limits, repeat(limits[-1]))
    limit, size, files = next(rest), END, list[tuple[str, bytes]]()
    for sample in samples:
        name, data = sample.name, sample.picture.read()
        entry = ENTRY + 2 * len(name.encode()) + len(data)
        if files and size + entry > limit:
            yield limit, files
            limit, size, files = next(rest), END, []
        files.append((name, data))
        size += entry
    yield limit, files


def write_sources(samples: Sequence[CollectedPicture], path: Path) -> None:
    """The table of sources, of these pictures alone."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("file", "source"))
    writer.writerows(sorted((sample.name, sample.source) for sample in samples))
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def write_checksums(paths: Sequence[Path], target: Path) -> None:
    """As sha256sum writes them."""
    digests = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    target.write_text("".join(digests))


if __name__ == "__main__":
    main()
