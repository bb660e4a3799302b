"""The figures of `logsnr evaluate` against torch-fidelity's on the same features.

    python benchmarks/against_torch_fidelity.py RUN/evaluation/features-….safetensors CACHE/features-….safetensors

The first file holds the features of generated images and the second those of real ones, as an evaluation leaves them;
CACHE is `~/.cache/logsnr`. It needs an environment of its own with torch-fidelity and the torchvision it brings:

    python -m venv fidelity && fidelity/bin/pip install . torch-fidelity

A torchvision that doesn't fit the torch at hand is enough: the operators that it lacks are declared first, and nothing
here calls them. Prints each figure twice, with the relative difference.
"""

import contextlib
import sys
import warnings

import torch
from safetensors.torch import load_file

library = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    with contextlib.suppress(RuntimeError):  # a torchvision that fits has them
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402

from logsnr.evaluation.distances import measure  # noqa: E402
from logsnr.evaluation.extractors import Features  # noqa: E402


def main() -> None:
    generated, real = (load_file(path) for path in sys.argv[1:3])
    n = min(len(generated["features"]), len(real["features"]))
    order = torch.randperm(len(real["features"]), generator=torch.Generator().manual_seed(0))
    real = {name: tensor[order][:n] for name, tensor in real.items()}  # the same number: theirs needs it
    generated = {name: tensor[:n] for name, tensor in generated.items()}
    ours = measure(*(Features(each["features"], each.get("logits")) for each in (generated, real)))
    x, y = generated["features"].double(), real["features"].double()
    precision_recall = prc_features_to_metric(x, y, verbose=False)
    statistics = (fid_features_to_statistics(x), fid_features_to_statistics(y))
    theirs = {
        "fid": fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"],
        "kid": kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=n, verbose=False)[
            "kernel_inception_distance_mean"
        ],
        "precision": precision_recall["precision"],
        "recall": precision_recall["recall"],
    }
    if "logits" in generated:
        theirs["inception_score"] = isc_features_to_metric(generated["logits"])["inception_score_mean"]
    print(f"{n} and {n} images, {x.shape[1]} features")
    for name, value in theirs.items():
        mine = getattr(ours, name)
        print(f"{name:16} {mine:.10g}  torch-fidelity {value:.10g}  relative difference {abs(mine / value - 1):.1e}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
