"""What no published file may say of its author's machine, and words that look like it and say nothing of anybody."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from published_parts import NAMES, pipeline, published

from logsnr.base.errors import PublishError
from logsnr.media.plots import save_png
from logsnr.publishing.card import public_words, render_card
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


def write_safetensors(path: Path, metadata: dict[str, str]) -> None:
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("see /data/patients/scans for more", "a path of this machine (/data/patients/scans)"),
        ("(/srv/x/y.png)", "a path of this machine"),
        ("in ~/images", "a path of this machine"),
        ("in ~ada/images", "a path of this machine"),
        (r"in C:\Users\ada", "a path of this machine"),
        (r"on \\server\share", "a path of this machine"),
        ("file:///x", "a path of this machine"),
        ("in {home}", "your home folder"),
        ("in {home}/images", "your home folder"),
        ("by {user}.", "the name of this user ({user})"),
        ("on {host}", "the name of this machine ({host})"),
        ("hf_abcdefghijklmnopqrstuvwxyz0123456789", "a token, key or password"),
        ("key sesame-open-42", "a token, key or password"),
    ],
)
@pytest.mark.parametrize("kind", ["card", "json", "nested json key", "weights", "picture"])
def test_a_leak_is_found_in_any_file(
    text: str, what: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hömes" / "dear"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "adalovelace")
    monkeypatch.setenv("SOME_API_KEY", "sesame-open-42")
    monkeypatch.setattr(socket, "gethostname", lambda: "workstation7.clinic.example")
    words = {"home": home, "user": "adalovelace", "host": "workstation7"}
    text, what = text.format(**words), what.format(**words)
    folder = tmp_path / "staged"
    (folder / "main").mkdir(parents=True)
    if kind == "card":
        (name := folder / "main" / "README.md").write_text(f"# Model\n\nIt is {text}\n")
    elif kind == "json":
        (name := folder / "main" / "config.json").write_text(json.dumps({"a": [1, {"b": text}]}))  # ö becomes \u00f6
    elif kind == "nested json key":
        (name := folder / "main" / "config.json").write_text(json.dumps({"a": {text: None}}))
    elif kind == "weights":
        write_safetensors(name := folder / "main" / "x.safetensors", {"format": "pt", "from": text})
    else:
        figure = Figure()
        figure.savefig(name := folder / "main" / "x.png", metadata={"Comment": text})
    with pytest.raises(PublishError) as caught:
        refuse_leaks(folder, set())
    assert f"main/{name.name} has {what}" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert "hf_a" not in str(caught.value)


def test_what_is_no_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our code and cards, URLs and relative paths; and a user called like a class, or like the owner of the repo."""
    (tmp_path / "README.md").write_text(
        render_card(published()) + "\nhttps://example.org/a/b/c and runs/x/y, 1/2/3, a / b.\n"
    )
    write_safetensors(tmp_path / "x.safetensors", {"format": "pt"})
    save_png(Image.new("L", (8, 8)), tmp_path / "x.png")
    for room in ("schedulers", "pipelines"):
        for path in (Path(__file__).parents[2] / room).glob("*.py"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    pipeline(NAMES).save_pretrained(tmp_path / "model")
    for user, host in [("ada", "calm"), ("noise", "model"), ("someone", "somewhere")]:
        monkeypatch.setenv("LOGNAME", user)
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        refuse_leaks(tmp_path, public_words(published()))
    (tmp_path / "x.bin").write_bytes(b"\0")
    with pytest.raises(PublishError, match=r"x\.bin isn't a kind of file that is published"):
        refuse_leaks(tmp_path, set())
