"""Clean picture files -> measurements of them in picture files, for trying and for figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import ConfigError, DataError
from logsnr.base.files import digest_of, locked
from logsnr.base.seeds import sample_seed
from logsnr.data.picture_files import Picture, picture_files, read_content, read_picture, write_picture
from logsnr.folders.made_files import MadeFiles, require_apart
from logsnr.repair.channels import resized
from logsnr.repair.masks import mask_digest, mask_for
from logsnr.repair.operators import make_operator
from logsnr.settings.restore import DegradeOptions

RECORD = "degrade.json"
"""What was asked for, and what is done; in the folder of the measurements."""


def degrade(inputs: Sequence[Path], options: DegradeOptions, out: Path) -> tuple[int, list[str]]:
    """Measure each picture among `inputs`, files or folders, into a PNG of its name in the folder `out`.

    A PNG of 8 or 16 bits as the picture has: any other format could add damage of its own. What is done already isn't
    done again. Returns how many are there, and a line for each that can't be done.
    """
    files = picture_files(inputs, RECORD)
    require_apart(out, inputs)
    mask = None if options.mask is None else mask_for(options.mask, options.damage, files)
    request = {"operator": str(options.damage), "mask": mask_digest(mask), "seed": options.seed}
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, "written"):
        made = MadeFiles(out, RECORD, request)
        written = {name: [Path(name).with_suffix(".png").as_posix()] for name in files}
        made.require_free(written)
        return _each(files, options, mask, made, written)


def _each(
    files: Mapping[str, Path],
    options: DegradeOptions,
    mask: Tensor | None,
    made: MadeFiles,
    written: Mapping[str, Sequence[str]],
) -> tuple[int, list[str]]:
    done, made_now, refused = 0, 0, []
    for name, path in tqdm(files.items(), unit="picture", delay=2, dynamic_ncols=True):
        try:
            digest = digest_of(read_content(path))
            if made.is_done(name, digest):
                done += 1
                continue
            picture = read_picture(path)
            color, alpha = _measured(picture, options, mask, sample_seed(options.seed, 0, name))
        except (ConfigError, DataError) as error:
            refused.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        made.begin({name: digest}, written)
        write_picture(made.out / written[name][0], color, alpha, replace(picture, format="PNG"))
        made.finish({name: {"size": picture.size}})
        made_now += 1
        done += 1
    if done == len(files) and not made_now:
        tqdm.write(f"All {done} were done before.")
    return done, refused


def _measured(
    picture: Picture, options: DegradeOptions, mask: Tensor | None, noise: int
) -> tuple[Tensor, Tensor | None]:
    channels, height, width = picture.color.shape
    operator = make_operator(options.damage, (channels, height, width), mask, options.seed)
    color = operator.measure(picture.color[None], [torch.Generator().manual_seed(noise)])[0]
    return color, None if picture.alpha is None else resized(picture.alpha, color)
