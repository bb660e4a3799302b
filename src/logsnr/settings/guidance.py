"""How guidance is done, beside its scale."""

from __future__ import annotations

from dataclasses import dataclass

from logsnr.settings.rules import require


@dataclass(frozen=True)
class GuidanceOptions:
    """How guidance is done, beside its scale. The defaults are plain classifier-free guidance."""

    interval: tuple[float, float] = (0.0, 1.0)
    """The part of the steps that is guided, as shares of them, 0 being noise: 0.2 0.8 leaves out the first and the
    last fifth (arXiv 2404.07724)."""
    rescale: float = 0.0
    """Guided images have too much contrast: 1 brings the spread of each step's output back to the unguided one's, 0
    leaves it (arXiv 2305.08891)."""
    projected: bool = False
    """Adaptive projected guidance: what only makes the output larger is left out (arXiv 2410.02416)."""
    guide: str | None = None
    """A weaker model of the same data, such as RUN/guide of a run with --train.keep-guide: guidance leads away from it
    (autoguidance, arXiv 2406.02507), and not from the model without its class or text. Models without classes can be
    guided so too."""

    def __post_init__(self) -> None:
        start, stop = self.interval
        rule = "two shares of the steps, from 0 to 1, the smaller first"
        require(0 <= start < stop <= 1, "guidance.interval", rule, self.interval)
        require(0 <= self.rescale <= 1, "guidance.rescale", "in [0, 1]", self.rescale)

    @property
    def plain(self) -> bool:
        """Whether the scale says all."""
        return self == GuidanceOptions(guide=self.guide)


PLAIN = GuidanceOptions()
