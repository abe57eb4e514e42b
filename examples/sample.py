"""Make something to color: a gray photo, and a gray film of it with sound.

The picture is the portrait of Rear Admiral Grace Hopper, an official photograph of the United
States Navy and in the public domain, which comes with matplotlib. The film pans and zooms over it,
with a cut and a tone for sound.

    python examples/sample.py DIR
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from matplotlib.cbook import get_sample_data

FRAME_RATE, SAMPLE_RATE = 12, 48_000
WIDTH, HEIGHT = 480, 360
VIEWS = (  # per shot: seconds, then center x, center y and width at its start and end, as shares
    (2.0, (0.50, 0.30, 1.00), (0.50, 0.40, 0.80)),
    (2.0, (0.45, 0.75, 0.70), (0.55, 0.75, 0.60)),
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    portrait = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert portrait is not None
    cv2.imwrite(str(folder / "portrait.png"), portrait)
    write_film(folder / "film.mkv", portrait)
    print(f"made {folder / 'portrait.png'} and {folder / 'film.mkv'}")


def write_film(path: Path, portrait: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "16"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = Fraction(1, FRAME_RATE)
        sound = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        sound.metadata["language"] = "eng"
        container.metadata["title"] = "Grace Hopper, a moving portrait"
        for number, view in enumerate(views(portrait)):
            gray = av.VideoFrame.from_ndarray(view, format="gray")
            frame = gray.reformat(format="yuv420p", src_color_range="JPEG", dst_color_range="MPEG")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        seconds = sum(view[0] for view in VIEWS)
        container.mux(sound.encode(tone(seconds)))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))


def views(portrait: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures of the film, (HEIGHT, WIDTH) uint8."""
    rows, columns = portrait.shape
    for seconds, start, end in VIEWS:
        for share in np.linspace(0.0, 1.0, round(seconds * FRAME_RATE)):
            x, y, width = ((1 - share) * a + share * b for a, b in zip(start, end, strict=True))
            scale = width * columns / WIDTH
            size = (WIDTH * scale, HEIGHT * scale)
            left = np.clip(x * columns - size[0] / 2, 0, columns - size[0])
            top = np.clip(y * rows - size[1] / 2, 0, rows - size[1])
            window = np.array([[scale, 0, left], [0, scale, top]])
            yield cv2.warpAffine(
                portrait, window, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )


def tone(seconds: float) -> av.AudioFrame:
    """A falling tone, 16-bit mono."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    samples = 8000 * np.sin(2 * np.pi * (440 * time - 40 * time * time))
    frame = av.AudioFrame.from_ndarray(samples.astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE, 0
    return frame


if __name__ == "__main__":
    main(Path(sys.argv[1]))
