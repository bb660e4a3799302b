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
import struct
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from logsnr.base.errors import DataError

Pixels = NDArray[Any]
"""uint8 or uint16, (height, width, channels): 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_EXIF_ORIENTATION = 274
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES, _TIFF_EXTRA_SAMPLES = 258, 262, 277, 338


_PNG = b"\x89PNG\r\n\x1a\n"
_ASIDE = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG that say nothing of its pixels as they are used here. Pillow refuses a file whose are large."""
_SIGNATURES = (
    (_PNG, "a damaged PNG"),
    (b"\xff\xd8\xff", "a damaged JPEG"),
    (b"GIF8", "a damaged GIF"),
    (b"BM", "a damaged BMP"),
    (b"RIFF", "a damaged WebP"),
    (b"%PDF", "a PDF"),
    (b"\x93NUMPY", "an array of numpy"),
    (b"8BPS", "a file of Photoshop"),
    (b"PK\x03\x04", "an archive (zip)"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (b"version https://git-lfs", "a pointer of Git LFS: `git lfs pull` fetches the image"),
)
"""How files begin, and what those are that can't be opened."""


class Decoded(NamedTuple):
    """What an image file holds."""

    pixels: Pixels
    several: bool
    """Whether there are further pages or frames, which aren't in `pixels`."""


def decode(data: bytes, name: str) -> Decoded:
    """The pixels of an image file in their own depth, turned upright by the EXIF orientation.

    Of several pages or frames, the first. Gray TIFFs of 32-bit whole numbers are taken as 16-bit where they lie within
    [0, 65535], floating-point ones where they lie within [0, 1] (rounded to 16 bits); others are refused. Profiles,
    texts and damaged EXIF data don't matter.

    Raises `DataError` if the file needs OpenCV and it isn't installed, and whatever Pillow raises (`OSError`,
    `SyntaxError`, `ValueError`, `struct.error`, ...) if the file is damaged or of a kind that isn't supported.
    """
    if not data:
        raise ValueError("empty file")
    data = _without_asides(data)
    try:
        with warnings.catch_warnings():  # of half as many pixels as are refused
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(_unidentified(data)) from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ValueError(f"more than {most:.0f} million pixels: save it smaller, or cut it into pieces") from None
    with opened as image:
        several = image.format in ("PNG", "WEBP", "TIFF", "GIF") and bool(getattr(image, "is_animated", False))
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
        orientation = _orientation(image)
    return Decoded(_upright(pixels.reshape(*pixels.shape[:2], -1), orientation), several)


def fit(pixels: Pixels, resolution: int, channels: int) -> Pixels:
    """Pixels of any size and kind -> (channels, resolution, resolution) in the same depth.

    The short side is resized to `resolution` and the centre cut out. The filter is Pillow's bicubic, which widens
    its support when it shrinks and so doesn't alias (Parmar et al., "On aliased resizing", CVPR 2022). Images whose
    short side has the right length are cropped only, bit for bit. With 1 or 3 channels alpha is laid over white.
    """
    white = np.iinfo(pixels.dtype).max
    color, alpha = (pixels, None) if pixels.shape[2] in (1, 3) else (pixels[..., :-1], pixels[..., -1:])
    if alpha is not None and channels != 4:
        color, alpha = _over_white(color, alpha), None
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


def _without_asides(data: bytes) -> bytes:
    """A PNG without its `_ASIDE`; any other file as it is."""
    if not data.startswith(_PNG):
        return data
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] not in _ASIDE:
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join([*kept, data[at:]])


def _unidentified(data: bytes) -> str:
    """What a file is that Pillow can't open, as far as its first bytes say so."""
    if data[:4] in (b"II*\0", b"MM\0*"):
        try:
            directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
            file = io.BytesIO(data)
            file.seek(directory.next)
            directory.load(file)
            channels, bits = directory[_TIFF_SAMPLES], max(directory[_TIFF_BITS_PER_SAMPLE])
        except Exception:  # whatever a damaged directory brings about
            return "a damaged TIFF"
        return (
            f"a TIFF of {channels} channels, {bits} bits each: 1 (gray), 3 (RGB) and 4 (RGBA) channels of 8 or 16 bits "
            "are supported. Save the channels that you want as such"
        )
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file, which isn't supported: save it as PNG or JPEG"
    if data.lstrip()[:1] == b"<":
        return "a page of a web site or an SVG, not an image of pixels"
    return next(
        (f"{what}, which can't be opened" for begin, what in _SIGNATURES if data.startswith(begin)), "not an image"
    )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # EXIF data are written by many hands, and the pixels are there all the same
        return 1


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


def _over_white(color: Pixels, alpha: Pixels) -> Pixels:
    """Colour seen with that opacity before white. One channel at a time, in 32 bits, which are just enough."""
    white = int(np.iinfo(color.dtype).max)
    seen, opacity = np.empty_like(color), alpha[..., 0].astype(np.uint32)
    for c in range(color.shape[2]):
        plane = color[..., c] * opacity
        plane += white * (white - opacity) + white // 2
        seen[..., c] = plane // white
    return seen


def _luma(color: Pixels) -> Pixels:
    """ITU-R 601 in 16-bit fixed point: for 8 bits, exactly what Pillow's mode L holds. (32 bits are just enough.)"""
    gray = np.full(color.shape[:2], 32768, np.uint32)
    for c, weight in enumerate((19595, 38470, 7471)):
        gray += color[..., c] * np.uint32(weight)
    return (gray >> 16)[..., None].astype(color.dtype)


def _resize(
    color: Pixels, alpha: Pixels | None, resolution: int, box: tuple[int, int, int, int]
) -> tuple[Pixels, Pixels | None]:
    size, bicubic = (resolution, resolution), Image.Resampling.BICUBIC
    if alpha is None and color.dtype == np.uint8:  # all channels at once, the fast road for photographs
        image = Image.fromarray(color if color.shape[2] == 3 else color[..., 0])
        return np.asarray(image.resize(size, bicubic, box)).reshape(resolution, resolution, -1), None

    def plane(values: NDArray[Any]) -> NDArray[np.float64]:
        # Mode F holds every 16-bit value exactly.
        image = Image.fromarray(values.astype(np.float32))
        return np.asarray(image.resize(size, bicubic, box), np.float64)

    def rounded(values: NDArray[np.float64]) -> Pixels:
        return np.rint(values).clip(0, white).astype(color.dtype)  # bicubic overshoots at edges

    white, channels = np.iinfo(color.dtype).max, range(color.shape[2])
    if alpha is None:
        return np.stack([rounded(plane(color[..., c])) for c in channels], axis=2), None
    opacity = plane(alpha[..., 0])
    visible = opacity >= 0.5
    divisor = np.where(visible, opacity, 1)
    shown = [plane(color[..., c].astype(np.float64) * alpha[..., 0]) / divisor for c in channels]
    return rounded(np.where(visible[..., None], np.stack(shown, axis=2), 0)), rounded(opacity)[..., None]
