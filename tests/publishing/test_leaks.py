"""Names and paths that are ordinary words: published where they say nothing of anybody, refused where they do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from logsnr.base.errors import PublishError
from logsnr.publishing.leaks import refuse_leaks

ORDINARY = ["default", "auto", "silu", "cosine", "learned", "image", "model", "user", "root", "pt", "batch", "trained"]


def staged(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.json").write_text(json.dumps({"a": [text]}))
    return folder


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("whose", ["user", "machine"])
def test_ordinary_words_of_the_files_are_nobody(
    name: str, whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", name if whose == "user" else "someone")
    monkeypatch.setattr(socket, "gethostname", lambda: name if whose == "machine" else "somewhere")
    refuse_leaks(staged(tmp_path / "x", config=name), set())


@pytest.mark.parametrize("name", ["anna", "ada", "jsmith", "labmachine"])
def test_names_of_people_and_machines_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = staged(tmp_path / "x", note=f"from {name}, on Monday")
    monkeypatch.setenv("LOGNAME", name)
    with pytest.raises(PublishError, match=rf"name of this user \({name}\).*LOGNAME=somebody"):
        refuse_leaks(folder, set())
    refuse_leaks(folder, set(), classes=[name])  # it is a class's
    monkeypatch.setenv("LOGNAME", "somebody")
    refuse_leaks(folder, set())
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    with pytest.raises(PublishError, match=rf"name of this machine \({name}\).*Take it out of the run"):
        refuse_leaks(folder, set())


def test_a_class_may_be_called_like_a_path_of_nowhere(tmp_path: Path) -> None:
    folder = staged(tmp_path / "x", names="/r/cats")
    (folder / "README.md").write_text("Classes: /r/cats, /r/old_dogs.")
    refuse_leaks(folder, set(), classes=["/r/cats", "/r/old_dogs"])
    with pytest.raises(PublishError, match=r"a path of this machine \(/r/cats\)"):
        refuse_leaks(folder, set())


@pytest.mark.parametrize("path", ["/home/anna/cats", "/Users/anna/cats", "/tmp/cats", "~/cats/x", "file:///r/cats"])
def test_a_class_called_like_a_path_of_somebody_is_found(path: str, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"a path of this machine .*rename that"):
        refuse_leaks(staged(tmp_path / "x", names=path), set(), classes=[path])


def test_the_home_folder_is_found_though_a_class_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/r/cats")
    with pytest.raises(PublishError, match=r"your home folder \(/r/cats\)"):
        refuse_leaks(staged(tmp_path / "x", names="/r/cats"), set(), classes=["/r/cats"])
