"""Bytes of an image file -> an array of pixels of the size and channels asked for.

Nothing is truncated in silence: 8-bit files become uint8, 16-bit files uint16, and what fits neither is refused.
Pillow reads PNG and TIFF with several 16-bit channels at 8 bits without a word; those go through OpenCV
(`pip install logsnr[deep-color]`).

An alpha channel means colour c seen with opacity a. Averages are taken of a·c and a, never of c alone, or the
invisible colours of transparent pixels would bleed into the edges of the visible ones (Porter and Duff,
"Compositing digital images", 1984).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from logsnr.base.errors import DataError

Pixels = NDArray[Any]
"""uint8 or uint16, (height, width, channels): 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_EXIF_ORIENTATION = 274
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_EXTRA_SAMPLES = 258, 262, 338


def decode(data: bytes, name: str) -> Pixels:
    """The pixels of an image file in their own depth, turned upright by the EXIF orientation.

    Of an animation, the first frame. Gray TIFFs of 32-bit whole numbers are taken as 16-bit where they lie within
    [0, 65535], floating-point ones where they lie within [0, 1] (rounded to 16 bits); others are refused.

    Raises `DataError` if the file needs OpenCV and it isn't installed, and whatever Pillow raises (`OSError`,
    `SyntaxError`, `ValueError`, `struct.error`, ...) if the file is damaged or of a kind that isn't supported.
    """
    if not data:
        raise ValueError("empty file")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()  # the whole file, so that a truncated one shows itself
        if _is_deep_color(image, data):
            pixels = _decode_deep_color(image, data, name)
        elif image.mode in ("1", "L", "LA", "La"):
            pixels = np.asarray(image.convert("LA" if image.has_transparency_data else "L"))
        elif image.mode.startswith("I") or image.mode == "F":
            pixels = _decode_deep_gray(image)
        else:
            pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        # Read after load(): Pillow and OpenCV both turn TIFFs themselves, and Pillow then drops the tag.
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    return _upright(pixels.reshape(*pixels.shape[:2], -1), orientation)


def fit(pixels: Pixels, resolution: int, channels: int) -> Pixels:
    """Pixels of any size and kind -> (channels, resolution, resolution) in the same depth.

    The short side is resized to `resolution` and the centre cut out. The filter is Pillow's bicubic, which widens
    its support when it shrinks and so doesn't alias (Parmar et al., "On aliased resizing", CVPR 2022). Images whose
    short side has the right length are cropped only, bit for bit. With 1 or 3 channels alpha is laid over white.
    """
    white = np.iinfo(pixels.dtype).max
    color, alpha = (pixels, None) if pixels.shape[2] in (1, 3) else (pixels[..., :-1], pixels[..., -1:])
    if alpha is not None and channels != 4:
        a = alpha.astype(np.int64)
        color = ((color * a + white * (white - a) + white // 2) // white).astype(pixels.dtype)
        alpha = None
    if channels == 1 and color.shape[2] == 3:
        color = _luma(color)
    elif channels != 1 and color.shape[2] == 1:
        color = color.repeat(3, axis=2)

    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if side == resolution:
        window = np.s_[top : top + side, left : left + side]
        color, alpha = color[window], None if alpha is None else alpha[window]
    else:
        box = (left, top, left + side, top + side)
        color, alpha = _resize(color, alpha, resolution, box)
    if channels == 4:
        opaque = np.full((resolution, resolution, 1), white, pixels.dtype)
        color = np.concatenate([color, opaque if alpha is None else alpha], axis=2)
    return np.ascontiguousarray(color.transpose(2, 0, 1))


def _is_deep_color(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":  # IHDR comes first: bit depth is byte 24, colour type byte 25, and 0 is gray
        return data[24] == 16 and data[25] != 0
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (1,))
        if not set(bits) <= {1, 2, 4, 8, 16, 32}:
            raise ValueError(f"{max(bits)} bits a sample, only 1, 2, 4, 8, 16 and 32 are supported")
        return len(bits) > 1 and max(bits) > 8
    return False


def _decode_deep_color(image: Image.Image, data: bytes, name: str) -> Pixels:
    """16 bits a channel, of which Pillow keeps 8."""
    try:
        import cv2
    except ImportError:
        raise DataError(
            f"{name} has 16 bits a channel, of which Pillow would keep 8. To read it whole: "
            "pip install logsnr[deep-color]"
        ) from None
    associated_alpha = getattr(image, "tag_v2", {}).get(_TIFF_EXTRA_SAMPLES, (0,))[0] == 1
    if image.mode not in ("RGB", "RGBA") or associated_alpha:
        raise ValueError("16 bits a channel are supported in gray, RGB and RGBA with unassociated alpha")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape[2:] not in ((3,), (4,)):
        raise ValueError("16 bits a channel, and OpenCV can't read it")
    pixels: Pixels = np.concatenate([decoded[..., 2::-1], decoded[..., 3:]], axis=2)  # BGR(A) to RGB(A)
    return _with_transparent_color(pixels, image) if pixels.shape[2] == 3 else pixels


def _decode_deep_gray(image: Image.Image) -> Pixels:
    values = np.asarray(image)[..., None]
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # in this form a NaN is refused too
            raise ValueError(
                f"floating-point values from {values.min():g} to {values.max():g}, only [0, 1] is supported"
            )
        return np.rint(values.astype(np.float64) * 65535).astype(np.uint16)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values from {values.min()} to {values.max()}, only [0, 65535] is supported")
    pixels = values.astype(np.uint16)
    if getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0:  # white is zero: Pillow inverts 8 bits only
        return 65535 - pixels
    return _with_transparent_color(pixels, image)


def _with_transparent_color(pixels: Pixels, image: Image.Image) -> Pixels:
    """Adds an alpha channel if the file (PNG, tRNS) names one colour as transparent."""
    color = image.info.get("transparency")
    if color is None:
        return pixels
    opaque = (pixels != np.asarray(color)).any(axis=2, keepdims=True)
    return np.concatenate([pixels, opaque.astype(np.uint16) * 65535], axis=2).astype(np.uint16)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes the eight EXIF orientations: 5 to 8 exchange rows and columns, then come the mirrors."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _luma(color: Pixels) -> Pixels:
    """ITU-R 601 in 16-bit fixed point: for 8 bits, exactly what Pillow's mode L holds."""
    weights = np.array([19595, 38470, 7471])
    gray: Pixels = ((color @ weights + 32768) >> 16)[..., None].astype(color.dtype)
    return gray


def _resize(
    color: Pixels, alpha: Pixels | None, resolution: int, box: tuple[int, int, int, int]
) -> tuple[Pixels, Pixels | None]:
    size, bicubic = (resolution, resolution), Image.Resampling.BICUBIC
    if alpha is None and color.dtype == np.uint8:  # all channels at once, the fast road for photographs
        image = Image.fromarray(color if color.shape[2] == 3 else color[..., 0])
        return np.asarray(image.resize(size, bicubic, box)).reshape(resolution, resolution, -1), None

    def planes(values: NDArray[Any]) -> NDArray[np.float64]:
        # Mode F holds every 16-bit value exactly.
        each = [Image.fromarray(values[..., c].astype(np.float32)) for c in range(values.shape[2])]
        return np.stack([np.asarray(p.resize(size, bicubic, box), np.float64) for p in each], axis=2)

    def rounded(values: NDArray[np.float64]) -> Pixels:
        return np.rint(values).clip(0, white).astype(color.dtype)  # bicubic overshoots at edges

    white = np.iinfo(color.dtype).max
    if alpha is None:
        return rounded(planes(color)), None
    opacity = planes(alpha)
    weighted = planes(color.astype(np.float64) * alpha)
    visible = opacity >= 0.5
    return rounded(np.where(visible, weighted / np.where(visible, opacity, 1), 0)), rounded(opacity)
