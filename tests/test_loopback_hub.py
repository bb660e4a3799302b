"""The loopback Hub, driven by the real client: it does what the Hub does, and fails where it is told to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from loopback_hub import LoopbackHub

REPO = "ada/digits"
WEIGHTS = "unet/weights.safetensors"


@pytest.fixture
def api(at_hub: LoopbackHub) -> HfApi:
    client = HfApi()
    client.create_repo(REPO)
    return client


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Digits\n")
    (tmp_path / "model" / "model_index.json").write_text("{}")
    (tmp_path / "model" / WEIGHTS).write_bytes(os.urandom(100_000))
    return tmp_path / "model"


def content(folder: Path | str) -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_is_uploaded_is_downloaded(hub: LoopbackHub, api: HfApi, model: Path) -> None:
    first = api.upload_folder(repo_id=REPO, folder_path=model)
    assert (
        content(snapshot_download(REPO))
        == hub.repo(REPO).files()
        == content(model) | {".gitattributes": hub.repo(REPO).files()[".gitattributes"]}
    )
    assert api.repo_info(REPO).sha == first.oid
    assert [r.status for r in hub.asked("PUT", "/lfs/")] == [200]  # the weights; the others are regular files
    assert api.upload_folder(repo_id=REPO, folder_path=model).oid == first.oid  # nothing new, no commit

    (model / "model_index.json").write_text('{"a": 1}')
    second = api.upload_folder(repo_id=REPO, folder_path=model, delete_patterns="*", commit_message="again")
    assert [c.commit_id for c in api.list_repo_commits(REPO)][:2] == [second.oid, first.oid]
    assert len(hub.asked("PUT", "/lfs/")) == 1
    assert Path(hf_hub_download(REPO, "model_index.json", revision=first.oid)).read_text() == "{}"
    assert Path(hf_hub_download(REPO, "model_index.json")).read_text() == '{"a": 1}'


def test_branches_deletions_and_pull_requests(hub: LoopbackHub, api: HfApi, model: Path) -> None:
    api.upload_folder(repo_id=REPO, folder_path=model)
    api.create_branch(REPO, branch="stock")
    api.create_branch(REPO, branch="stock", exist_ok=True)
    changes = [CommitOperationDelete("unet/"), CommitOperationDelete("README.md"), CommitOperationAdd("b.txt", b"b")]
    api.create_commit(REPO, changes, commit_message="less", revision="stock")
    assert set(api.list_repo_files(REPO, revision="stock")) == {".gitattributes", "model_index.json", "b.txt"}
    assert WEIGHTS in api.list_repo_files(REPO)
    assert [entry.path for entry in api.list_repo_tree(REPO, "unet")] == [WEIGHTS]
    with pytest.raises(HfHubHTTPError, match="doesn't exist"):
        api.delete_file("nothing.txt", REPO)
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(REPO, revision="nowhere")

    theirs = HfApi(token=hub.other_token)
    with pytest.raises(HfHubHTTPError, match="403 Forbidden"):
        theirs.upload_folder(repo_id=REPO, folder_path=model, path_in_repo="copy")
    request = theirs.upload_folder(repo_id=REPO, folder_path=model, path_in_repo="copy", create_pr=True)
    assert request.pr_revision == "refs/pr/1"
    assert "copy/README.md" in api.list_repo_files(REPO, revision="refs/pr/1")
    assert "copy/README.md" not in api.list_repo_files(REPO)
    head = api.repo_info(REPO, revision="stock").sha
    api.upload_file(repo_id=REPO, path_or_fileobj=b"c", path_in_repo="c.txt", revision="stock")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.upload_file(repo_id=REPO, path_or_fileobj=b"d", path_in_repo="d.txt", revision="stock", parent_commit=head)


def test_who_may_do_what(hub: LoopbackHub, api: HfApi) -> None:
    nobody, wrong, reader = (HfApi(token=token) for token in (False, "hf_wrong", hub.read_token))
    other = HfApi(token=hub.other_token)
    assert api.whoami()["name"] == "ada"
    assert str(api.create_repo(REPO, exist_ok=True)) == f"{hub.endpoint}/{REPO}"
    api.create_repo("ada/secret", private=True)
    api.upload_file(repo_id="ada/secret", path_or_fileobj=b"x", path_in_repo="x.txt")
    for client in (nobody, other):
        assert client.repo_exists(REPO)
        assert not client.repo_exists("ada/secret")
        with pytest.raises(RepositoryNotFoundError):
            client.repo_info("ada/nothing")
    refused: list[tuple[Any, str, str]] = [
        (nobody, "ada/mine", "401"),
        (wrong, "ada/mine", "401"),
        (reader, "ada/mine", "403"),
        (other, "ada/mine", "403"),
        (api, REPO, "409"),
    ]
    for client, name, status in refused:
        with pytest.raises(HfHubHTTPError, match=status):
            client.create_repo(name)
    with pytest.raises(HFValidationError):
        api.create_repo("ada/two words")
    assert api.repo_exists("ada/secret")
    api.delete_repo("ada/secret")
    assert not api.repo_exists("ada/secret")


def test_metadata_is_checked(hub: LoopbackHub, api: HfApi) -> None:
    for text, words in [
        ("---\ntags: [1]\n---\n", '"tags" must be an array of strings'),
        ("---\nlicense: Apache 2.0\n---\n", '"license" must be one of'),
        ("---\na: [\n---\n", "YAML can't be parsed"),
        ("---\nmodel-index:\n- name: x\n  results:\n  - metrics: []\n---\n", r"results\[0\]\.task\.type"),
    ]:
        with pytest.raises(ValueError, match=words):
            api.upload_file(repo_id=REPO, path_or_fileobj=text.encode(), path_in_repo="README.md")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(repo_id=REPO, path_or_fileobj=b"# Hello\n", path_in_repo="README.md")
    api.create_repo("ada/demo", repo_type="space", space_sdk="gradio")
    with pytest.raises(ValueError, match='"sdk" must be one of'):
        api.upload_file(
            repo_id="ada/demo", repo_type="space", path_or_fileobj=b"---\ntags: []\n---\n", path_in_repo="README.md"
        )
    card = b"---\nsdk: gradio\ncolorFrom: blue\ncolorTo: green\n---\n"
    api.upload_file(repo_id="ada/demo", repo_type="space", path_or_fileobj=card, path_in_repo="README.md")
    assert hub.repo("ada/demo", "space").files()["README.md"] == card
    assert Path(hf_hub_download("ada/demo", "README.md", repo_type="space")).read_bytes() == card


def test_what_the_client_survives_by_itself(hub: LoopbackHub, api: HfApi, model: Path) -> None:
    hub.fail("PUT", "/lfs/", "cut request")
    api.upload_folder(repo_id=REPO, folder_path=model)
    assert [r.status for r in hub.asked("PUT", "/lfs/")] == [0, 200]
    hub.fail("GET", r"/resolve/.*\.safetensors", "cut answer")
    assert content(snapshot_download(REPO))[WEIGHTS] == content(model)[WEIGHTS]
    assert [r.status for r in hub.asked("GET", r"safetensors")] == [0, 200]


def test_what_it_does_not_survive(hub: LoopbackHub, api: HfApi, model: Path) -> None:
    for how, skip, done in [("cut request", 0, False), (429, 0, False), (500, 0, False), ("cut answer", 0, True)]:
        (model / "model_index.json").write_text(f'"{how}"')
        hub.fail("POST", "/commit/main", how, skip=skip)
        with pytest.raises(Exception, match=r"disconnected|429|500|closed connection"):
            api.upload_folder(repo_id=REPO, folder_path=model)
        there = hub.repo(REPO).files().get("model_index.json") == f'"{how}"'.encode()
        assert there == done
        api.upload_folder(repo_id=REPO, folder_path=model)
        assert hub.repo(REPO).files()["model_index.json"] == f'"{how}"'.encode()
    assert len(hub.asked("PUT", "/lfs/")) == 1  # the weights were kept

    hub.fail("GET", "/api/models", 500, skip=1)
    assert api.repo_exists(REPO)
    with pytest.raises(HfHubHTTPError, match="500"):
        api.repo_info(REPO)
    hub.stop()
    with pytest.raises(Exception, match="refused"):  # a class of the HTTP library, whichever that is
        api.repo_info(REPO)
    hub.start()
    assert api.repo_exists(REPO)
