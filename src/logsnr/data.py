"""A data set -> seeded, resumable batches.

Seeds belong to samples, not to batches. The run's samples are numbered n = 0, 1, 2, ...; with A micro-batches a
step, W processes and B images a batch, slot i of micro-batch a of step s in process r is

    n = ((s A + a) W + r) B + i.

Sample n belongs to epoch e = n // N, N being the number of training images, and shows the image at place n % N of
the e-th permutation, mirrored or not by a coin of its own. Hence a batch is a function of (seed, n) alone: two
processes with batches of B see what one sees with batches of 2B, and resuming at any step costs nothing.

Permutations, coins and the split come from SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014) rather than from NumPy's or PyTorch's generators, whose streams may change with versions.
"""

from __future__ import annotations

import functools
import hashlib
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from logsnr.errors import DataError
from logsnr.pixels import Pixels, fit
from logsnr.settings.image import DataConfig
from logsnr.sources import Labels, Source, open_source

MEMORY_LIMIT = 1 << 30
"""Sets that take more bytes than this, resized, stay where they are and are decoded anew in each epoch."""

_SPLIT_SEED = 0  # not the run's: every run on the same data has to hold out the same images
_LISTED = 10
_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1

Condition = Mapping[str, Tensor]
"""Keyword of the network -> values, batch first. Empty: not conditioned, or on nothing in particular."""


def sample_seed(seed: int, n: int, stream: str) -> int:
    """A 63-bit number for one use (`stream`, such as "noise") of sample `n` in a run with this `seed`.

    Stable across machines and versions; different streams are independent. Fit for `torch.Generator.manual_seed`.
    """
    return int(sample_seeds(seed, np.array([n]), stream)[0])


def sample_seeds(seed: int, positions: NDArray[np.int64], stream: str) -> NDArray[np.int64]:
    """`sample_seed` of many samples at once; int64 in [0, 2^63), in the shape of `positions`."""
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    start = int(_mix(np.array([(seed + _GOLDEN) & _MASK], np.uint64))[0]) ^ name
    states = np.uint64(start) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    return (_mix(_mix(states)) >> np.uint64(1)).astype(np.int64)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@functools.lru_cache(maxsize=4)  # a batch on the border of two epochs needs both
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.argsort(sample_seeds(seed, np.arange(count), f"order {epoch}"), kind="stable")


@dataclass(frozen=True, eq=False)
class Batch:
    """What the network sees at once, on the CPU."""

    clean: Tensor
    """x_0: float32 in [-1, 1], (batch, channels, height, width)."""
    condition: Condition
    """What it is conditioned on, by keyword of the network; of labelled images `class_labels`, int64 in [0, classes),
    (batch,)."""
    positions: Tensor
    """int64, (batch,): the number n of each sample in this run; whoever draws noise for it seeds by `sample_seed`."""

    def take(self, rows: Tensor, positions: Tensor) -> Batch:
        """The samples of these rows, as the samples of these numbers."""
        return Batch(self.clean[rows], {name: values[rows] for name, values in self.condition.items()}, positions)


class ImageData:
    """A data set at its final size, split into training and held-out images. Made by `open_data`.

    `len()` is the number of training images, the N of an epoch.
    """

    class_names: list[str] | None
    """Names of the classes; None without labels, and where all images are of one class: nothing to condition on."""
    bits: Literal[8, 16]
    """Depth of the images. In a set of both depths 8-bit values are multiplied by 257, which maps 255 to 65535."""
    deep_image: str | None
    """In a set of both depths, the first image of 16 bits."""
    channels: int
    resolution: int
    num_enlarged: int
    """Images whose short side was shorter than `resolution`."""
    num_held_out: int
    skipped: list[str]
    """Files left out because they can't be read, each with the reason."""
    fingerprint: str
    """Hash of all pixels (after resizing) and labels, hexadecimal: changes if and only if the data do."""
    in_memory: bool

    def __init__(self, reader: _Reader, scan: _Scan, labels: Labels | None, config: DataConfig) -> None:
        self.bits = scan.bits
        self.deep_image, self.num_enlarged = scan.deep_image, scan.num_enlarged
        self.channels, self.resolution = config.channels, config.resolution
        self.skipped = scan.unreadable
        self.in_memory = scan.images is not None
        self._reader = reader
        self._scan = scan
        self._flip = config.horizontal_flip
        self._num_workers = config.num_workers

        values = None if labels is None else labels.values[scan.readable]
        conditional = labels is not None and values is not None and len(np.unique(values)) > 1
        self.class_names = labels.names if labels is not None and conditional else None
        self._labels = values if conditional else None

        count = len(scan.readable)
        order = np.argsort(sample_seeds(_SPLIT_SEED, np.arange(count), "split"), kind="stable")
        wanted = max(1, round(count * config.held_out_fraction)) if config.held_out_fraction else 0
        self.num_held_out = min(wanted, count - 1)
        self._held_out, self._train = np.sort(order[: self.num_held_out]), np.sort(order[self.num_held_out :])

        content = hashlib.blake2b(scan.digest, digest_size=16)
        content.update(repr((self.class_names, self.channels, self.resolution)).encode())
        content.update(b"" if self._labels is None else self._labels.astype("<i8").tobytes())
        self.fingerprint = content.hexdigest()

    def __len__(self) -> int:
        return len(self._train)

    @property
    def class_counts(self) -> list[int] | None:
        """Training images of each class; None without classes."""
        if self._labels is None or self.class_names is None:
            return None
        counts: list[int] = np.bincount(self._labels[self._train], minlength=len(self.class_names)).tolist()
        return counts

    @property
    def description(self) -> str:
        """One line for people."""
        kind = {1: "gray", 3: "RGB", 4: "RGBA"}[self.channels]
        classes = "no classes" if self.class_names is None else f"{len(self.class_names)} classes"
        since = f" (since {self.deep_image} is)" if self.deep_image else ""
        enlarged = f"; {_count(self.num_enlarged, 'smaller image')} enlarged" if self.num_enlarged else ""
        skipped = f"; {_count(len(self.skipped), 'unreadable file')} skipped" if self.skipped else ""
        return (
            f"{len(self)} training and {_count(self.num_held_out, 'held-out image')}, "
            f"{self.resolution}x{self.resolution}, {kind}, {self.bits} bit{since}, {classes}"
            f"{'' if self.in_memory else ', read from disk in every epoch'}{enlarged}{skipped}"
        )

    def batches(
        self,
        *,
        seed: int,
        batch_size: int,
        start_step: int,
        num_steps: int,
        accumulation_steps: int = 1,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> Iterator[Batch]:
        """The training batches of one process, `accumulation_steps` a step, for `num_steps` steps from `start_step`.

        Raises `DataError` if a file that was readable when the set was opened no longer is.
        """
        assert min(start_step, num_steps) >= 0
        assert 0 <= process_index < num_processes

        def selections() -> Iterator[_Selection]:
            for micro in range(start_step * accumulation_steps, (start_step + num_steps) * accumulation_steps):
                n = (micro * num_processes + process_index) * batch_size + np.arange(batch_size)
                mirrored = sample_seeds(seed, n, "flip") & 1 == 1 if self._flip else np.zeros(len(n), bool)
                yield _Selection(n, self._shown(seed, n), mirrored)

        return self._load(selections())

    def in_order(
        self, split: Literal["train", "held_out"], batch_size: int, limit: int | None = None
    ) -> Iterator[Batch]:
        """Every image of the split once, in the order of the source, not mirrored: always the same batches.

        `positions` count from 0 within the split; the last batch may be smaller. With a `limit` there are only that
        many, chosen at random but always the same (a source is often in the order of its classes).
        """
        images = self._held_out if split == "held_out" else self._train
        positions = np.arange(len(images))
        if limit is not None:
            chosen = np.argsort(sample_seeds(_SPLIT_SEED, positions, "limit"), kind="stable")[:limit]
            positions = np.sort(chosen)

        def selections() -> Iterator[_Selection]:
            for start in range(0, len(positions), batch_size):
                places = positions[start : start + batch_size]
                yield _Selection(places, images[places], np.zeros(len(places), bool))

        return self._load(selections())

    def _shown(self, seed: int, n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which image each sample shows."""
        epochs, places = np.divmod(n, len(self))
        shown = np.empty_like(n)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            shown[here] = self._train[_permutation(seed, epoch, len(self))[places[here]]]
        return shown

    def _load(self, selections: Iterable[_Selection]) -> Iterator[Batch]:
        memory = self._scan.images
        if memory is not None:
            for selection in selections:
                yield self._batch(selection, memory[selection.images])
            return
        for selection, pixels in _loader(_Rows(self._reader, self._scan), selections, self._num_workers):
            if isinstance(pixels, DataError):
                raise pixels
            yield self._batch(selection, pixels)

    def _batch(self, selection: _Selection, pixels: Pixels) -> Batch:
        pixels[selection.mirrored] = pixels[selection.mirrored, ..., ::-1]
        half = ((1 << self.bits) - 1) / 2
        images = torch.from_numpy(pixels.astype(np.float32)).div_(half).sub_(1)  # x / 255 * 2 - 1, to the bit
        condition: Condition = {}
        if self._labels is not None:
            condition = {"class_labels": torch.from_numpy(self._labels[selection.images])}
        return Batch(images, condition, torch.from_numpy(selection.positions))


def open_data(config: DataConfig, labelled: bool = True) -> ImageData:
    """Finds, reads and checks the whole data set, with a progress bar on stderr if that takes over two seconds.

    Every image is decoded once here, in `config.num_workers` processes (0: in this one), so that a damaged file
    stops the run before it has begun. Labels are read where there are any and they are wanted (`labelled`). Raises
    `DataError` for anything in the data that can't be used as asked.
    """
    source = open_source(config, labelled)
    if len(source.images) < 2:
        raise DataError(
            f"{config.source} has {_count(len(source.images), 'image')}, and at least 2 are needed: one to "
            "train on and one to hold out."
        )
    reader = _Reader(source.images, config.resolution, config.channels)
    scan = _scan(reader, config.num_workers)
    if scan.unreadable and not config.skip_unreadable:
        more = len(scan.unreadable) - _LISTED
        raise DataError(
            f"{len(scan.unreadable)} of {_count(len(reader), 'image')} can't be read: "
            f"{', '.join(scan.unreadable[:_LISTED])}{f' and {more} more' if more > 0 else ''}. "
            "Repair or remove them, or pass --data.skip-unreadable to go on without them."
        )
    if len(scan.readable) < 2:
        raise DataError(
            f"{config.source} has {_count(len(scan.readable), 'readable image')}, and at least 2 are needed. Can't be "
            f"read: {', '.join(scan.unreadable[:_LISTED])}."
        )
    return ImageData(reader, scan, source.labels, config)


@dataclass(frozen=True, eq=False)
class _Selection:
    """Samples to load: their numbers, which images of the set they show, and which of them mirrored."""

    positions: NDArray[np.int64]
    images: NDArray[np.int64]
    mirrored: NDArray[np.bool_]


class _Fitted(NamedTuple):
    """An image at its final size, and whether it was smaller."""

    pixels: Pixels
    enlarged: bool


@dataclass(frozen=True)
class _Reader(Dataset[Any]):
    """The images of a source at their final size, in their own depth, unreadable ones as the reason.

    A `DataError` comes back as a value: raised in a worker process it would reach the user as a traceback.
    """

    source: Source
    resolution: int
    channels: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> _Fitted | str | DataError:
        try:
            pixels = self.source.read(index)
            return _Fitted(fit(pixels, self.resolution, self.channels), min(pixels.shape[:2]) < self.resolution)
        except DataError as error:
            return error
        except MemoryError:
            raise
        except (
            Exception
        ) as error:  # damaged files make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
            reason = "not an image" if "cannot identify image file" in str(error) else str(error)
            return f"{self.source.name(index)} ({reason or type(error).__name__})"


@dataclass(frozen=True, eq=False)
class _Scan:
    """What one reading of the whole source found."""

    readable: NDArray[np.int64]
    """Indices of the source."""
    unreadable: list[str]
    bits: Literal[8, 16]
    deep_image: str | None
    num_enlarged: int
    digest: bytes
    images: Pixels | None
    """(readable images, channels, height, width), if they fit in memory."""


def _scan(reader: _Reader, num_workers: int) -> _Scan:
    shape = (len(reader), reader.channels, reader.resolution, reader.resolution)
    images: Pixels | None = np.empty(shape, np.uint8) if np.prod(shape) <= MEMORY_LIMIT else None
    readable: list[int] = []
    unreadable: list[str] = []
    first_of_depth: dict[int, str] = {}
    num_enlarged = 0
    bits: Literal[8, 16] = 8
    digest = hashlib.blake2b(digest_size=16)
    results = _loader(reader, range(len(reader)), num_workers)
    for index, result in enumerate(tqdm(results, "Reading images", len(reader), leave=False, unit=" images", delay=2)):
        if isinstance(result, DataError):
            raise result
        if isinstance(result, str):
            unreadable.append(result)
            continue
        pixels, enlarged = result
        num_enlarged += enlarged
        digest.update(pixels.dtype.str.encode() + pixels.tobytes())
        first_of_depth.setdefault(pixels.itemsize, reader.source.name(index))
        if pixels.dtype == np.uint16 and bits == 8:
            bits = 16
            if images is not None:
                images = _deepened(images) if 2 * np.prod(shape) <= MEMORY_LIMIT else None
        if images is not None:
            images[len(readable)] = _deepened(pixels) if bits == 16 else pixels
        readable.append(index)
    kept = None if images is None else images[: len(readable)]
    deep_image = first_of_depth[2] if len(first_of_depth) == 2 else None
    return _Scan(np.array(readable, np.int64), unreadable, bits, deep_image, num_enlarged, digest.digest(), kept)


@dataclass(frozen=True, eq=False)
class _Rows(Dataset[Any]):
    """The pixels of a selection, read from the source."""

    reader: _Reader
    scan: _Scan

    def __getitem__(self, selection: _Selection) -> tuple[_Selection, Pixels | DataError]:
        rows = []
        for index in self.scan.readable[selection.images]:
            row = self.reader[int(index)]
            if isinstance(row, DataError):
                return selection, row
            if isinstance(row, str):
                return selection, DataError(f"An image can't be read any more since this run began: {row}.")
            rows.append(_deepened(row.pixels) if self.scan.bits == 16 else row.pixels)
        return selection, np.stack(rows)


def _deepened(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


def _loader(dataset: Dataset[Any], keys: Iterable[Any], num_workers: int) -> DataLoader[Any]:
    """`dataset[key]` for each key, in order, as it is."""
    # A generator of its own: a DataLoader without one draws from the global one, and streaming would differ from
    # memory in whatever is drawn there later.
    generator = torch.Generator()
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        generator=generator,
        worker_init_fn=_leave_signals_to_the_main_process,
    )


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals_to_the_main_process(worker: int) -> None:
    # Ctrl-C, and a batch system's SIGTERM, go to all processes of a group: the main one still needs this one's images
    # to finish its step. Workers end when the main process does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
