"""Repair on a card: whether a model can, and the figures of `logsnr evaluate --restore` as a table."""

from __future__ import annotations

from typing import Any

from diffusers.models.unets.unet_2d import UNet2DModel

from logsnr.publishing.markdown import prose
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler

_WHO = {"model": "this model", "gaussian": "Gaussian"}


def can_repair(pipeline: Any) -> bool:
    """Whether the model is one of images, and predicts the mean of what is possible: one that is distilled doesn't."""
    network = getattr(pipeline, "unet", None)
    return isinstance(network, UNet2DModel) and not isinstance(pipeline.scheduler, ConsistencyScheduler)


def repair_figures(metrics: dict[str, Any]) -> list[list[str]]:
    """Rows of a table, three for each damage: this model, the Gaussian where there is one, and no model."""
    rows = []
    for damage, found in metrics.get("restoration", {}).items():
        for who, name in _WHO.items():
            if who in found:
                rows.append([prose(damage), name, *_values(found[who])])
        plain = found["plain"]
        alone = [f"{plain[key]['value']:.{digits}f}" for key, digits in (("psnr", 2), ("ssim", 3))]
        rows.append([prose(damage), prose(plain["name"]), *alone, f"{plain['feature_distance']['value']:.3f}", ""])
    return rows


def repair_protocols(metrics: dict[str, Any]) -> list[str]:
    """How the figures of each damage came about."""
    return [
        f"{prose(damage)}: {prose(found['protocol']['images'])}; {prose(found['protocol']['method'])}; seed "
        f"{found['protocol']['seed']}; features: {prose(found['protocol']['features'])}.{_of_method(found)}"
        for damage, found in metrics.get("restoration", {}).items()
    ]


def _values(found: dict[str, Any]) -> list[str]:
    both = [
        " / ".join(f"{found[part][key]['value']:.{digits}f}" for part in ("mean", "draw"))
        for key, digits in (("psnr", 2), ("ssim", 3))
    ]
    return [*both, f"{found['feature_distance']['value']:.3f}", _covered(found)]


def _of_method(found: dict[str, Any]) -> str:
    """What of the coverage isn't the network's."""
    said = _covered(found["method"]) if "method" in found else ""
    return f" Coverage of the method on images of a Gaussian, whose network is exact: {said}." if said else ""


def _covered(found: dict[str, Any]) -> str:
    covered = [each for each in found["coverage"].values() if each is not None]
    said = " / ".join(f"{100 * each['value']:.1f} ± {100 * each['standard_error']:.1f} %" for each in covered)
    return f"{said} ({100 * covered[0]['nominal']:.0f} %)" if covered else ""
