"""The networks that figures are made with, and the cache of what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from logsnr.base.errors import ConfigError
from logsnr.base.files import digest_of
from logsnr.data.images import ImageData, open_images
from logsnr.evaluation import classifier
from logsnr.evaluation.extractors import Features, as_rgb, features_of_data, features_of_images, make_extractor
from logsnr.folders.cache import cache_folder
from logsnr.settings.image import DataConfig


class Means:
    """A network of two features, the mean and the corner, that counts the images it is shown."""

    name, digest, resize = "means", "0", "none"
    shown = 0

    def __call__(self, images: torch.Tensor) -> Features:
        self.shown += len(images)
        return Features(torch.stack([images.mean((1, 2, 3)), images[:, 0, 0, 0]], 1), None)


def shades(folder: Path) -> tuple[ImageData, DataConfig]:
    config = DataConfig(source=str(folder), resolution=8, held_out_fraction=0.25)
    return open_images(config), config


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_folder()


def test_features_of_data_are_made_once_for_each_part(folder: Path, cache: Path) -> None:
    data, _ = shades(folder)
    means = Means()
    first = features_of_data(means, data, "train")
    images = torch.cat([batch.clean for batch in data.in_order("train", 7)]) / 2 + 0.5
    assert torch.allclose(first.features[:, 0], images.mean((1, 2, 3)))
    assert means.shown == len(data) == 30
    again = features_of_data(means, shades(folder)[0], "train")
    assert torch.equal(again.features, first.features)
    assert again.logits is None
    assert means.shown == 30
    assert len(features_of_data(means, data, "held_out").features) == 10
    assert means.shown == 40
    means.digest = "1"
    features_of_data(means, data, "train")
    assert means.shown == 70
    assert {path.parent for path in cache.rglob("*.*")} == {cache}
    assert not list(cache.glob(".*"))


def test_features_of_images_are_made_once_for_their_content(tmp_path: Path) -> None:
    means, images = Means(), torch.rand(300, 1, 4, 4)
    found = features_of_images(means, images, tmp_path)
    assert torch.allclose(found.features[:, 1], images[:, 0, 0, 0])
    features_of_images(means, images.clone(), tmp_path)
    assert means.shown == 300
    features_of_images(means, images + 1e-3, tmp_path)
    assert means.shown == 600


def test_gray_and_transparent_images_as_rgb() -> None:
    gray = torch.rand(2, 1, 3, 3)
    assert torch.equal(as_rgb(gray), gray.repeat(1, 3, 1, 1))
    color, alpha = torch.rand(2, 3, 3, 3), torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 3, 3)
    over_white = as_rgb(torch.cat([color, alpha], 1))
    assert torch.equal(over_white[0], torch.ones(3, 3, 3))
    assert torch.equal(over_white[1], color[1])
    assert torch.equal(as_rgb(color), color)


def test_digests_tell_parts_apart() -> None:
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc") != digest_of(b"abc")
    assert digest_of(b"ab", b"c") == digest_of(b"ab", b"c")


def test_an_unknown_network_is_named_with_those_that_are_known(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'inceptoin' is unknown. Did you mean inception\? Known: classifier, eff"):
        make_extractor("inceptoin", *shades(folder), "cpu")


# classifier


def test_classifier_learns_the_classes_once(folder: Path, cache: Path) -> None:
    data, config = shades(folder)
    made = make_extractor("classifier", data, config, "cpu")
    assert made.name.endswith("test accuracy 100.0% on 10 held-out images")
    found = features_of_data(made, data, "held_out")
    assert found.features.shape == (10, classifier.NUM_FEATURES)
    assert found.logits is not None
    labels = torch.cat([batch.condition["class_labels"] for batch in data.in_order("held_out", 4)])
    assert torch.equal(found.logits.argmax(1), labels)

    (kept,) = cache.glob("classifier-*")
    before = kept.stat().st_mtime_ns
    again = make_extractor("classifier", data, config, "cpu")
    assert (again.digest, again.name) == (made.digest, made.name)
    batch = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(batch).features, made(batch).features)
    assert kept.stat().st_mtime_ns == before


def test_classifier_of_a_model_without_classes_looks_at_the_labels_all_the_same(folder: Path, cache: Path) -> None:
    config = DataConfig(source=str(folder), resolution=8)
    assert make_extractor("classifier", open_images(config, labelled=False), config, "cpu").name.startswith("small CNN")


def test_classifier_that_knows_little_warns(folder: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="tested on fewer than 50 images .*Better: --features efficientnet-lite0"):
        make_extractor("classifier", *shades(folder), "cpu")
    rng = np.random.default_rng(0)
    for k in range(120):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "ab"[k % 2] / f"{k}.png")
    config = DataConfig(source=str(tmp_path), resolution=8, held_out_fraction=0.5)
    with pytest.warns(UserWarning, match="little better than always to name the most frequent class"):
        make_extractor("classifier", open_images(config), config, "cpu")


def test_classifier_needs_classes(folder: Path, cache: Path) -> None:
    config = DataConfig(source=str(folder / "dark"), resolution=8)
    with pytest.raises(ConfigError, match=r"needs labelled images, and .* has no classes. Use efficientnet-lite0"):
        make_extractor("classifier", open_images(config), config, "cpu")


@pytest.mark.parametrize(("resolution", "channels"), [(4, 1), (8, 4), (28, 1), (64, 3), (256, 3)])
def test_classifier_of_any_size(resolution: int, channels: int) -> None:
    network = classifier.SmallCNN(channels, resolution, 5).eval()
    images = torch.rand(2, channels, resolution, resolution)
    features, logits = network(images)
    assert features.shape == (2, classifier.NUM_FEATURES)
    assert logits.shape == (2, 5)
    maps = network.body(images)
    assert 4 <= maps.shape[-1] <= 14


# Networks in packages


def test_efficientnet_sees_gray_as_gray_rgb_and_needs_no_internet(folder: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra efficientnet isn't installed")
    network = make_extractor("efficientnet-lite0", *shades(folder), "cpu")
    gray = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = network(gray)
    assert found.features.shape == (2, 1280)
    assert found.logits is not None
    assert found.logits.shape == (2, 1000)
    assert torch.allclose(network(gray.repeat(1, 3, 1, 1)).features, found.features, atol=1e-5)
    assert network.digest == make_extractor("efficientnet-lite0", *shades(folder), "cpu").digest


def test_inception_without_its_package_says_what_to_install(folder: Path) -> None:
    try:
        import torch_fidelity  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r'torch_fidelity\): pip install "\.\[inception\]"'):
            make_extractor("inception", *shades(folder), "cpu")
    else:
        pytest.skip("torch-fidelity is installed")
