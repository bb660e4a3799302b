"""What travels with a model of points: a small network, and the pipeline that draws with it."""

import inspect
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline


class PointsMLP(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """v of a point (n, 2) at timesteps of T, of one component or (the last embedding) of any."""

    @register_to_config
    def __init__(self, total: int = 100, hidden: int = 64, components: int = 3) -> None:
        super().__init__()
        self.labels = torch.nn.Embedding(components + 1, hidden)
        linear, silu = torch.nn.Linear, torch.nn.SiLU()
        layers = (linear(10 + hidden, hidden), silu, linear(hidden, hidden), silu, linear(hidden, 2))
        self.body = torch.nn.Sequential(*layers)

    def forward(self, sample: Any, timestep: Any, component: Any, return_dict: bool = True) -> Any:
        t = torch.as_tensor(timestep).expand(len(sample)) / self.config.total
        waves = t[:, None] * torch.pi * 2.0 ** torch.arange(-2, 2)
        return (self.body(torch.cat([sample, waves.sin(), waves.cos(), self.labels(component)], 1)),)


def taken(function: Any, **values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in inspect.signature(function).parameters}


class PointsPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Points of the components asked for, or of any."""

    def __init__(self, network: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self, batch_size: int = 1, component: Any = None, num_inference_steps: int = 20, guidance_scale: float = 1.0,
        generator: Any = 0, eta: float = 0.0, callback_on_step_end: Any = None, **_: Any,
    ) -> Any:  # fmt: skip
        seeds = generator if isinstance(generator, list) else range(generator, generator + batch_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        x = torch.stack([torch.randn(2, generator=each) for each in generators])
        null = torch.full((batch_size,), self.network.config.components)
        asked = null if component is None else torch.tensor(component)
        self.scheduler.set_timesteps(num_inference_steps, **taken(self.scheduler.set_timesteps, eta=eta))
        for i, t in enumerate(self.scheduler.timesteps):
            nothing, said = (self.network(x, t, c)[0] for c in (null, asked))
            output, step = nothing + guidance_scale * (said - nothing), self.scheduler.step
            x = step(output, t, x, **taken(step, generator=generators))[0]
            if callback_on_step_end is not None:
                callback_on_step_end(self, i, t, {})
        return (x,)
