"""A trained model on the Hub: published, loaded by the code of its card, saved, published again; and what goes wrong.

The Hub is the one of `loopback_hub.py`, the client the real one.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Finished, run
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub, enter
from stock_python import link_packages, run_stock_python

from logsnr.base.errors import LogsnrError
from logsnr.folders.model_folder import MODEL, model_digest
from logsnr.publishing.publish import look, publish
from logsnr.publishing.stage import Part, stage

Run = Callable[..., Finished]
DIGITS, TEXTURES = "ada/digits", "ada/textures"
RUN_CARDS = """
import os, pathlib, sys

for card in sorted(pathlib.Path(sys.argv[1]).glob("*/*/card.py")):
    os.chdir(card.parent)
    names = {}
    exec(compile(card.read_text(), card, "exec"), names)
    names["pipe"].save_pretrained("saved")
    (card.parent / "class.txt").write_text(type(names["pipe"]).__name__)
assert not any(name.split(".")[0] == "logsnr" for name in sys.modules)
"""


@pytest.fixture(scope="module")
def conditional(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conditional")
    assert run(path / "log.txt", "train", *tiny, "--train.held-out-every", 6, "--out", path / "run").status == 0
    return path / "run"


@pytest.fixture(scope="module")
def unconditional(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with zero terminal SNR, which is sampled in another way on its card."""
    path = tmp_path_factory.mktemp("unconditional")
    more = ("--condition.name", "none", "--schedule.zero-terminal-snr")
    assert run(path / "log.txt", "train", *tiny, *more, "--out", path / "run").status == 0
    return path / "run"


@pytest.fixture(scope="module")
def staged_once(conditional: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Part]:
    return stage(conditional, DIGITS, tmp_path_factory.mktemp("staged") / "out", "apache-2.0", None, space=False)


@pytest.fixture
def staged(staged_once: list[Part], tmp_path: Path) -> list[Part]:
    """The conditional model as it is published, stock first and main last, for the test to change."""
    return [
        dataclasses.replace(branch, folder=Path(shutil.copytree(branch.folder, tmp_path / "staged" / branch.name)))
        for branch in staged_once
    ]


def code_of(card: str) -> list[str]:
    """The Python of a card, one piece for each way to load."""
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def execute(pieces: dict[str, list[str]], site: Path, hub: LoopbackHub, tmp_path: Path) -> None:
    """Run the code of cards as it is written, where there are torch and diffusers alone, and caches of its own.

    Each piece in a folder of its own, where what was loaded is saved as `saved`.
    """
    for name, texts in pieces.items():
        for way, text in enumerate(texts, 1):
            (tmp_path / name / str(way)).mkdir(parents=True)
            (tmp_path / name / str(way) / "card.py").write_text(text)
    run_stock_python(site, RUN_CARDS, tmp_path, cwd=tmp_path, variables=hub.environment(tmp_path / "home"))
    for name, texts in pieces.items():
        for way in range(1, len(texts) + 1):
            assert (tmp_path / name / str(way) / "image.png").stat().st_size > 0


def execute_here(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the code of a card that needs logsnr."""
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(text, "card", "exec"), names)
    names["pipe"].save_pretrained("saved")  # type: ignore[attr-defined]
    assert (folder / "image.png").stat().st_size > 0


# The round trip


def test_published_loaded_saved_and_published_again(
    conditional: Path,
    unconditional: Path,
    at_hub: LoopbackHub,
    logsnr_at_hub: Run,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = link_packages(tmp_path_factory.mktemp("site"), "torch", "diffusers")
    for folder, repo in ((conditional, DIGITS), (unconditional, TEXTURES)):
        end = logsnr_at_hub("publish", folder, repo, "--license", "apache-2.0")
        assert end.status == 0, end.output
        assert f"The page is {at_hub.endpoint}/{repo}" in end.output
    assert set(at_hub.repo(DIGITS).refs) == {"main", "stock"}
    assert set(at_hub.repo(TEXTURES).refs) == {"main"}

    cards = {name: at_hub.repo(f"ada/{name}").files()["README.md"].decode() for name in ("digits", "textures")}
    pieces = {name: code_of(card) for name, card in cards.items()}
    assert all(len(texts) == 4 for texts in pieces.values())  # the fourth repairs: test_repair_roundtrip.py
    execute({name: texts[:2] for name, texts in pieces.items()}, site, at_hub, tmp_path / "first")
    for name, texts in pieces.items():
        execute_here(texts[2], tmp_path / "first" / name / "3", monkeypatch)
    classes = {p.parent.relative_to(tmp_path): p.read_text() for p in tmp_path.glob("first/*/*/class.txt")}
    assert classes == {
        Path("first/digits/1"): "DDPMPipeline",
        Path("first/digits/2"): "PixelDiffusionPipeline",
        Path("first/textures/1"): "DDPMPipeline",
        Path("first/textures/2"): "PixelDiffusionPipeline",
    }

    again: dict[str, list[str]] = {}
    for name in pieces:
        for way in (1, 2, 3):
            repo = f"ada/{name}-{way}"
            end = logsnr_at_hub("publish", tmp_path / "first" / name / str(way) / "saved", repo)
            assert end.status == 0, end.output
            again[f"{name}-{way}"] = code_of(at_hub.repo(repo).files()["README.md"].decode())
            assert len(again[f"{name}-{way}"]) == 4
    execute({name: texts[:2] for name, texts in again.items()}, site, at_hub, tmp_path / "second")
    for name, texts in again.items():
        execute_here(texts[2], tmp_path / "second" / name / "3", monkeypatch)
    # the stock form of a model with classes has none; the other ways keep them
    assert [("stock" in at_hub.repo(f"ada/digits-{way}").refs) for way in (1, 2, 3)] == [False, True, True]
    weights = "unet/diffusion_pytorch_model.safetensors"
    for name in ("digits", "textures"):
        before = at_hub.repo(f"ada/{name}").files()[weights]
        assert [at_hub.repo(f"ada/{name}-{way}").files()[weights] == before for way in (2, 3)] == [True, True]
    stock = at_hub.repo(DIGITS).files("stock")[weights]
    assert at_hub.repo("ada/digits-1").files()[weights] == stock


def test_main_holds_one_set_of_weights(staged: list[Part]) -> None:
    assert [branch.name for branch in staged] == ["stock", "main"]
    for branch in staged:
        assert len([f for f in branch.files if f.path.endswith(".safetensors")]) == 1
        assert {Path(f.path).suffix for f in branch.files} <= {".md", ".json", ".png", ".py", ".safetensors"}


def test_the_same_command_again_changes_nothing_and_a_new_model_takes_the_old_one_away(
    conditional: Path, unconditional: Path, hub: LoopbackHub, logsnr_at_hub: Run
) -> None:
    assert logsnr_at_hub("publish", conditional, DIGITS).status == 0
    repo = hub.repo(DIGITS)
    before = dict(repo.refs)
    end = logsnr_at_hub("publish", conditional, DIGITS)
    assert end.status == 0
    assert "stock: nothing changed.\nmain: nothing changed." in end.output
    assert repo.refs == before

    # what an earlier version left, and what somebody else put there
    stale = {
        "pipeline_pixel_00000000.py": "old",
        "restoration_operators_00000000.py": "old",
        "unet/diffusion_pytorch_model.bin": "old",
        "LICENSE": "mine",
    }
    lines = [
        {"key": "header", "value": {"summary": "by hand"}},
        *({"key": "file", "value": {"path": path, "content": "b2xk", "encoding": "base64"}} for path in stale),
    ]
    repo.commit("main", lines, "ada", {}, pull_request=False)
    commits = len(repo.commits)
    assert logsnr_at_hub("publish", unconditional, DIGITS).status == 0
    assert len(repo.commits) == commits + 1
    assert set(repo.files()) & set(stale) == {"LICENSE"}
    assert set(repo.refs) == {"main"}  # an unconditional model has no branch stock


# What goes wrong on the way: each ends in one line, and the same again then succeeds


def put(staged: list[Part], private: bool = False, create_pr: bool = False) -> list[str]:
    """What the command does after staging."""
    return publish(staged, DIGITS, look(DIGITS, private=private, create_pr=create_pr), create_pr=create_pr)


def message_of(attempt: Callable[[], object]) -> str:
    with pytest.raises(LogsnrError) as caught:
        attempt()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("method", "path", "how", "words"),
    [
        ("PUT", "/lfs/", "cut request", "broke off"),
        ("POST", "/commit/main", "cut request", "broke off"),
        ("POST", "/commit/main", "cut answer", "broke off"),
        ("POST", "/commit/stock", 429, "429 (Too Many Requests): too many requests: wait some minutes"),
        ("POST", "/commit/main", 500, "500 (Internal Server Error): that is the Hub's own trouble: wait a while"),
        ("POST", "/branch/stock", 503, "the Hub's own trouble"),
        ("POST", "/repos/create", 500, "the Hub's own trouble"),
        ("POST", "/commit/main", 412, "the repo was changed in between"),
    ],
)
def test_a_fault_on_the_way(
    staged: list[Part],
    at_hub: LoopbackHub,
    method: str,
    path: str,
    how: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # it waits before it retries
    at_hub.fail(method, path, how, times=10)
    message = message_of(lambda: put(staged))
    assert words in message
    assert "run the same command again" in message
    if (repo := at_hub.repos.get(("model", DIGITS))) is not None and how != "cut answer":
        assert "model_index.json" not in repo.files()  # a reader never sees half a model
    at_hub.faults.clear()
    put(staged)
    for branch in staged:
        published = {p: c for p, c in at_hub.repo(DIGITS).files(branch.name).items() if p != ".gitattributes"}
        assert published == {f.path: (branch.folder / f.path).read_bytes() for f in branch.files}


def slow_to_main(environment: dict[str, str]) -> None:
    enter(environment)
    create_commit = HfApi.create_commit

    def slow(*args: Any, revision: str, **more: Any) -> Any:
        if revision == "main":
            print("slowly", flush=True)
            time.sleep(60)
        return create_commit(*args, revision=revision, **more)

    HfApi.create_commit = slow  # type: ignore[method-assign]


def test_interrupted_it_says_what_is_kept(
    conditional: Path, hub: LoopbackHub, tmp_path: Path, logsnr_at_hub: Run
) -> None:
    log = tmp_path / "log.txt"
    before = partial(slow_to_main, hub.environment(tmp_path / "home"))
    command = Command(log, ["publish", str(conditional), DIGITS], before)
    command.wait_until(lambda: log.exists() and "slowly" in log.read_text())
    command.send(signal.SIGINT)
    end = command.wait()
    assert end.status == 130
    assert end.output.endswith("Interrupted. What the Hub has is kept; the same command sends the rest.\n")
    end = logsnr_at_hub("publish", conditional, DIGITS)
    assert end.status == 0, end.output
    assert "stock: nothing changed." in end.output
    assert "main: nothing changed." not in end.output


def test_no_network(staged: list[Part], at_hub: LoopbackHub) -> None:
    at_hub.stop()
    assert "See to the network, then run the same command again" in message_of(lambda: put(staged))
    at_hub.start()
    put(staged)


def test_who_may_not(staged: list[Part], at_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for token, words in [
        ("", "nothing without a token. Make one with write access at"),
        ("hf_wrong", "401 (Invalid credentials in Authorization header): the token isn't valid: make a new one"),
        (at_hub.read_token, "403 (You don't have the rights to create a model under the namespace"),
        (at_hub.other_token, f"the token may not write to {DIGITS}: take a name of your own"),
    ]:
        monkeypatch.setenv("HF_TOKEN", token)
        assert words in message_of(lambda: put(staged))
        assert not at_hub.repos
    monkeypatch.setenv("HF_TOKEN", at_hub.token)
    put(staged)
    monkeypatch.setenv("HF_TOKEN", at_hub.read_token)
    (staged[1].folder / "README.md").write_text("other")
    assert "403" in message_of(lambda: put(staged))


def test_a_pull_request(staged: list[Part], at_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    put_pr = lambda: put(staged, create_pr=True)  # noqa: E731
    assert f"--create-pr needs a repo that is there, and the Hub shows no {DIGITS}" in message_of(put_pr)
    put(staged)
    assert put_pr() == [
        "stock: not in the pull request, which changes main alone. Once it is merged, somebody who may write runs the "
        "same command without --create-pr.",
        "main: nothing changed; no pull request was opened.",
    ]
    before = at_hub.repo(DIGITS).files()
    (staged[1].folder / "README.md").write_text("---\ntags:\n- logsnr\n---\nBetter.\n")
    monkeypatch.setenv("HF_TOKEN", at_hub.other_token)
    assert put_pr()[1] == f"main: pull request {at_hub.endpoint}/{DIGITS}/discussions/1"
    assert at_hub.repo(DIGITS).files() == before
    assert at_hub.repo(DIGITS).files("refs/pr/1")["README.md"].endswith(b"Better.\n")


def test_a_repo_that_is_not_ours(staged: list[Part], at_hub: LoopbackHub) -> None:
    api = HfApi()
    api.create_repo(DIGITS)
    api.upload_file(repo_id=DIGITS, path_or_fileobj=b"---\ntags:\n- music\n---\nlogsnr\n", path_in_repo="README.md")
    before = at_hub.repo(DIGITS).files()
    message = message_of(lambda: put(staged))
    assert f"The repo {DIGITS} is there already and wasn't published by logsnr (it has README.md)" in message
    assert "Take another name, or delete or rename that repo" in message
    assert at_hub.repo(DIGITS).files() == before
    api.delete_repo(DIGITS)
    put(staged)


def test_a_space_beside_it(conditional: Path, at_hub: LoopbackHub, logsnr_at_hub: Run) -> None:
    end = logsnr_at_hub("publish", conditional, DIGITS, "--space", "--private")
    assert end.status == 0, end.output
    assert f"space: {at_hub.endpoint}/spaces/{DIGITS}/commit/" in end.output
    space = at_hub.repo(DIGITS, "space")
    assert {"README.md", "app.py", "requirements.txt"} <= set(space.files())
    assert space.private
    assert "app.py" not in at_hub.repo(DIGITS).files()
    assert "space: nothing changed." in logsnr_at_hub("publish", conditional, DIGITS, "--space").output

    HfApi().create_repo(TEXTURES, repo_type="space", space_sdk="gradio")
    HfApi().upload_file(repo_id=TEXTURES, repo_type="space", path_or_fileobj=b"x", path_in_repo="mine.py")
    message = logsnr_at_hub("publish", conditional, TEXTURES, "--space").message
    assert f"The Space {TEXTURES} is there already and wasn't published by logsnr (it has mine.py)" in message
    assert ("model", TEXTURES) not in at_hub.repos  # seen before anything is sent


def test_private(staged: list[Part], at_hub: LoopbackHub) -> None:
    put(staged, private=True)
    assert at_hub.repo(DIGITS).private
    put(staged)  # a private repo stays one
    assert at_hub.repo(DIGITS).private
    at_hub.repo(DIGITS).private = False
    assert "is there and public. Make it private in its settings" in message_of(lambda: put(staged, private=True))


@pytest.mark.parametrize(
    "name", ["digits", "ada/two words", "a/b/c", "ada/x--y", "ada/x.git", "ada/", f"ada/{'x' * 96}"]
)
def test_a_name_that_the_hub_does_not_take(name: str, tmp_path: Path, logsnr: Run) -> None:
    message = logsnr("publish", tmp_path, name).message
    assert "REPO_ID must be owner/name, of letters, digits and single . _ - between them" in message
    assert len(message.splitlines()) == 1


def test_figures_of_an_earlier_model_are_not_published(conditional: Path, tmp_path: Path, logsnr: Run) -> None:
    trained = tmp_path / "run"
    shutil.copytree(conditional, trained)
    for measured, published in ((model_digest(trained / MODEL), True), ("0123456789abcdef", False)):
        figures = {"fid": {"value": 1.0}, "protocol": {"model_hash": measured}}
        (trained / "metrics.json").write_text(json.dumps(figures))
        ended = logsnr("publish", trained, DIGITS, "--stage", tmp_path / str(published))
        assert ended.status == 0
        assert ("is of an earlier state of the model, and is left out" in ended.output) is not published
        assert (tmp_path / str(published) / "main" / "run" / "metrics.json").is_file() is published


def test_what_cannot_be_published(conditional: Path, tmp_path: Path, logsnr_at_hub: Run, hub: LoopbackHub) -> None:
    unfinished = tmp_path / "run"
    shutil.copytree(conditional, unfinished)
    shutil.rmtree(unfinished / "model")
    edited = tmp_path / "edited"
    shutil.copytree(conditional, edited)
    (pipeline_file,) = (edited / "model").glob("pipeline_*.py")
    pipeline_file.write_text(pipeline_file.read_text() + "\n# and more\n")
    leaky = tmp_path / "leaky"
    shutil.copytree(conditional, leaky)
    (leaky / "metrics.json").write_text(json.dumps({"fid": {"value": 1.0, "cache": str(Path.home() / "x")}}))
    for source, words in [
        (tmp_path / "nothing", f"There is no folder {tmp_path / 'nothing'}"),
        (unfinished, f"`logsnr export {unfinished}` makes a model of the last checkpoint"),
        (edited, f"{pipeline_file.name} was changed after it was saved"),
        (leaky, f"main/run/metrics.json has your home folder ({Path.home()})"),
    ]:
        assert words in logsnr_at_hub("publish", source, DIGITS).message
    assert not hub.repos
    assert logsnr_at_hub("export", unfinished).status == 0
    assert logsnr_at_hub("publish", unfinished, DIGITS).status == 0
    for options, words in [
        (("--license", "Apache 2.0"), "--license must be a name from the Hub's list"),
        (("--stage", tmp_path / "s", "--dry-run"), "give one of them"),
    ]:
        assert words in logsnr_at_hub("publish", conditional, DIGITS, *options).output.replace("\n", " ")


# Without the Hub


def test_dry_run_lists_every_file_with_its_size_and_reason(conditional: Path, tmp_path: Path, logsnr: Run) -> None:
    """No Hub, no token, nothing left behind."""
    end = logsnr("publish", conditional, DIGITS, "--dry-run")
    assert end.status == 0, end.output
    assert "Nothing was sent." in end.output
    listed = re.findall(r"^  (\S+) +([\d.]+ k?M?B)  (\S.*)$", end.output, re.MULTILINE)
    assert {path.name for path in tmp_path.iterdir()} == {"log.txt"}

    out = tmp_path / "staged"
    assert logsnr("publish", conditional, DIGITS, "--stage", out).status == 0
    files = sorted(
        str(p.relative_to(out / branch))
        for branch in ("main", "stock")
        for p in (out / branch).rglob("*")
        if p.is_file()
    )
    assert sorted(path for path, _, _ in listed) == files
    assert logsnr("publish", conditional, DIGITS, "--stage", out).status == 0  # replaced
    (tmp_path / "mine").mkdir()
    assert "wasn't staged by logsnr" in logsnr("publish", conditional, DIGITS, "--stage", tmp_path / "mine").message


def test_nothing_of_the_machine_is_staged(conditional: Path, staged: list[Part], folder: Path) -> None:
    text = b"\n".join(p.read_bytes() for b in staged for p in b.folder.rglob("*") if p.is_file())
    for trace in (str(folder), str(conditional), str(Path.home()), "pytest-of"):
        assert trace.encode() not in text, trace
    config = json.loads((staged[1].folder / "run" / "config.json").read_text())
    assert config["config"]["data"]["source"] == "path/to/images"
    assert sorted(config) == ["config", "data", "format", "kind", "network", "versions"]
