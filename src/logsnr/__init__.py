"""logsnr: train, sample and publish pixel-space diffusion models of your own images, on diffusers.

`logsnr.load(folder_or_repo)` is a trained model as a pipeline; the schedules are in
`logsnr.schedulers.scheduling_beta`, the pipeline in `logsnr.pipelines.pipeline_pixel`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logsnr.tasks.load import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch and diffusers take seconds to import; `import logsnr` alone, and `logsnr --help`, needn't wait for them
    if name == "load":
        from logsnr.tasks.load import load

        return load
    raise AttributeError(f"module 'logsnr' has no attribute {name!r}")
