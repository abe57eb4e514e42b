"""Every setting, its unit, bounds and default."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from colordaemon.choices import Algorithm as Algorithm
from colordaemon.choices import Codec as Codec
from colordaemon.choices import PhotoTarget as PhotoTarget
from colordaemon.choices import Place as Place
from colordaemon.choices import Smoothing as Smoothing


class Settings(BaseModel):
    """A section of the configuration: unknown keys are mistakes, values never change."""

    # Built at first use: `--help` needs none, and all of them take 0.1 s.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @field_validator("*")
    @classmethod
    def _start_paths_at_the_config_file(cls, value: object, info: ValidationInfo) -> object:
        if info.context is None:
            return value
        if isinstance(value, dict):
            return {key: _anchored(inner, info.context["folder"]) for key, inner in value.items()}
        return _anchored(value, info.context["folder"])


def _anchored(value: object, folder: Path) -> object:
    if not isinstance(value, Path):
        return value
    try:
        return folder / value.expanduser()
    except RuntimeError as error:
        raise ValueError("a path in the home of a known user") from error


class ModelSettings(Settings):
    """Which network runs, and where."""

    file: Path | None = None  # None: the built-in model
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp16", "bf16", "fp32", "int8"] = "auto"
    quality: Literal["draft", "standard", "best"] = "standard"
    saturation: float = Field(default=1.0, ge=0, le=2)
    batch_size: int = Field(default=8, ge=1, le=256)


class FilmSettings(Settings):
    """How films are encoded and how much damage is tolerated."""

    codec: Codec = "h264"
    crf: int | None = Field(default=None, ge=0, le=63)  # None: the codec's usual value
    preset: str | None = None  # None: the codec's usual one
    encoder_options: dict[str, str] = {}
    encode_on: Place = "cpu"
    decode_on: Place = "cpu"
    smoothing: Smoothing = "motion"
    smooth_on: Place = "cpu"
    stride: Annotated[int, Field(ge=1, le=16)] | Literal["auto"] = "auto"
    segment_seconds: float = Field(default=10.0, ge=2.0, le=600.0)
    damaged_percent: float = Field(
        default=2.0, ge=0.0, le=100.0
    )  # of video packets, and of all other packets
    accept_loss: bool = False  # of sound, subtitles or captions
    assume_range: Literal["limited", "full"] | None = None  # None: as the film is tagged
    assume_matrix: Literal["bt601", "bt709", "bt2020"] | None = None
    assume_transfer: Literal["sdr", "pq", "hlg"] | None = None


class PhotoSettings(Settings):
    """How photos are written."""

    format: PhotoTarget = "keep"
    quality: int = Field(default=95, ge=1, le=100)  # of JPEG, WebP, AVIF and HEIC
    accept_damaged: bool = False  # color what can be read of a damaged photo
    candidates: bool = False  # also for photos; measured, they make their colors less true


NAME_FIELDS = ("stem", "suffix", "model", "quality", "date", "folder")


class OutputSettings(Settings):
    """Where finished files go and what they are called."""

    folder: Path | None = None  # None: beside the source
    name: str = "{stem}.color{suffix}"
    overwrite: bool = False
    preview: bool = False  # a JPEG, before | after
    framemd5: bool = False  # checksums of the luma planes of films, before and after

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        rest = re.sub("{(?:" + "|".join(NAME_FIELDS) + ")}", "", name)
        if "{stem}" not in name or set(rest) & set("{}/\\\0"):
            others = ", ".join(f"{{{field}}}" for field in NAME_FIELDS[1:])
            raise ValueError(
                f"text with {{stem}}, perhaps {others}, no other braces, no / and no \\"
            )
        return name


Priority = Annotated[int, Field(ge=-1000, le=1000)]  # higher goes first


class InboxSettings(Settings):
    """One of several inboxes."""

    inbox: Path
    outbox: Path
    preset: Path | None = None  # another file of settings
    priority: Priority = 0
    archive: Path | None = None  # None: after.archive


class WatchSettings(Settings):
    """How new files are noticed."""

    settle_seconds: float | None = Field(default=None, ge=0.0, le=86400.0)  # None: 5, network 15
    empty_seconds: float = Field(default=600.0, ge=0.0)
    scan_seconds: float = Field(default=300.0, ge=1.0)
    poll: Literal["auto", "always", "never"] = "auto"
    poll_seconds: float = Field(default=10.0, ge=0.1)


class JobSettings(Settings):
    """How work is done, and how errors are handled."""

    tries: int = Field(default=5, ge=1, le=100)
    retry_seconds: float = Field(default=60.0, ge=0.0)
    failures: int = Field(default=5, ge=1)  # in a row, of different files
    hang_seconds: float = Field(default=900.0, ge=1.0)
    drain_seconds: float = Field(default=60.0, ge=0.0)
    free_mib: int = Field(default=2048, ge=0)
    memory_mib: int | None = Field(default=None, ge=1024)  # None: 70 % of what there is
    workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = 1  # for one film


class ClusterSettings(Settings):
    """Other machines that color segments."""

    address: str | None = None  # HOST:PORT of the head; None: no other machines
    token_file: Path | None = None  # the same on all machines
    node_address: str | None = None  # of this machine; None: as the head sees it
    device: Literal["cuda", "cpu"] = "cuda"
    workers_per_gpu: Annotated[int, Field(ge=1, le=16)] | Literal["auto"] = "auto"
    cpus: int = Field(default=4, ge=1, le=256)  # of each worker
    memory_mib: int = Field(default=2048, ge=512)  # of each worker
    stretch_seconds: float = Field(default=60.0, ge=2.0, le=3600.0)
    paths: dict[str, Path] = {}  # a folder here: what it is called on the other machines
    tries: int = Field(default=2, ge=1, le=10)
    node_seconds: float = Field(default=60.0, ge=1.0)

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
                raise ValueError("HOST:PORT or null")
        return address

    @field_validator("paths")
    @classmethod
    def _check_paths(cls, paths: dict[str, Path]) -> dict[str, Path]:
        if any(not path.startswith("/") for path in paths):
            raise ValueError("folders whose paths begin with /")
        return paths


class JournalSettings(Settings):
    """How long finished jobs are remembered."""

    keep_days: float | None = Field(default=365.0, ge=0.0)  # None and 0: for ever


class WebSettings(Settings):
    """The page, and the small pictures that it shows."""

    listen: str = "127.0.0.1:8765"
    hosts: tuple[str, ...] = ()  # further names of this machine, as a proxy passes them on
    thumbnails: int = Field(default=1000, ge=0, le=100_000)  # files that have some; 0: none
    thumbnails_mib: int = Field(default=200, ge=1)

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not host.strip("[]") or not port.isdecimal() or not 0 <= int(port) <= 65535:
            raise ValueError("an address and a port, as in 127.0.0.1:8765")
        return listen

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [host for host in hosts if not re.fullmatch(r"[\w.-]+|\[[\da-fA-F:]+\]", host)]:
            raise ValueError(f"names of machines without a port; not {wrong[0]}")
        return hosts

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        host = self.listen.rpartition(":")[0]
        return host in ("localhost", "[::1]") or host.startswith("127.")


class AfterSettings(Settings):
    """What happens once a file is done."""

    source: Literal["keep", "move", "trash", "delete"] = "keep"
    archive: Path | None = None  # where `move` puts sources
    checksum: Algorithm | bool = False  # True: sha256
    hook: str | None = None
    webhook: str | None = None
    hook_seconds: float = Field(default=60.0, gt=0.0)

    @property
    def algorithm(self) -> Algorithm | None:
        """Of the checksum that is asked for, if one is."""
        if isinstance(self.checksum, bool):
            return "sha256" if self.checksum else None
        return self.checksum

    @field_validator("hook")
    @classmethod
    def _check_hook(cls, hook: str | None) -> str | None:
        try:
            words = shlex.split(hook or "")
        except ValueError as error:
            raise ValueError(f"a command line ({error})") from error
        if hook is not None and not words:
            raise ValueError("a command line or null")
        return hook

    @field_validator("webhook")
    @classmethod
    def _check_webhook(cls, webhook: str | None) -> str | None:
        if webhook is not None and not webhook.startswith(("http://", "https://")):
            raise ValueError("an address that begins with http:// or https://, or null")
        return webhook


class TrainSettings(Settings):
    """One training run."""

    encoder: Literal["model", "imagenet", "frozen", "scratch"] = "model"
    vgg: Path | None = None  # None: torchvision's weights
    start: Path | None = None  # None: the built-in model
    frozen_stages: int | None = Field(default=None, ge=0)  # None: as many as `encoder` implies
    subset: str | None = None
    loss: Literal["joint", "classification", "smooth_l1", "l2"] = "joint"
    perceptual: float = Field(default=0.0, ge=0)  # weight; needs VGG weights
    consistency: float = Field(default=0.0, ge=0)  # weight; a step takes twice as long
    degradations: bool = True
    saturation: float = Field(default=1.2, ge=1, le=2)
    epochs: int = Field(default=10, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=16, ge=2)
    side: int = Field(default=128, ge=32, multiple_of=32)
    validation_side: int = Field(default=128, ge=32, multiple_of=32)
    learning_rate: float = Field(default=4e-4, gt=0)
    schedule: Literal["plateau", "cosine"] = "plateau"
    encoder_rate_share: float = Field(default=0.1, ge=0, le=1)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    validation_pictures: int = Field(default=1000, ge=1)
    report_pictures: int = Field(default=200, ge=1)
    pictures_per_epoch: int | None = Field(default=None, ge=1)  # None: as many as there are
    held_out_sources: tuple[str, ...] = ()
    most_per_source: float = Field(default=0.08, gt=0, le=1)  # share of the pictures of an epoch
    compile: bool = True  # on a GPU
    save_seconds: float = Field(default=60.0, ge=0)
    cache: bool = True
    cache_folder: Path | None = None  # None: colordaemon in the user's folder of caches
    loader_workers: int = Field(default=1, ge=1, le=64)
    seed: int = Field(default=1, ge=0)
    report_seconds: float = Field(default=30.0, gt=0)


class Config(Settings):
    """The whole configuration."""

    inbox: Path | None = None
    outbox: Path | None = None
    inboxes: tuple[InboxSettings, ...] = ()  # in place of the two above
    state_dir: Path | None = None
    model: ModelSettings = Field(default_factory=ModelSettings)
    models: dict[str, Path] = {}  # folder or glob: model file
    references: dict[str, Path] = {}  # folder or glob: a picture in color, or a folder of them
    candidates: dict[str, Path] = {}  # folder or glob: a folder of pictures in color
    presets: dict[str, Path] = {}  # folder or glob: another file of settings
    priorities: dict[str, Priority] = {}  # folder or glob: replaces that of the inbox
    film: FilmSettings = Field(default_factory=FilmSettings)
    photo: PhotoSettings = Field(default_factory=PhotoSettings)
    output: OutputSettings = Field(default_factory=OutputSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    after: AfterSettings = Field(default_factory=AfterSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)

    @field_validator("inboxes")
    @classmethod
    def _check_that_inboxes_stand_alone(
        cls, inboxes: tuple[InboxSettings, ...], info: ValidationInfo
    ) -> tuple[InboxSettings, ...]:
        if inboxes and (info.data.get("inbox") or info.data.get("outbox")):
            raise ValueError("none beside inbox and outbox, which stand for a list of one")
        return inboxes

    @property
    def all_inboxes(self) -> tuple[InboxSettings, ...]:
        """The inboxes, from `inboxes` or from `inbox` and `outbox`; empty if a key is missing."""
        if self.inbox is None or self.outbox is None:
            return self.inboxes
        return (InboxSettings(inbox=self.inbox, outbox=self.outbox),)
