"""Pictures, the names of schedules, and what `logsnr inspect schedule` says. Figures are read."""

from __future__ import annotations

import sys
import uuid
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, features

from logsnr.base.errors import ConfigError
from logsnr.media.plots import (
    cell_size,
    columns_of,
    few_steps_figure,
    image_grid,
    labelled_grid,
    loss_by_log_snr_figure,
    readable,
    save_png,
    schedule_figure,
)
from logsnr.models.schedules import known_schedules, make_scheduler, resolve_scheduler_class
from logsnr.schedulers.scheduling_beta import BetaScheduler, CosineBetaScheduler, LinearBetaScheduler, ScheduleWarning
from logsnr.settings.schedule import ScheduleConfig
from logsnr.studies.inspect_schedule import inspect_schedules

OWN_MODULE = """
import torch
from logsnr.schedulers.scheduling_beta import BetaScheduler

class SquareBetaScheduler(BetaScheduler):
    @staticmethod
    def make_betas(num_train_timesteps, *, end=0.03):
        return torch.linspace(0.01, end**0.5, num_train_timesteps) ** 2

class WithoutBetas(BetaScheduler):
    pass

helper = 1
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory; its name is new, for modules stay imported."""
    return write_module(OWN_MODULE, tmp_path, monkeypatch)


def write_module(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{uuid.uuid4().hex}"
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the working directory is added to it
    return name


class TestImageGrid:
    def test_small_images_are_enlarged_without_blurring(self) -> None:
        images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        grid = image_grid(images, columns=3)
        assert grid.mode == "L"
        assert grid.size == (3 * (84 + 2) + 2, 2 * (84 + 2) + 2)
        cell = np.asarray(grid)[2 + 86 : 2 + 86 + 84, 2 : 2 + 84]  # second row, first column: image 3
        assert np.array_equal(cell[1::3, 1::3], (images[3, 0] * 255).round().byte().numpy())

    def test_large_images_keep_their_size(self) -> None:
        grid = image_grid(torch.zeros(1, 3, 100, 70))
        assert (grid.mode, grid.size) == ("RGB", (70 + 4, 100 + 4))

    def test_opaque_pixels_hide_the_checkerboard_and_transparent_ones_show_it(self) -> None:
        images = torch.zeros(1, 4, 64, 64)
        images[:, 0] = 1
        images[:, 3, :, :32] = 1
        cell = np.asarray(image_grid(images))[2:66, 2:66]
        assert (cell[:, :32] == [255, 0, 0]).all()
        behind = cell[:, 32:]
        assert (behind == behind[..., :1]).all(), "invisible red shows"
        assert len(np.unique(behind)) == 2

    def test_pil_images_and_values_out_of_range(self) -> None:
        assert image_grid([Image.new("RGB", (64, 64), "red")] * 3).getpixel((10, 10)) == (255, 0, 0)
        assert image_grid(torch.tensor([-0.5, 1.5]).view(2, 1, 1, 1)).getpixel((66 + 10, 10)) == 255

    @pytest.mark.parametrize(
        ("images", "columns", "message"),
        [
            (torch.zeros(2, 2, 8, 8), None, "1, 3 or 4 channels"),
            (torch.zeros(8, 8), None, "must have shape"),
            ([], None, "at least one image"),
            ([Image.new("L", (8, 8)), Image.new("L", (8, 9))], None, "8x8, 8x9"),
            (torch.zeros(1, 1, 8, 8), 0, "`columns` must be at least 1"),
        ],
    )
    def test_what_can_not_be_a_grid_is_named(self, images: torch.Tensor, columns: int | None, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            image_grid(images, columns)


class TestLabelledGrid:
    def test_labels_stand_beside_and_above_the_grid_which_is_unchanged(self) -> None:
        rng = np.random.default_rng(0)
        rows = [[Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)) for _ in range(3)] for _ in range(2)]
        grid = image_grid([image for row in rows for image in row], columns=3)
        for above in ((), ("a", "b", "c")):
            picture = labelled_grid(rows, ["first", "second"], above)
            left, top = picture.width - grid.width, picture.height - grid.height
            assert picture.crop((left, top, picture.width, picture.height)).tobytes() == grid.tobytes()
            assert (top > 0) == bool(above)
            cell = cell_size((8, 8))
            pixels = np.asarray(picture.convert("L"))
            for k in range(2):  # each row has its word, in its own height, and it doesn't touch the edge
                begin = top + k * (cell.height + cell.padding)
                beside = pixels[begin : begin + cell.height, :left]
                assert beside.min() < 100
                assert beside[:, 0].min() == 255
            if above:
                assert pixels[:top, left:].min() < 100

    def test_words_that_the_font_lacks_are_numbers(self) -> None:
        labels = ["cat", "猫", "caf\u00e9", "cafe\u0301", "кот", "한국", "🫠", "x猫"]
        assert readable(labels) == ["cat", "1", "café", "café", "кот", "5", "6", "7"]
        assert readable(["قط", "חתול"]) == (["قط", "חתול"] if features.check("raqm") else ["0", "1"])
        assert readable([]) == []
        images = [[Image.new("L", (8, 8))]] * 2
        assert labelled_grid(images, ["cat", "猫"]).tobytes() == labelled_grid(images, ["cat", "1"]).tobytes()

    def test_a_long_label_is_cut_short(self) -> None:
        image = [[Image.new("L", (8, 8))]]
        assert labelled_grid(image, ["w" * 200]).width < labelled_grid(image, ["w" * 24]).width + 40


class TestFigures:
    def test_schedules_are_drawn_as_they_are(self) -> None:
        schedulers = {"cosine": CosineBetaScheduler(), "mine": LinearBetaScheduler(100)}
        log_snr, alpha_bar, beta = schedule_figure(schedulers).axes
        assert beta.get_yscale() == "log"
        for axes, values in ((log_snr, "log_snr"), (alpha_bar, "alphas_cumprod"), (beta, "betas")):
            assert axes.get_xlabel()
            assert axes.get_ylabel()
            drawn = {line.get_label(): line for line in axes.lines if line.get_label() in schedulers}
            for name, scheduler in schedulers.items():
                of_scheduler = getattr(scheduler, values)
                expected = of_scheduler(torch.arange(len(scheduler))) if values == "log_snr" else of_scheduler
                assert np.array_equal(drawn[name].get_ydata(), expected.numpy())
                assert drawn[name].get_xdata()[-1] == 1

    def test_zero_terminal_snr_is_marked_and_stays_on_the_axis(self) -> None:
        zero = CosineBetaScheduler(prediction_type="v_prediction", zero_terminal_snr=True)
        axes = schedule_figure({"zero": zero, "cosine": CosineBetaScheduler()}).axes[0]
        low, high = axes.get_ylim()
        drawn = next(line for line in axes.lines if line.get_label() == "zero").get_ydata()
        assert np.isfinite([low, high, *drawn]).all()
        assert drawn[-1] == low
        assert [text.get_text() for text in axes.texts] == ["zero terminal SNR (λ → −∞):\nzero"]
        assert not schedule_figure({"cosine": CosineBetaScheduler()}).axes[0].texts

    def test_a_schedule_has_its_color_whatever_stands_beside_it(self) -> None:
        def colors(*names: str) -> dict[str, str]:
            figure = schedule_figure({name: CosineBetaScheduler(10) for name in names})
            return {line.get_label(): line.get_color() for line in figure.axes[1].lines}

        both = colors("mine", "other", "sigmoid", "cosine")
        assert len(set(both.values())) == 4
        assert colors("cosine")["cosine"] == both["cosine"]
        assert colors("sigmoid", "mine")["sigmoid"] == both["sigmoid"]

    def test_losses_are_steps_over_their_bins_and_empty_bins_are_left_out(self) -> None:
        figure = loss_by_log_snr_figure([-10, -5, 0, 10], {"a": [0.3, float("nan"), 0.1], "b": [0.2, 0.2, 0.2]})
        (axes,) = figure.axes
        values, edges, _ = axes.patches[0].get_data()
        assert edges.tolist() == [-10, -5, 0, 10]
        assert np.array_equal(values, [0.3, np.nan, 0.1], equal_nan=True)
        assert axes.get_ylim() == pytest.approx((0, 0.3 * 1.08))
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]

    def test_few_steps_have_a_panel_for_each_guidance_and_ours_is_bold(self) -> None:
        lines = {"ours": {4: 0.02, 8: 0.01}, "stock": {4: 0.2, 6: 0.15, 8: 0.1}}
        figure = few_steps_figure({"guidance 1": lines, "guidance 2": lines})
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["guidance 1", "guidance 2"]
        for axes in figure.axes:
            assert axes.get_yscale() == "log"
            ours, stock = axes.lines
            assert (ours.get_xdata().tolist(), ours.get_ydata().tolist()) == ([4, 8], [0.02, 0.01])
            assert stock.get_xdata().tolist() == [4, 6, 8]
            assert ours.get_linewidth() > stock.get_linewidth()
            assert axes.get_xticks().tolist() == [4, 6, 8]

    def test_all_bins_empty(self, tmp_path: Path) -> None:
        save_png(loss_by_log_snr_figure([0, 1], {"a": [float("nan")]}), tmp_path / "empty.png")

    @pytest.mark.parametrize(
        ("edges", "curves", "message"),
        [
            ([0], {"a": []}, "ascending"),
            ([1, 0], {"a": [1]}, "ascending"),
            ([0, 1], {"a": [1, 2]}, "1 bins"),
            ([0, 1], {}, "empty"),
        ],
    )
    def test_losses_that_do_not_fit_their_bins(
        self, edges: list[float], curves: dict[str, list[float]], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            loss_by_log_snr_figure(edges, curves)


class TestSavePng:
    @pytest.mark.parametrize("picture", [Image.new("L", (9, 7)), Figure(figsize=(1, 1))])
    def test_writes_a_png_and_nothing_else(self, picture: Figure | Image.Image, tmp_path: Path) -> None:
        path = save_png(picture, tmp_path / "new" / "picture.png")
        assert Image.open(path).format == "PNG"
        assert [p.name for p in path.parent.iterdir()] == ["picture.png"]

    def test_a_failure_keeps_the_old_picture(self, tmp_path: Path) -> None:
        path = save_png(Image.new("L", (9, 7)), tmp_path / "picture.png")
        old = path.read_bytes()
        with pytest.raises(OSError, match="mode"):  # PNG has no such mode, which shows while writing
            save_png(Image.new("LAB", (2, 2)), path)
        assert path.read_bytes() == old
        assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


class TestRegistry:
    def test_every_known_name_is_a_schedule(self) -> None:
        assert {"linear", "cosine", "constant", "sigmoid", "laplace"} <= set(known_schedules())
        for name in known_schedules():
            assert issubclass(resolve_scheduler_class(name), BetaScheduler)

    def test_a_configuration_reaches_the_scheduler(self) -> None:
        config = ScheduleConfig("linear", 50, "sample", True, -1.0, False, {"beta_end": 0.3})
        made = make_scheduler(config)
        expected = LinearBetaScheduler(
            50, prediction_type="sample", zero_terminal_snr=True, shift=-1.0, clip_sample=False, beta_end=0.3
        )
        assert made.config == expected.config

    def test_own_class_in_the_working_directory(self, own_module: str) -> None:
        made = make_scheduler(ScheduleConfig(f"{own_module}:SquareBetaScheduler", options={"end": 0.04}))
        assert float(made.betas[-1]) == pytest.approx(0.04)

    def test_a_schedule_that_does_not_do_its_job_warns(self) -> None:
        with pytest.warns(ScheduleWarning, match="terminal SNR"):
            make_scheduler(ScheduleConfig("constant", options={"beta_min": 1e-4}))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("Cosin", r"Did you mean cosine\? Known: constant, cosine"),
            ("", "unknown"),
            (":", "form package.module:Class"),
            ("schedules/mine.py:Mine", "no .py"),
            ("nowhere_at_all.sub:Mine", "no module 'nowhere_at_all'"),
            ("{own}:squarebetascheduler", "Did you mean SquareBetaScheduler"),
            ("{own}:helper", "must be a subclass of BetaScheduler"),
            ("{own}:WithoutBetas", "has its own make_betas"),
            ("{own}:BetaScheduler", "has its own make_betas"),
        ],
    )
    def test_names_that_are_no_schedule(self, own_module: str, name: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            resolve_scheduler_class(name.format(own=own_module))

    @pytest.mark.parametrize("text", ["1 / 0", "import nowhere_at_all", "def f(:", "from os import nowhere_at_all"])
    def test_modules_that_raise_on_import(self, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        name = write_module(text, tmp_path, monkeypatch)
        with pytest.raises(ConfigError, match=f"{name}.* raises on import"):
            resolve_scheduler_class(f"{name}:Mine")

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("linear", {"beta_ends": 0.1}, "Did you mean beta_end"),
            ("cosine", {"shift": 1.0}, "Options: none"),  # the constructor has it, the formula doesn't
            ("sigmoid", {"tau": -1.0}, "`tau` above 0"),
        ],
    )
    def test_options_that_are_refused(self, name: str, options: dict[str, float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            make_scheduler(ScheduleConfig(name, options=options))


class TestInspect:
    def test_says_what_holds_and_draws(self, tmp_path: Path) -> None:
        text = inspect_schedules(["linear", "cosine"], out=tmp_path / "schedules.png")
        assert text.count(" ok") == 6
        assert "FAILS" not in text
        assert Image.open(tmp_path / "schedules.png").format == "PNG"

    def test_a_failed_check_is_told_with_its_cure_and_neither_raises_nor_warns(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            text = inspect_schedules(["constant", "cosine"], options={}, shift=12.0, out=tmp_path / "s.png")
        assert "FAILS for constant" in text
        assert " ".join(text.split()).count("use zero_terminal_snr=True") == 1

    def test_zero_terminal_snr(self, tmp_path: Path) -> None:
        first, _, row = inspect_schedules(["cosine"], zero_terminal_snr=True, out=None).splitlines()[:3]
        assert row.split() == ["cosine", "1,000", "10.09", "-inf", "0", "0.00643"]
        assert len(first) == len(row)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("names", "out", "message"),
        [([], "a.png", "at least one"), (["cosine"], "a.pdf", "ends in .png"), (["cosines"], "a.png", "Did you mean")],
    )
    def test_refuses(self, names: list[str], out: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=message):
            inspect_schedules(names, out=tmp_path / out)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("num", "turn", "columns"),
    [(64, 10, 10), (12, 3, 3), (64, 3, 9), (16, 2, 4), (64, 1, None), (64, 0, None), (64, 100, None)],
)
def test_each_class_has_its_columns_where_they_are_not_too_many(num: int, turn: int, columns: int | None) -> None:
    assert columns_of(num, turn) == columns
