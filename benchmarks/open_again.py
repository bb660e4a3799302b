"""Seconds and memory to open a large set of small images, for the first time and again.

    python benchmarks/open_again.py

makes 100,000 PNGs of 32x32 in ten sub-folders, which are classes, in a temporary folder, and opens them in processes of
their own, with a cache of their own: first with nothing in the cache; then again, when the files of the last two
seconds are hashed once more (see `logsnr.data.scan`); then as it is from then on; then with one file changed. Each line
is a whole process, imports included. On two cores of a server, one of them busy with something else:

    first               39.4 s, 36.3 s of processor, 2.2 s of imports, 255 MB at most
    again                4.9 s,  3.9 s of processor, 2.8 s of imports, 259 MB at most
    third                4.2 s,  3.4 s of processor, 2.3 s of imports, 259 MB at most
    after one change     6.8 s,  5.8 s of processor, 2.2 s of imports, 554 MB at most

(With three processes for each core "again" took 11.0 s.) What is wanted is "again" in under 10 s and 1 GB.
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
from logsnr.settings.image import DataConfig
imported = time.perf_counter() - begin
data = open_images(DataConfig(sys.argv[1], resolution=32, channels=3))
batch = next(data.batches(seed=0, batch_size=64, start_step=0, num_steps=1))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{time.process_time():.1f} s of processor, {imported:.1f} s of imports, {peak:.0f} MB at most")
print(f"    {data.fingerprint}: {data.description}")
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
