"""logsnr: train, sample and publish diffusion models of your own data, on Hugging Face diffusers.

    import logsnr

    logsnr.train(logsnr.presets()["mnist"].config, "runs/mnist")  # called again it resumes
    pipe = logsnr.load("runs/mnist")  # or a model folder, or a repo of the Hub
    images = logsnr.sample(pipe, logsnr.SampleOptions(num=16))
    logsnr.evaluate("runs/mnist", logsnr.EvaluateOptions())

A network and data of your own need no run folder: an objective, made of a noise schedule, is the loss of a `Batch`, and
a `Denoiser` is the network under that schedule; see docs/your_own_network.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, what `_HOMES` is at run time
    from logsnr.base.errors import CheckpointError as CheckpointError
    from logsnr.base.errors import ConfigError as ConfigError
    from logsnr.base.errors import DataError as DataError
    from logsnr.base.errors import LogsnrError as LogsnrError
    from logsnr.base.errors import ModelError as ModelError
    from logsnr.base.errors import TrainingError as TrainingError
    from logsnr.conditions.class_label import ClassLabel as ClassLabel
    from logsnr.conditions.conditioner import Conditioner as Conditioner
    from logsnr.conditions.conditioner import Unconditioned as Unconditioned
    from logsnr.data.arrays import ArrayExamples as ArrayExamples
    from logsnr.data.seeded import Batch as Batch
    from logsnr.data.seeded import Example as Example
    from logsnr.data.seeded import Examples as Examples
    from logsnr.data.seeded import SeededData as SeededData
    from logsnr.evaluation.report import evaluate as evaluate
    from logsnr.models.denoiser import Denoiser as Denoiser
    from logsnr.models.denoiser import Guided as Guided
    from logsnr.models.denoiser import Prediction as Prediction
    from logsnr.models.states import StateDenoiser as StateDenoiser
    from logsnr.objectives.consistency import ConsistencyObjective as ConsistencyObjective
    from logsnr.objectives.cross_entropy import CrossEntropyObjective as CrossEntropyObjective
    from logsnr.objectives.hybrid import HybridObjective as HybridObjective
    from logsnr.objectives.learned_schedule import LearnedScheduleObjective as LearnedScheduleObjective
    from logsnr.objectives.objective import Context as Context
    from logsnr.objectives.objective import Objective as Objective
    from logsnr.objectives.transition_bound import TransitionBoundObjective as TransitionBoundObjective
    from logsnr.objectives.vlb import VlbObjective as VlbObjective
    from logsnr.objectives.weighted import WeightedObjective as WeightedObjective
    from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline as PixelDiffusionPipeline
    from logsnr.pipelines.pipeline_restoration import RestorationOutput as RestorationOutput
    from logsnr.pipelines.pipeline_restoration import RestorationPipeline as RestorationPipeline
    from logsnr.pipelines.pipeline_text import TextPipeline as TextPipeline
    from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline as TextToImagePipeline
    from logsnr.sampling.sample import sample as sample
    from logsnr.schedulers.scheduling_beta import BetaScheduler as BetaScheduler
    from logsnr.schedulers.scheduling_beta import ConstantBetaScheduler as ConstantBetaScheduler
    from logsnr.schedulers.scheduling_beta import CosineBetaScheduler as CosineBetaScheduler
    from logsnr.schedulers.scheduling_beta import EvenBetaScheduler as EvenBetaScheduler
    from logsnr.schedulers.scheduling_beta import LaplaceBetaScheduler as LaplaceBetaScheduler
    from logsnr.schedulers.scheduling_beta import LearnedBetaScheduler as LearnedBetaScheduler
    from logsnr.schedulers.scheduling_beta import LinearBetaScheduler as LinearBetaScheduler
    from logsnr.schedulers.scheduling_beta import SigmoidBetaScheduler as SigmoidBetaScheduler
    from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler as ConsistencyScheduler
    from logsnr.schedulers.scheduling_few_step import FewStepScheduler as FewStepScheduler
    from logsnr.schedulers.scheduling_transition import TransitionScheduler as TransitionScheduler
    from logsnr.settings.condition import ClassLabelConfig as ClassLabelConfig
    from logsnr.settings.condition import NoConditionConfig as NoConditionConfig
    from logsnr.settings.image import DataConfig as DataConfig
    from logsnr.settings.image import ModelConfig as ModelConfig
    from logsnr.settings.objective import ConsistencyConfig as ConsistencyConfig
    from logsnr.settings.objective import CrossEntropyConfig as CrossEntropyConfig
    from logsnr.settings.objective import EdmWeighting as EdmWeighting
    from logsnr.settings.objective import ElboWeighting as ElboWeighting
    from logsnr.settings.objective import HybridConfig as HybridConfig
    from logsnr.settings.objective import MinSnrWeighting as MinSnrWeighting
    from logsnr.settings.objective import P2Weighting as P2Weighting
    from logsnr.settings.objective import SigmoidWeighting as SigmoidWeighting
    from logsnr.settings.objective import SimpleWeighting as SimpleWeighting
    from logsnr.settings.objective import SnrWeighting as SnrWeighting
    from logsnr.settings.objective import TransitionBoundConfig as TransitionBoundConfig
    from logsnr.settings.objective import TruncatedSnrWeighting as TruncatedSnrWeighting
    from logsnr.settings.objective import VlbConfig as VlbConfig
    from logsnr.settings.objective import WeightedConfig as WeightedConfig
    from logsnr.settings.options import EvaluateOptions as EvaluateOptions
    from logsnr.settings.options import SampleOptions as SampleOptions
    from logsnr.settings.presets import Preset as Preset
    from logsnr.settings.presets import presets as presets
    from logsnr.settings.run import RunConfig as RunConfig
    from logsnr.settings.run import TrainConfig as TrainConfig
    from logsnr.settings.schedule import LearnedSchedule as LearnedSchedule
    from logsnr.settings.schedule import ScheduleConfig as ScheduleConfig
    from logsnr.settings.schedule import TransitionConfig as TransitionConfig
    from logsnr.settings.text import TextDataConfig as TextDataConfig
    from logsnr.settings.text import TextModelConfig as TextModelConfig
    from logsnr.tasks.load import load as load
    from logsnr.tasks.task import Task as Task
    from logsnr.tasks.task import open_task as open_task
    from logsnr.training.train import TrainResult as TrainResult
    from logsnr.training.train import train as train

__version__ = "0.1.0"

_HOMES = {
    "logsnr.base.errors": ("CheckpointError", "ConfigError", "DataError", "LogsnrError", "ModelError", "TrainingError"),
    "logsnr.conditions.class_label": ("ClassLabel",),
    "logsnr.conditions.conditioner": ("Conditioner", "Unconditioned"),
    "logsnr.data.arrays": ("ArrayExamples",),
    "logsnr.data.seeded": ("Batch", "Example", "Examples", "SeededData"),
    "logsnr.evaluation.report": ("evaluate",),
    "logsnr.models.denoiser": ("Denoiser", "Guided", "Prediction"),
    "logsnr.models.states": ("StateDenoiser",),
    "logsnr.objectives.consistency": ("ConsistencyObjective",),
    "logsnr.objectives.cross_entropy": ("CrossEntropyObjective",),
    "logsnr.objectives.hybrid": ("HybridObjective",),
    "logsnr.objectives.learned_schedule": ("LearnedScheduleObjective",),
    "logsnr.objectives.objective": ("Context", "Objective"),
    "logsnr.objectives.transition_bound": ("TransitionBoundObjective",),
    "logsnr.objectives.vlb": ("VlbObjective",),
    "logsnr.objectives.weighted": ("WeightedObjective",),
    "logsnr.pipelines.pipeline_pixel": ("PixelDiffusionPipeline",),
    "logsnr.pipelines.pipeline_restoration": ("RestorationOutput", "RestorationPipeline"),
    "logsnr.pipelines.pipeline_text": ("TextPipeline",),
    "logsnr.pipelines.pipeline_text_to_image": ("TextToImagePipeline",),
    "logsnr.sampling.sample": ("sample",),
    "logsnr.schedulers.scheduling_beta": (
        "BetaScheduler",
        "ConstantBetaScheduler",
        "CosineBetaScheduler",
        "EvenBetaScheduler",
        "LaplaceBetaScheduler",
        "LearnedBetaScheduler",
        "LinearBetaScheduler",
        "SigmoidBetaScheduler",
    ),
    "logsnr.schedulers.scheduling_consistency": ("ConsistencyScheduler",),
    "logsnr.schedulers.scheduling_few_step": ("FewStepScheduler",),
    "logsnr.schedulers.scheduling_transition": ("TransitionScheduler",),
    "logsnr.settings.condition": ("ClassLabelConfig", "NoConditionConfig"),
    "logsnr.settings.image": ("DataConfig", "ModelConfig"),
    "logsnr.settings.objective": (
        "ConsistencyConfig",
        "CrossEntropyConfig",
        "EdmWeighting",
        "ElboWeighting",
        "HybridConfig",
        "MinSnrWeighting",
        "P2Weighting",
        "SigmoidWeighting",
        "SimpleWeighting",
        "SnrWeighting",
        "TransitionBoundConfig",
        "TruncatedSnrWeighting",
        "VlbConfig",
        "WeightedConfig",
    ),
    "logsnr.settings.options": ("EvaluateOptions", "SampleOptions"),
    "logsnr.settings.presets": ("Preset", "presets"),
    "logsnr.settings.run": ("RunConfig", "TrainConfig"),
    "logsnr.settings.schedule": ("LearnedSchedule", "ScheduleConfig", "TransitionConfig"),
    "logsnr.settings.text": ("TextDataConfig", "TextModelConfig"),
    "logsnr.tasks.load": ("load",),
    "logsnr.tasks.task": ("Task", "open_task"),
    "logsnr.training.train": ("TrainResult", "train"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULES)


if not TYPE_CHECKING:  # or type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        # torch and diffusers take seconds to import: `import logsnr` and `logsnr --help` needn't wait for them
        if name not in _MODULES:
            raise AttributeError(f"module 'logsnr' has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
