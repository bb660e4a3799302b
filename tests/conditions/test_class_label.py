"""Classes as conditions: what is refused, for it would be lost in silence or stumbled on by the network alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from logsnr.conditions.class_label import ClassLabel
from logsnr.conditions.conditioner import Conditioner, Unconditioned
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoiser
from logsnr.objectives.weighted import WeightedObjective
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 7, 3])


class Zero(torch.nn.Module):
    """Takes any condition, and looks at none."""

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool, **condition: Any) -> tuple[Tensor]:
        return (torch.zeros_like(sample),)


def loss(conditioner: Conditioner | None, condition: dict[str, Tensor]) -> Tensor:
    schedule = CosineBetaScheduler()
    batch = Batch(torch.zeros(3, 2), condition, torch.arange(3))
    return WeightedObjective(schedule).loss(Denoiser(Zero(), schedule, conditioner), batch)


def test_training_refuses_a_condition_that_nobody_looks_at() -> None:
    with pytest.raises(ValueError, match=r"has the condition 'class_labels', and the denoiser knows of no conditions"):
        loss(None, {"class_labels": LABELS})
    for condition in ({"labels": LABELS}, {"class_labels": LABELS, "labels": LABELS}):
        with pytest.raises(ValueError, match=r"has the condition 'labels', .* knows 'class_labels' alone\."):
            loss(ClassLabel(8), condition)
    with pytest.raises(ValueError, match=r"'class_label', .* Did you mean class_labels\?"):
        loss(ClassLabel(8), {"class_label": LABELS})


def test_training_refuses_no_condition_where_there_are_classes() -> None:
    with pytest.raises(ValueError, match=r"has no condition, and .* ClassLabel\(8\), knows 'class_labels'"):
        loss(ClassLabel(8), {})
    assert ClassLabel(8).encode({}, CPU) == {}  # what is measured or drawn may be of no class


def test_what_fits_is_taken() -> None:
    assert loss(ClassLabel(8), {"class_labels": LABELS}).isfinite()
    assert loss(ClassLabel(8, "kind"), {"kind": LABELS.int()}).isfinite()
    assert loss(None, {}).isfinite()
    assert Unconditioned().encode({}, CPU) == {}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 1, r"must be classes from 0 to 7, as ClassLabel\(8\) says, and has 1 to 8\."),
        (LABELS - 1, r"must be classes from 0 to 7, .* has -1 to 6"),
        (LABELS.float(), r"must be int64, \(batch,\), and is torch.float32, \(3,\)"),
        (LABELS[:, None], r"must be int64, \(batch,\), and is torch.int64, \(3, 1\)"),
    ],
)
def test_labels_are_classes(labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(ClassLabel(8), {"class_labels": labels})
