"""What is said of a kind of data to a reader who has a model alone: on its card, the page of its repo.

Every kind has an answer without saying a word (`Parts.card_words`, `Parts.origin`); a kind says more where it can.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataOrigin:
    """What is said of the training data beside their number and size."""

    title: str
    license: str | None
    """In words; None where nobody stated it."""
    hub_id: str | None
    """The data set on the Hub that these data are, or are a part of."""


@dataclass(frozen=True)
class CardWords:
    """The words of a kind on the card of one of its models, and the Python that draws with it."""

    draws: str
    """What the model draws: `gray images of 28×28 pixels`."""
    verb: str = "draws"
    """What one calls that."""
    task: str | None = None
    """The Hub's name of what it does; None where the Hub has none."""
    tags: tuple[str, ...] = ()
    """For the Hub's search, beside those of every model of ours."""
    limits: tuple[str, ...] = ("It draws what its data show, and knows nothing else of the world.",)
    """Sentences."""
    settings: tuple[tuple[str, str], ...] = ()
    """Rows of the table of settings that say what the network is like."""
    asks: str = ""
    """Arguments of the pipeline, as Python: what is asked for. Empty where there is nothing to ask for."""
    asks_stock: str = "batch_size=4"
    """Arguments of the form for stock diffusers, as Python: what is asked of it."""
    seeds: str = "generator=[0, 1, 2, 3]"
    """Arguments of the pipeline, as Python: the seeds of four samples."""
    returned: str = "return_dict=False"
    """Arguments of the pipeline, as Python: what `call` needs beside what is asked for; those of a stock form too."""
    call: str = "samples, *_ = pipe({})"
    """A line of Python that calls the pipeline, with a place for the arguments."""
    then: str = ""
    """A line of Python that does something with what was drawn."""
    stock_imports: str = ""
    """Lines of Python that import what `stock_call` needs."""
    stock_call: str = ""
    """Python that draws with a form for stock diffusers that is called otherwise than the model's own, with the repo's
    name as {repo_id}; empty where it is called by `call` and `asks_stock`."""
    stock_of: str = ""
    """A line of Python that makes a stock model of one class; empty where there is none."""
