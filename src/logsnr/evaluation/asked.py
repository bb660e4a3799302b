"""Does a model draw what it is asked for? Shares of the images that show it, beside real images and chance.

    classes       the class, named by the classifier that was trained on the data's own labels, where figures are made
                  with its features; real images are held-out ones
    captions      the caption, chosen among 20 by a judge that reads captions by MiniLM
    attributes    the value of each attribute that is asked about, named by a judge of its own

What is asked of a kind is what its `Parts.truth` knows; how captions and attributes are judged says
`logsnr.evaluation.judges`. The images are those that are compared with the data, and none is drawn for this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from logsnr.base.columns import aligned
from logsnr.base.errors import DataError
from logsnr.base.files import digest_of, replacing_file
from logsnr.data.seeded import Split
from logsnr.evaluation.distribution import features_name, number_of_images
from logsnr.evaluation.extractors import FeatureExtractor, Features, features_of_data
from logsnr.evaluation.generated import examples_asked_for
from logsnr.evaluation.judges import (
    AttributeJudges,
    CaptionJudges,
    Judge,
    Places,
    Seat,
    Share,
    seats_held_out,
    seats_of_halves,
    share,
    verdicts,
)
from logsnr.evaluation.subject import Subject, kept_json
from logsnr.folders.cache import cache_folder
from logsnr.models.text_encoders import MINILM, has_minilm, open_text_encoder
from logsnr.settings.options import EvaluateOptions

_RECIPE = 1
"""To be changed with anything that changes the figures."""
_CLASSIFIER = "classifier"
"""The features whose network was trained on the labels."""
_NO_MINILM = (
    "Captions aren't judged: the judge reads them by MiniLM, which isn't installed: pip install \".[captions]\"."
)
_FEW_CAPTIONS = "Captions aren't judged: there are too few that differ, or too few images to learn from."
_OTHER_FEATURES = "Whether an image is of the class asked for isn't judged: --features classifier would."


@dataclass(frozen=True, eq=False)
class Question:
    """What can be judged of a model's samples."""

    asked: Places
    """Which example of the reference each sample is asked to be like."""
    classes: NDArray[np.int64] | None
    """The class of each of all examples, where it is judged."""
    captions: list[str]
    """All captions, once each, where they are judged."""
    of_captions: CaptionJudges | None
    of_attributes: dict[str, AttributeJudges]
    notes: list[str]
    """Sentences about what isn't judged."""

    @property
    def names(self) -> list[str]:
        """What is judged, in words."""
        captions = [] if self.of_captions is None else [_among(self.of_captions.candidates)]
        return [*(["class"] if self.classes is not None else []), *captions, *self.of_attributes]


def question(subject: Subject, options: EvaluateOptions) -> Question:
    """What of the samples that `options` ask for can be judged.

    Raises ConfigError or DataError, naming attributes, where one of these can't be.
    """
    data = subject.data
    truth = subject.task.parts.truth(subject.config, data, options.attributes)
    train, reference = data.indices("train"), data.indices(options.reference)
    asked = examples_asked_for(data, options.reference, number_of_images(options, data))
    knows = features_name(options, subject.task.parts, data) == _CLASSIFIER
    notes = [] if truth.classes is None or knows else [_OTHER_FEATURES]
    seats, captions, of_captions = [], [], None
    if truth.captions is not None or truth.attributes:
        assert truth.groups is not None
        of_train = [truth.groups[k] for k in train]
        seats = (
            seats_of_halves(of_train) if options.reference == "train" else seats_held_out(len(train), len(reference))
        )
    if truth.captions is not None:
        names, numbers = np.unique(np.array(truth.captions, object), return_inverse=True)
        captions, of_captions = names.tolist(), CaptionJudges(seats, numbers[train], numbers[reference])
        if not of_captions.possible() or not has_minilm():
            notes.append(_NO_MINILM if of_captions.possible() else _FEW_CAPTIONS)
            captions, of_captions = [], None
    of_attributes = {}
    for name, values in truth.attributes.items():
        of_attributes[name] = AttributeJudges(seats, [values[k] for k in train], [values[k] for k in reference])
        if not of_attributes[name].possible(asked):
            raise DataError(
                f"attributes is {name}, of which too little is known: a judge must learn of two values at least, and "
                "one image that is asked for must have a value. Leave it out."
            )
    return Question(asked, truth.classes if knows else None, captions, of_captions, of_attributes, notes)


def plan_asked(found: Question) -> list[str]:
    """What would be judged, in sentences."""
    would = [f"Would judge whether they show what was asked for: {', '.join(found.names)}."] if found.names else []
    return [*would, *found.notes]


def what_was_asked(
    of: Question, subject: Subject, extractor: FeatureExtractor, drawn: Features, options: EvaluateOptions
) -> tuple[dict[str, Any], str]:
    """The shares as they stand in metrics.json, and in words, by the features of what was drawn. What isn't judged is
    said; both are empty where nothing is asked for."""
    known = [(name, each.known) for name, each in of.of_attributes.items()]
    decisive = (_RECIPE, subject.data.fingerprint, options.reference, extractor.digest, of.names, known)
    content = digest_of(repr(decisive).encode(), drawn.features.numpy().tobytes())
    entries: dict[str, Any] = {}
    if of.names:
        path = subject.folder / f"asked-{content}.json"
        entries = kept_json(path, lambda: _answers(of, subject, extractor, drawn, options))
    return entries, "\n".join([*([_table(entries, subject.data.examples.noun)] if entries else []), *of.notes])


def titled(entries: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each share of `what_was_asked`, with what it is of."""
    found = []
    if "classes" in entries:
        found.append(("class", entries["classes"]))
    if "captions" in entries:
        found.append((_among(entries["captions"]["candidates"]), entries["captions"]))
    return [*found, *entries.get("attributes", {}).items()]


def _among(candidates: int) -> str:
    return f"caption among {candidates}"


def judges(entries: dict[str, Any]) -> dict[str, list[str]]:
    """Who judged, and which of the shares of `what_was_asked`."""
    found: dict[str, list[str]] = {}
    for title, entry in titled(entries):
        found.setdefault(entry["judge"], []).append(title)
    return found


def _table(entries: dict[str, Any], noun: str) -> str:
    rows = [("asked for", "images", "drawn", "95 % interval", "real", "95 % interval", "chance")]
    for title, entry in titled(entries):
        shares = (entry[key] for key in ("drawn", "real"))
        cells = [
            cell for each in shares for cell in (_percent(each["value"]), " to ".join(map(_percent, each["interval"])))
        ]
        rows.append(
            (title, f"{entry['drawn']['num']:,}", cells[0], cells[1], cells[2], cells[3], _percent(entry["chance"]))
        )
    blind = [title for title, entry in titled(entries) if entry["real"]["interval"][0] <= entry["chance"]]
    return "\n".join(
        [
            f"What was asked for is seen in these shares of the drawn {noun}s, and of real {noun}s that do show it:",
            aligned(rows),
            f"Judges err: a perfect model gets what the real {noun}s get. One that heeds nothing is near chance.",
            *(
                [f"warning: of {', '.join(blind)} the judge knows too little on real {noun}s to say anything."]
                if blind
                else []
            ),
            *(f"Judge of {', '.join(titles)}: {judge}." for judge, titles in judges(entries).items()),
        ]
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _answers(
    of: Question, subject: Subject, extractor: FeatureExtractor, drawn: Features, options: EvaluateOptions
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    if of.classes is not None:
        entries["classes"] = _classes(of.classes, of.asked, subject, extractor, drawn, options)
    if not (of.of_captions or of.of_attributes):
        return entries
    train = features_of_data(extractor, subject.data, "train").features
    real = features_of_data(extractor, subject.data, options.reference).features
    seen = f"a ridge regression from the features of {extractor.name}"
    learned = (
        f"one is fitted on each half of the {len(train):,} training images, and judges what is asked for of the other"
        if options.reference == "train"
        else "it is fitted on training images, and judges what is asked for of held-out ones"
    )

    def judged(seats: Sequence[Seat], judge_of: Callable[[Seat], Judge], chance: float, to: str) -> dict[str, Any]:
        shares = verdicts(seats, judge_of, drawn.features, real, of.asked)
        return _entry(*shares, chance, f"{seen} to {to}; {learned}")

    if of.of_captions is not None:
        of_captions = of.of_captions
        meanings = _meanings(of.captions, of_captions.read(of.asked))
        judge_of = partial(of_captions.judge, features=train, meanings=meanings)
        to = "the mean of MiniLM-L6's states of the caption"
        entry = judged(of_captions.seats, judge_of, 1 / of_captions.candidates, to)
        entries["captions"] = {"candidates": of_captions.candidates} | entry
    for name, each in of.of_attributes.items():
        entry = judged(each.seats, partial(each.judge, features=train), each.chance(of.asked), "the values")
        entries.setdefault("attributes", {})[name] = entry
    return entries


def _entry(drawn: Share, real: Share, chance: float, judge: str) -> dict[str, Any]:
    return {"drawn": dataclasses.asdict(drawn), "real": dataclasses.asdict(real), "chance": chance, "judge": judge}


def _classes(
    classes: NDArray[np.int64],
    asked: Places,
    subject: Subject,
    extractor: FeatureExtractor,
    drawn: Features,
    options: EvaluateOptions,
) -> dict[str, Any]:
    data = subject.data
    split: Split = "held_out" if data.num_held_out else "train"
    wanted = classes[data.indices(options.reference)][asked]

    def named(features: Features, right: NDArray[np.int64]) -> Share:
        assert features.logits is not None
        return share((features.logits.argmax(1) == torch.from_numpy(right)).double())

    real = named(features_of_data(extractor, data, split), classes[data.indices(split)])
    seen = "real images are held-out ones" if data.num_held_out else "real images are those that it was trained on"
    chance = float(np.bincount(wanted).max() / len(wanted))
    return _entry(named(drawn, wanted), real, chance, f"{extractor.name}; {seen}")


def _meanings(captions: list[str], read: NDArray[np.int64]) -> Tensor:
    """What MiniLM says of captions, (captions, width), kept in the cache; 0 of those that aren't read."""
    encoder = open_text_encoder(MINILM)
    texts = [captions[k] for k in read]
    path = cache_folder() / f"meanings-{digest_of(repr((encoder.digest, texts)).encode())}.safetensors"
    if not path.exists():
        with replacing_file(path) as temporary:
            save_file({"meanings": encoder.meanings(texts)}, temporary)
    meanings = torch.zeros(len(captions), encoder.width)
    meanings[read] = load_file(path)["meanings"]
    return meanings
