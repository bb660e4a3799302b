"""A network that is exactly right: the posterior mean of Gaussian data, with `UNet2DModel`'s call signature."""

import inspect
import warnings
from typing import Any

import diffusers
import diffusers.schedulers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

MEAN, STD = 0.2, 0.25
TARGETS = ("epsilon", "sample", "v_prediction", "x0_minus_noise")


class GaussianUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]  # stock's own two bases disagree
    """E[target | x_t] for pixels x_0 ~ N(mean, std^2), independent, in closed form.

    With classes, class k has mean `mean` + 0.1 k, and the null label `mean` - 0.3.
    """

    @register_to_config
    def __init__(
        self,
        alphas_cumprod: list[float],
        prediction_type: str = "epsilon",
        mean: float = MEAN,
        std: float = STD,
        sample_size: int | tuple[int, int] = 64,
        in_channels: int = 1,
        out_channels: int = 1,
        num_class_embeds: int | None = None,
        class_embed_type: str | None = None,
    ) -> None:
        super().__init__()
        alpha_bar = torch.tensor(alphas_cumprod, dtype=torch.float64).clamp(min=1e-20)
        self.register_buffer("log_sigma", 0.5 * (torch.log1p(-alpha_bar) - torch.log(alpha_bar)))
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        # Solvers with intermediate timesteps interpolate log sigma, and so does this.
        t = float(timestep)
        low = min(int(t), len(self.log_sigma) - 1)
        high = min(low + 1, len(self.log_sigma) - 1)
        log_sigma = torch.lerp(self.log_sigma[low], self.log_sigma[high], t - low)
        a, s = torch.sigmoid(-2 * log_sigma).sqrt(), torch.sigmoid(2 * log_sigma).sqrt()
        mean = torch.full((len(sample), 1, 1, 1), float(self.config["mean"]), dtype=torch.float64)
        if class_labels is not None:
            null = class_labels == self.config["num_class_embeds"] - 1
            mean = mean + torch.where(null, -0.3, 0.1 * class_labels).view(-1, 1, 1, 1)
        x = sample.double()
        var = float(self.config["std"]) ** 2
        x_0 = mean + a * var / (a**2 * var + s**2) * (x - a * mean)
        eps = (x - a * x_0) / s
        output = {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0, "x0_minus_noise": x_0 - eps}
        result = output[self.config["prediction_type"]].to(sample.dtype)
        return UNet2DOutput(sample=result) if return_dict else (result,)


def scheduler_classes() -> list[Any]:
    """Every scheduler class that the installed diffusers exports, from its top or from `diffusers.schedulers`."""
    members = (getattr(home, name) for home in (diffusers, diffusers.schedulers) for name in dir(home))
    found = {m for m in members if inspect.isclass(m) and issubclass(m, SchedulerMixin) and m is not SchedulerMixin}
    return sorted(found, key=lambda cls: str(cls.__name__))


def honours_trained_betas(cls: Any) -> bool:
    """Whether the class runs on the betas it is given, bit for bit."""
    if "trained_betas" not in inspect.signature(cls).parameters:
        return False
    stock = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # stock's numpy 1 habits
        try:
            scheduler = cls(trained_betas=stock.betas.tolist())
        except Exception:  # RePaint wants an array
            return False
    return torch.equal(getattr(scheduler, "alphas_cumprod", torch.empty(0)), stock.alphas_cumprod)
