"""The names under which photos and films are looked for: the one list behind every other.

The contents decide what a file is. Suffixes only spare a look at every text file, and they are what
documents promise; the scan of an inbox, training and docs/formats.md are made from this list.
"""

from __future__ import annotations

# By format, the usual suffix first.
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo")
PNG = (".png",)
TIFF = (".tif", ".tiff", ".btf", ".tf8")
WEBP = (".webp",)
BMP = (".bmp", ".dib")
AVIF = (".avif", ".avifs")
HEIC = (".heic", ".heif", ".hif", ".heics", ".heifs")
GIF = (".gif",)

# What the training pictures may be: formats that OpenCV reads without a word of its own.
TRAINING_SUFFIXES = frozenset((*JPEG, *PNG, *TIFF, *WEBP, *BMP))
PHOTO_SUFFIXES = TRAINING_SUFFIXES | frozenset((*AVIF, *HEIC, *GIF))
FILM_SUFFIXES = frozenset(
    (".264", ".265", ".3g2", ".3gp", ".3gpp", ".asf", ".av1", ".avc", ".avi", ".dif", ".divx",
     ".dv", ".dvr-ms", ".evo", ".f4v", ".flc", ".fli", ".flv", ".gxf", ".h264", ".h265", ".hevc",
     ".ismv", ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2", ".mjp2", ".mk3d",
     ".mkv", ".mod", ".mov", ".mp2v", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mpv", ".mpv2",
     ".mts", ".mxf", ".nut", ".obu", ".ogg", ".ogm", ".ogv", ".ogx", ".qt", ".rm", ".rmvb",
     ".tod", ".tp", ".trp", ".ts", ".tts", ".vc1", ".vob", ".vro", ".webm", ".wm", ".wmv",
     ".wtv", ".xvid", ".y4m")
)  # fmt: skip
