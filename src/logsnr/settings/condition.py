"""What a network is told beside x_t and t.

A condition of another package is a subclass of `ConditionConfig` with a `name`, declared by an entry point of that name
in the group `logsnr.conditions`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from logsnr.settings.choice import Choice, Name, installed
from logsnr.settings.rules import require


@dataclass(frozen=True)
class ConditionConfig(Choice):
    """What the network is told of an image."""

    name: Name = field(init=False)
    """class_label: its class, where the source has labels. none: nothing. Or another installed one."""
    reads_labels: ClassVar[bool] = False
    """Whether it is made of the labels of the data."""
    reads_captions: ClassVar[bool] = False
    """Whether it is made of the captions of the data."""

    @property
    def dropout(self) -> float:
        """Share of the conditions that are dropped, which guidance needs; none where there is no setting for it."""
        return 0.0

    @classmethod
    def members(cls) -> dict[str, type[ConditionConfig]]:
        return installed("logsnr.conditions")


@dataclass(frozen=True)
class ClassLabelConfig(ConditionConfig):
    """The network is told the class of an image, where the source has labels."""

    name: Name = field(default="class_label", init=False)
    reads_labels = True
    dropout: float = 0.1
    """Share of the labels replaced by the null label, which guidance needs."""

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "condition.dropout", "in [0, 1), as at 1 no class is ever seen", self.dropout)


@dataclass(frozen=True)
class CaptionConfig(ConditionConfig):
    """The network is told the caption of an image, by a text encoder."""

    name: Name = field(default="caption", init=False)
    reads_captions = True
    dropout: float = 0.1
    """Share of the captions replaced by an empty one, which guidance needs."""
    text_encoder: str = "minilm"
    """What reads the captions: minilm (MiniLM-L6, 90 MB, of a package), a folder or repo of the Hub with an encoder
    and a tokenizer of transformers, both frozen; or scratch: word pieces of the captions and a small encoder that is
    trained along."""
    text_layers: int = 0
    """How many of a frozen encoder's first layers read; 0: all. Later ones know better what things are, earlier ones
    in which order words stand, as in "left of"; what is left out is neither computed nor published."""

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "condition.dropout", "in [0, 1), as at 1 no caption is ever seen", self.dropout)
        require(
            bool(self.text_encoder), "condition.text_encoder", "minilm, scratch, a folder or a repo", self.text_encoder
        )
        require(self.text_layers >= 0, "condition.text_layers", "at least 0, which is all of them", self.text_layers)
        require(
            self.text_layers == 0 or self.text_encoder != "scratch",
            "condition.text_layers",
            "0 for condition.text_encoder scratch, which has as many as it is made with",
            self.text_layers,
        )


@dataclass(frozen=True)
class NoConditionConfig(ConditionConfig):
    """The network is told nothing, whatever labels there are."""

    name: Name = field(default="none", init=False)
