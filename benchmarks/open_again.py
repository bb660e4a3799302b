"""Seconds and memory to open a large set of small images, for the first time and again.

    python benchmarks/open_again.py

makes 100,000 PNGs of 32x32 in ten sub-folders, which are classes, in a temporary folder, and opens them in processes of
their own, with a cache of their own: first with nothing in the cache; then again, when the files of the last two
seconds are hashed once more (see `logsnr.data.scan`); then as it is from then on; then with one file changed. Each line
is a whole process, imports included.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, CLASSES, SIDE = 100_000, 10, 32

OPEN = """
import resource, sys, time
begin = time.perf_counter()
from logsnr.data.images import open_images
imported = time.perf_counter() - begin
data = open_images(DataConfig(sys.argv[1], resolution=32, channels=3))
batch = next(data.batches(seed=0, batch_size=64, start_step=0, num_steps=1))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{imported:.1f} s of imports, {peak:.0f} MB, fingerprint {data.fingerprint}, {data.description}")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        make(root)
        environment = os.environ | {"XDG_CACHE_HOME": str(Path(folder, "cache"))}
        for title in ("first", "again", "third", "after one change"):
            if title == "after one change":
                (root / "0" / "00000.png").write_bytes(encoded(np.zeros((SIDE, SIDE, 3), np.uint8)))
            begin = time.perf_counter()
            command = [sys.executable, "-c", OPEN, str(root)]
            end = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            print(f"{title}: {time.perf_counter() - begin:.1f} s, {end.stdout.strip()}", flush=True)


def make(root: Path) -> None:
    """Smooth pictures with a little noise, as compressible as photographs."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True)
    for k in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse, np.int16) + rng.integers(-8, 8, (SIDE, SIDE, 3))
        (root / str(k % CLASSES) / f"{k:05}.png").write_bytes(encoded(pixels.clip(0, 255).astype(np.uint8)))


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
