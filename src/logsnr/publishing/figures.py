"""The figures of `logsnr evaluate` (metrics.json) on a card: a table, how they came about, and metadata for the Hub."""

from __future__ import annotations

from typing import Any

from logsnr.evaluation.asked import judges, titled
from logsnr.publishing.markdown import prose

FIGURES = {
    "fid": ("FID", "lower is better"),
    "kid": ("KID", "lower is better"),
    "inception_score": ("Inception Score", "higher is better"),
    "precision": ("Precision", "higher is better"),
    "recall": ("Recall", "higher is better"),
    "elbo": ("ELBO, bits per dimension", "lower is better"),
}
"""By name in metrics.json: the title, and which way is better. Other figures bring a `title` of their own."""


def _value_of(metrics: dict[str, Any], key: str) -> float | None:
    """The number of a figure in metrics.json, which is under `value`; the ELBO's is the total of its terms."""
    entry = metrics.get(key, {})
    value = entry["bits_per_dim"]["total"] if "bits_per_dim" in entry else entry.get("value")
    return None if value is None else float(value)


def results(metrics: dict[str, Any]) -> list[tuple[str, str, float]]:
    """The figures as the Hub lists them: type, title and value; shares that show what was asked for are accuracies."""
    titles = {key: title for key, (title, _) in FIGURES.items()}
    titles |= {key: entry["title"] for key, entry in metrics.items() if "title" in entry}
    measured = [(key, title, value) for key, title in titles.items() if (value := _value_of(metrics, key)) is not None]
    shares = [
        ("accuracy", f"Shows what was asked for: {title}", float(entry["drawn"]["value"]))
        for title, entry in titled(metrics.get("asked", {}))
    ]
    return measured + shares


def figures(metrics: dict[str, Any], noun: str) -> list[dict[str, str]]:
    """The rows of the table, in the order of metrics.json: of few images, KID comes first; then what was asked for."""
    measured = [
        figure
        for key, entry in metrics.items()
        if (figure := _titled(entry) if "title" in entry else _figure(metrics, key, noun))
    ]
    return [*measured, *(_asked(title, entry, noun) for title, entry in titled(metrics.get("asked", {})))]


def _asked(title: str, entry: dict[str, Any], noun: str) -> dict[str, str]:
    """A row of the table: the share of samples that show what was asked for."""
    drawn, low, high, real, chance = (
        f"{100 * value:.1f}"
        for value in (entry["drawn"]["value"], *entry["drawn"]["interval"], entry["real"]["value"], entry["chance"])
    )
    return {
        "title": f"Shows what was asked for: {prose(title)}, higher is better",
        "value": f"{drawn} % ({low} to {high})",
        "beside": f"{real} % of real {noun}s that show it; chance is {chance} %",
    }


def _titled(entry: dict[str, Any]) -> dict[str, str]:
    """A row of the table: a figure that brings its words."""
    error = f" ± {entry['standard_error']:.2g}" if "standard_error" in entry else ""
    return {
        "title": prose(", ".join([entry["title"], entry["direction"]])),
        "value": f"{entry['value']:.4g}{error}",
        "beside": prose(entry["beside"]),
    }


def _figure(metrics: dict[str, Any], key: str, noun: str) -> dict[str, str] | None:
    """A row of the table: the figure with its interval or error, and what it is to be read beside."""
    value = _value_of(metrics, key) if key in FIGURES else None
    if value is None:
        return None
    entry, beside = metrics[key], ""
    shown = f"{value:.4g}"
    if "interval" in entry:
        shown += " ({:.4g} to {:.4g})".format(*entry["interval"])
    if "same_n" in entry:
        same = entry["same_n"]
        beside = f"{same['generated']:.4g} of {same['n']:,} drawn {noun}s, {same['real']:.4g} of as many real ones"
    if "bits_per_dim" in entry:
        terms = entry["bits_per_dim"]
        shown += f" ± {terms['standard_error']:.2g}"
        said = ", ".join(f"{name} {round(terms[name], 4) + 0.0:.4f}" for name in ("prior", "kl", "decoder"))
        beside = f"by term: {said} ({entry['decoder']}); of {entry['num_images']} held-out {noun}s"
        if "gap" in entry:
            beside += f", {entry['gap']:.2g} ± {entry['gap_standard_error']:.2g} above as many training {noun}s"
    title, direction = FIGURES[key]
    return {"title": f"{title}, {direction}", "value": shown, "beside": beside}


def _pairs(values: dict[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {f'{value:.4g}' if isinstance(value, float) else prose(str(value))}"
        for name, value in values.items()
    ]


def protocol_text(metrics: dict[str, Any], noun: str) -> str:
    """How the figures of the table came about, who judged what was asked for, and what is known of copies."""
    text = f"Protocol: {'; '.join(_pairs(metrics['protocol']))}." if "protocol" in metrics else ""
    for judge, titles in judges(metrics.get("asked", {})).items():
        text += f"\n\nJudge of {prose(', '.join(titles))}: {prose(judge)}."
    if "memorisation" in metrics:
        copying = metrics["memorisation"]["copying"]
        text += (
            f"\n\nMemorisation: a drawn {noun} is nearer to its nearest training {noun} than a held-out {noun} is to "
            f"its own in {100 * copying:.0f} % of cases; 50 % is chance, much more would be copying."
        )
    return text.strip()
