"""What the Hub says of the metadata at the head of a README.md: its errors and its warnings."""

from __future__ import annotations

import re
from typing import Any

import yaml  # huggingface_hub brings it

COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SDKS = {"gradio", "docker", "static"}


def complaints(content: str, kind: str) -> tuple[list[str], list[str]]:
    """Errors, which refuse a commit, and warnings."""
    head = re.match(r"---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", content, re.DOTALL)
    if head is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        values = yaml.safe_load(head[1])
    except yaml.YAMLError as error:
        return [f"YAML can't be parsed: {error}"], []
    if not isinstance(values, dict):
        return ["metadata must be a mapping"], []
    found = [*_common(values), *(_of_space(values) if kind == "space" else _of_model(values))]
    return found, []


def _common(values: dict[str, Any]) -> list[str]:
    found = []
    for key in ("license", "library_name", "pipeline_tag", "license_name", "license_link"):
        if key in values and not isinstance(values[key], str):
            found.append(f'"{key}" must be a string')
    if isinstance(values.get("license"), str) and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", values["license"]):
        found.append('"license" must be one of the known identifiers')
    for key in ("tags", "datasets", "models", "language", "metrics"):
        if key in values and not (isinstance(values[key], list) and all(isinstance(v, str) for v in values[key])):
            found.append(f'"{key}" must be an array of strings')
    return found


def _of_space(values: dict[str, Any]) -> list[str]:
    found = []
    if values.get("sdk") not in SDKS:
        found.append(f'"sdk" must be one of {sorted(SDKS)}')
    for key in ("colorFrom", "colorTo"):
        if key in values and values[key] not in COLORS:
            found.append(f'"{key}" must be one of {sorted(COLORS)}')
    if len(str(values.get("short_description", ""))) > 60:
        found.append('"short_description" length must be less than or equal to 60 characters long')
    return found


def _of_model(values: dict[str, Any]) -> list[str]:
    index = values.get("model-index", [])
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    found = []
    for i, model in enumerate(index):
        if not isinstance(model.get("name"), str):
            found.append(f'"model-index[{i}].name" is required')
        if not isinstance(model.get("results"), list):
            found.append(f'"model-index[{i}].results" is required')
            continue
        for j, result in enumerate(model["results"]):
            at = f"model-index[{i}].results[{j}]"
            if not isinstance(result.get("task", {}).get("type"), str):
                found.append(f'"{at}.task.type" is required')
            found += [
                f'"{at}.dataset.{key}" is required'
                for key in ("type", "name")
                if "dataset" in result and not isinstance(result["dataset"].get(key), str)
            ]
            found += [
                f'"{at}.metrics[{k}].{key}" is required'
                for k, metric in enumerate(result.get("metrics", []))
                for key in ("type", "value")
                if key not in metric
            ]
    return found
