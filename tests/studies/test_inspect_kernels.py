"""`logsnr inspect schedule --kernels`: what survives of states, and where the others go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Finished
from PIL import Image

from logsnr.base.errors import ConfigError
from logsnr.media.state_plots import kernels_figure
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.studies.inspect_kernels import inspect_kernels


def test_survival_and_matrices_as_a_command(tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    command = ("inspect", "schedule", "even", "cosine", "linear", "--kernels", "absorbing", "uniform")
    end = logsnr(*command, "--out", tmp_path / "k.png")
    assert end.status == 0, end.output
    assert ["even", "1,000", "0.001", "100", "500", "900", "0.001"] in [
        line.split() for line in end.output.splitlines()
    ]
    assert "absorbing: the diagonal fades and the column of the mask fills." in end.output
    assert Image.open(tmp_path / "k.png").height > 1000
    refused = logsnr(*command, "--zero-terminal-snr")
    assert "--zero-terminal-snr is of numbers: with --kernels nothing survives anyway" in refused.message


def test_all_kernels_and_what_is_refused(tmp_path: Path) -> None:
    text = inspect_kernels(["cosine"], ["mask_and_replace", "gaussian"], out=tmp_path / "k.png")
    assert "gaussian: the diagonal becomes wider." in text
    for names, kernels, message in (
        ([], ["uniform"], "at least one schedule"),
        (["even"], ["uniform", "uniform"], "must be different ones, and are 'even uniform uniform'"),
        (["evn"], ["uniform"], "Did you mean even"),
    ):
        with pytest.raises(ConfigError, match=message):
            inspect_kernels(names, kernels, out=None)  # type: ignore[arg-type]


def test_what_is_drawn_is_what_there_is() -> None:
    schedule, t = TransitionScheduler("uniform", 3, 10), torch.tensor([2, 9])
    matrices = schedule.cumulative_matrix(t)
    figure = kernels_figure({"even": schedule}, {"uniform": list(matrices)}, ["one", "two"], {"uniform": "abc"})
    survival, log_snr, lost = figure.subfigs[0].axes
    assert np.array_equal(survival.lines[0].get_ydata(), schedule.alphas_cumprod.numpy())
    assert np.allclose(log_snr.lines[0].get_ydata(), schedule.log_snr(torch.arange(9)).numpy())
    assert np.allclose(lost.lines[0].get_ydata(), 1)  # of even, each step takes as much
    shown = [axes.images[0].get_array() for axes in figure.subfigs[1].axes if axes.images]
    assert np.array_equal(np.stack(shown[:2]), matrices.numpy())
    assert [axes.get_title() for axes in figure.subfigs[1].axes[:2]] == ["one", "two"]
