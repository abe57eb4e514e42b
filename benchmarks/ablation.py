"""What label, loss and encoder bring: a short run for each combination, on equal terms.

    python benchmarks/ablation.py DIR RUNS --vgg FILE [--pictures 4000] [--side 64] [--labels …]

Every run sees the same number of crops, starts anew (from VGG16 weights, or from noise) and is
judged on held-out pictures of its own label. Finished runs are found in RUNS and not made again, so
the grid can be interrupted. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import csv
import logging
from itertools import product
from pathlib import Path

from colordaemon.config import TrainSettings
from colordaemon.network.device import choose_device
from colordaemon.pictures.dataset import find_pictures
from colordaemon.training.train import train

EVERY_LABEL = "all"
COLUMNS = {
    "validation_mse": "MSE",
    "gray_mse": "gray",
    "delta_e": "ΔE",
    "delta_e_70": "ΔE@70",
    "gray_delta_e": "gray ΔE",
    "validation_chroma": "chroma",
    "true_chroma": "truth's",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures_folder", type=Path, metavar="DIR")
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--vgg", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=4000, help="crops that each run sees")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--labels", nargs="+")
    parser.add_argument("--losses", nargs="+", default=["l2", "classification"])
    parser.add_argument("--encoders", nargs="+", default=["frozen", "imagenet", "scratch"])
    parser.add_argument("--cache-folder", type=Path)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    labels = arguments.labels or [
        *sorted({picture.label for picture in find_pictures(arguments.pictures_folder)}),
        EVERY_LABEL,
    ]
    print("| label | loss | encoder | " + " | ".join(COLUMNS.values()) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    for label, loss, encoder in product(labels, arguments.losses, arguments.encoders):
        settings = TrainSettings(
            subset=None if label == EVERY_LABEL else label,
            loss=loss,
            encoder=encoder,
            vgg=arguments.vgg,
            side=arguments.side,
            validation_side=arguments.side,
            epochs=1,
            pictures_per_epoch=arguments.pictures,
            validation_pictures=400,
            cache_folder=arguments.cache_folder,
            report_pictures=1,
        )
        folder = arguments.runs / f"{label}-{loss}-{encoder}"
        train(
            arguments.pictures_folder,
            folder,
            settings,
            choose_device(arguments.device),
            resume=True,
        )
        row = last_row(folder / "metrics.csv")
        figures = " | ".join(f"{float(row[column]):.2f}" for column in COLUMNS)
        print(f"| {label} | {loss} | {encoder} | {figures} |", flush=True)


def last_row(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))[-1]


if __name__ == "__main__":
    main()
