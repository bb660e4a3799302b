"""Images as examples under their captions: what `logsnr.data.images` makes of them, and rows of tokens.

Captions are shown as stock pipelines show prompts, in small letters and without space around them. What tokens are is
said from outside, by a function, so that nothing here depends on a tokenizer or a text encoder.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from logsnr.base.errors import DataError
from logsnr.base.files import digest_of
from logsnr.data.captions import open_captioned
from logsnr.data.images import ImageExamples, read_source
from logsnr.data.seeded import Example, SeededData
from logsnr.data.source import OpenedSource
from logsnr.settings.text_to_image import CaptionedDataConfig

Tokens: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""`input_ids` and `attention_mask`, (texts, length) each."""


class Tokenizes(Protocol):
    """Makes tokens of texts."""

    @property
    def digest(self) -> str:
        """Hash of all that decides which."""
        ...

    def __call__(self, texts: list[str]) -> Tokens: ...


class CaptionedExamples:
    """Images, under the tokens of a caption: `input_ids` and `attention_mask`, int64, (length,) each.

    Args:
        images: the images, without labels.
        captions: of each image, at least one.
        groups: the group of each image, where something else than its first caption says it.
        tokenizer: makes tokens of texts; called once, with all captions that differ, and with "".
        reader_digest: of what reads the tokens, where it is no part of what is trained.
    """

    noun: ClassVar[str] = ImageExamples.noun

    def __init__(
        self,
        images: ImageExamples,
        captions: list[tuple[str, ...]],
        groups: list[str] | None,
        tokenizer: Tokenizes,
        reader_digest: str = "",
    ) -> None:
        assert len(captions) == len(images)
        assert all(captions)
        assert groups is None or len(groups) == len(images)
        self.images, self.captions, self.groups = images, captions, groups
        self.tokenizer, self._reader_digest = tokenizer, reader_digest
        texts = ["", *sorted({shown(text) for several in captions for text in several} - {""})]
        row = {text: index for index, text in enumerate(texts)}
        self._rows = [tuple(row[shown(text)] for text in several) for several in captions]
        self._ids, self._mask = tokenizer(texts)
        self._texts = texts
        for values in (self._ids, self._mask):
            assert values.dtype == np.int64
            assert values.shape == (len(texts), self._ids.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        return self.images.shape

    @property
    def bits(self) -> int:
        """Depth of the images, 8 or 16."""
        return self.images.bits

    @property
    def complaints(self) -> list[str]:
        """A line for each file left out, and the remarks."""
        return self.images.complaints

    @property
    def belonging(self) -> list[str]:
        """What belongs together: the group of each image, which is its first caption where nothing else says it."""
        return [shown(first) for first, *_ in self.captions] if self.groups is None else self.groups

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all pixels, captions, groups and what makes tokens of them, hexadecimal."""
        words = json.dumps([self.captions, self.groups])
        parts = (self.images.fingerprint, words, self.tokenizer.digest, self._reader_digest)
        return digest_of(*(part.encode() for part in parts))

    @property
    def summary(self) -> str:
        """Size, kind and depth, how many different captions there are, and what was enlarged or left out."""
        different = len({row for rows in self._rows for row in rows})
        return self.images.described(f"{different} caption{'' if different == 1 else 's'}")

    def caption(self, index: int) -> str:
        """The first caption of the image at `index`, as it was written."""
        return self.captions[index][0]

    def text(self, condition: Mapping[str, Any]) -> str:
        """The caption that has the tokens of a condition, as it is shown."""
        return self._text_of[condition["input_ids"].tobytes()]

    @functools.cached_property
    def _text_of(self) -> dict[bytes, str]:
        return {row.tobytes(): text for row, text in zip(self._ids, self._texts, strict=True)}

    def read(self, index: int, seed: int | None) -> Example:
        """The image at `index` under its first caption; with a seed under any of its captions, and maybe mirrored."""
        rows = self._rows[index]
        row = rows[0] if seed is None else rows[(seed >> 1) % len(rows)]  # the last bit mirrors
        return Example(self.images.read(index, seed).clean, self._condition(row))

    def condition(self, index: int) -> Mapping[str, Any]:
        """The tokens of the image's first caption."""
        return self._condition(self._rows[index][0])

    def unique_tokens(self) -> Tokens:
        """All rows of tokens that can be shown, each once; the first is that of "", which means no caption."""
        both = np.concatenate([self._ids, self._mask], axis=1)
        first = np.sort(np.unique(both, axis=0, return_index=True)[1])
        return self._ids[first], self._mask[first]

    def _condition(self, row: int) -> Mapping[str, Any]:
        return {"input_ids": self._ids[row], "attention_mask": self._mask[row]}


CaptionedData: TypeAlias = SeededData[CaptionedExamples]
"""Images with captions, split into training and held-out ones."""


def open_captioned_images(
    config: CaptionedDataConfig, tokenizer_for: Callable[[list[str]], Tokenizes], reader_digest: str = ""
) -> CaptionedData:
    """Finds, reads and checks the whole set, as `open_images` does, and makes tokens of its captions, by the tokenizer
    that is given for them.

    Images that belong together are held out together: those of one group, or those with the same first caption where
    `config.group_column` isn't given. Raises `DataError` for anything in the data that can't be used as asked.
    """
    source = open_captioned(config)
    images = read_source(OpenedSource(source.images, None, source.notes), config)
    captions = [source.captions[place] for place in images.places]
    groups = None if source.groups is None else [source.groups[place] for place in images.places]
    tokenizer = tokenizer_for([shown(text) for several in captions for text in several])
    examples = CaptionedExamples(images, captions, groups, tokenizer, reader_digest)
    names, values = np.unique(np.array(examples.belonging, object), return_inverse=True)
    workers = 0 if images.in_memory else config.num_workers
    data = SeededData(examples, config.held_out_fraction, workers, groups=values)
    if config.held_out_fraction and not data.num_held_out:
        alike = "with the same caption" if groups is None else f"with the same {config.group_column}"
        raise DataError(
            f"data.held_out_fraction is {config.held_out_fraction}, but no image of {config.source} can be held out. "
            f"Images {alike} are held out together, there are {len(names)} such groups of {len(captions)} images, and "
            f"the smallest has {np.bincount(values).min()}. Pass --data.held-out-fraction 0 or a larger one, or name "
            "the column that says what belongs together with --data.group-column (file_name, where there is a "
            "metadata.csv: each image alone)."
        )
    return data


def shown(caption: str) -> str:
    """A caption as stock pipelines show a prompt: in small letters, without space around it."""
    return caption.lower().strip()
