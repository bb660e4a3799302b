"""A mask in a file, looked at before any work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from torch import Tensor

from logsnr.base.errors import ConfigError
from logsnr.base.files import digest_of
from logsnr.data.picture_files import read_mask
from logsnr.repair.operators import require_hole
from logsnr.settings.damage import Damage


def mask_for(path: Path, damage: Damage, files: Mapping[str, Path], scale: int = 1) -> Tensor:
    """The mask in a file: bool (height, width), True where a pixel is known.

    scale: how many times larger than the pictures in `files` clean ones are.

    Raises DataError where it can't be read, and ConfigError where it hides nothing or all, or has the size of none of
    the files; a single one is refused in its turn.
    """
    mask = read_mask(path)
    require_hole(mask)
    before = Damage(damage.steps[: damage.names.index("mask")], 0.0).factor
    sizes = [(width * scale // before, height * scale // before) for width, height in map(_size, files.values())]
    height, width = mask.shape
    if not {(0, 0), (width, height), (height, width)} & set(sizes):  # a picture may yet be turned upright
        wanted = ", ".join(dict.fromkeys(f"{wide}x{high}" for wide, high in sizes[:3]))
        raise ConfigError(
            f"mask must have the picture's size, {wanted}, and has {width}x{height}. Paint it over a copy of that "
            "picture."
        )
    return mask


def _size(path: Path) -> tuple[int, int]:
    """Width and height; 0 of what can't be opened, which is refused in its turn."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:
        return 0, 0


def mask_digest(mask: Tensor | None) -> str | None:
    """A hash of a mask, which says whether it is the one that was used before."""
    return None if mask is None else digest_of(str(tuple(mask.shape)).encode(), mask.numpy().tobytes())
