"""Downloads from a hub, against a stand-in on 127.0.0.1; no other host is reached."""

import os
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save

from support.hub_server import Repository, hub_server
from w8a16.errors import CheckpointError, MissingExtraError, ResourceError
from w8a16.integrations import hub as hub_module
from w8a16.integrations.hub import Download, fetch, looks_like_hub_id, survey

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
file_download = pytest.importorskip("huggingface_hub.file_download")

WEIGHTS = save({"weight": torch.arange(4096.0)})
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "modeling_x.py": b"import os",
}
FETCHED = ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with `org/tiny`, the library pointed to it, an empty cache, and no way to another host."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with hub_server(org__tiny=Repository(dict(FILES))) as server:
        point_to(monkeypatch, server.url, tmp_path / "cache")
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()


def point_to(monkeypatch, url, cache):
    """What HF_ENDPOINT and HF_HOME do when the library is imported; nothing but this machine is reached."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(cache / "agents"), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    no_waiting = SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr(file_download, "time", no_waiting)


@pytest.fixture(autouse=True)
def no_other_host(monkeypatch):
    lookup = socket.getaddrinfo

    def local_only(host, *arguments, **options):
        assert host in ("127.0.0.1", "localhost"), f"reaches out to {host}"
        return lookup(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", local_only)


def names(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_fetch(hub):
    folder = fetch("org/tiny")
    assert names(folder) == FETCHED
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert sorted(hub.downloads()) == FETCHED, "something else was downloaded"


def test_a_second_fetch_downloads_nothing(hub):
    folder = fetch("org/tiny")
    assert fetch("org/tiny") == folder
    assert sorted(hub.downloads()) == FETCHED


def test_survey_says_the_bytes_and_downloads_nothing(hub):
    size = len(WEIGHTS) + 2 + 8
    download = survey("org/tiny")
    assert (download.repository, download.commit) == ("org/tiny", hub.repositories["org/tiny"].commit)
    assert sorted(download.files) == FETCHED
    assert (download.total_bytes, download.missing_bytes, download.offline) == (size, size, None)
    assert hub.downloads() == []
    assert f"3 files, {16.5:.1f} kB, {16.5:.1f} kB to download" in download.sentence()


def test_announce_comes_before_the_download(hub):
    seen = []
    fetch("org/tiny", announce=lambda download: seen.append((download, hub.downloads())))
    fetch("org/tiny", announce=lambda download: seen.append((download, None)))
    assert [type(download) for download, _ in seen] == [Download, Download]
    assert seen[0][1] == []
    assert seen[0][0].missing_bytes == seen[0][0].total_bytes > len(WEIGHTS)
    assert seen[1][0].missing_bytes == 0
    assert seen[1][0].sentence().endswith("3 files, 16.5 kB, all in the cache")


@pytest.mark.parametrize("spelling", [("org/tiny@v1", None), ("org/tiny", "v1"), ("org/tiny@v1", "v1")])
def test_revisions(hub, spelling):
    hub.repositories["org/tiny"].branches = ("v1",)
    assert names(fetch(spelling[0], revision=spelling[1])) == FETCHED
    with pytest.raises(
        CheckpointError, match=r"org/tiny: no revision main; expected a branch, tag or commit"
    ):
        fetch("org/tiny")


def test_a_commit_is_a_revision(hub):
    commit = hub.repositories["org/tiny"].commit
    assert fetch(f"org/tiny@{commit}").name == commit


def test_variants_and_copies_are_left_out(hub):
    hub.repositories["org/tiny"].files |= {
        "model.fp16.safetensors": b"fp16",
        "consolidated.safetensors": b"copy",
        "vae/diffusion_pytorch_model.fp16.safetensors": b"the only one",
        "vae/config.json": b"{ }",
        ".cache/hidden.json": b"{  }",
    }
    only = ["vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"]
    assert names(fetch("org/tiny")) == sorted([*FETCHED, *only])


def test_names_with_wildcards_are_names(hub):
    hub.repositories["org/tiny"].files |= {"model[1].json": b"[]", "model1.json": b"[1]"}
    assert {"model[1].json", "model1.json"} <= set(names(fetch("org/tiny")))


def test_a_cut_connection_is_resumed(hub, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # bytes that arrived in part do not count
    hub.cut["model.safetensors"] = [1500, 5500]
    folder = fetch("org/tiny")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [request.range for request in hub.requests if request.range]
    assert ranges == ["bytes=1000-", "bytes=6000-"], "what had arrived was downloaded again"


def test_a_download_that_breaks_off_for_good_leaves_no_file(hub):
    hub.cut["model.safetensors"] = [0] * 50
    with pytest.raises(ResourceError, match=r"org/tiny: the connection to http://127.* failed .*start again"):
        fetch("org/tiny")
    cache = os.path.join(constants.HF_HUB_CACHE, "models--org--tiny")
    left = [name for _, _, files in os.walk(cache) for name in files]
    assert not [name for name in left if "safetensors" in name or "incomplete" in name]
    hub.cut.clear()
    assert (fetch("org/tiny") / "model.safetensors").read_bytes() == WEIGHTS


def test_no_such_repository(hub):
    with pytest.raises(CheckpointError) as caught:
        fetch("org/missing")
    assert str(caught.value) == (
        f"org/missing: no such folder here, and no such repository on {hub.url}, or a private one: "
        "check the name, or log in (`hf auth login`, or HF_TOKEN)"
    )


def test_private_repository(hub, monkeypatch):
    hub.repositories["org/tiny"].token = "secret"
    with pytest.raises(CheckpointError, match="or a private one"):
        fetch("org/tiny")
    assert names(fetch("org/tiny", token="secret")) == FETCHED
    shutil.rmtree(constants.HF_HUB_CACHE)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert names(fetch("org/tiny")) == FETCHED


def test_gated_repository(hub):
    hub.repositories["org/tiny"].gated = True
    with pytest.raises(CheckpointError) as caught:
        fetch("org/tiny")
    assert str(caught.value) == (
        f"org/tiny: access is restricted; ask for it at {hub.url}/org/tiny, then "
        "log in (`hf auth login`, or HF_TOKEN)"
    )


def test_only_pickle(hub):
    del hub.repositories["org/tiny"].files["model.safetensors"]
    with pytest.raises(CheckpointError) as caught:
        fetch("org/tiny")
    text = "org/tiny: holds no .safetensors weights at main (found pytorch_model.bin: pickle is never read)"
    assert str(caught.value) == text
    assert hub.downloads() == []


def test_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ResourceError) as caught:
        fetch("org/tiny")
    assert str(caught.value) == (
        f"org/tiny: offline mode is set and the cache {constants.HF_HUB_CACHE} does not hold main; "
        "unset HF_HUB_OFFLINE, or give a local folder"
    )
    assert hub.requests == []


def test_offline_takes_the_cache_and_says_so(hub, monkeypatch):
    folder = fetch("org/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    seen = []
    assert fetch("org/tiny", announce=seen.append) == folder
    assert hub.requests == []
    assert seen[0].sentence() == (
        f"org/tiny at {folder.name[:8]}: from the cache, offline mode (HF_HUB_OFFLINE) is set"
    )


def test_offline_with_half_a_checkpoint_in_the_cache(hub, monkeypatch):
    parts = {f"model-0000{number}-of-00003.safetensors": bytes([number]) for number in (1, 2, 3)}
    hub.repositories["org/tiny"].files = {"config.json": b"{}", **parts}
    folder = fetch("org/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("org/tiny") == folder
    for number in (1, 3):
        (folder / f"model-0000{number}-of-00003.safetensors").unlink()
    with pytest.raises(ResourceError) as caught:
        fetch("org/tiny")
    assert str(caught.value) == (
        "org/tiny: offline mode (HF_HUB_OFFLINE) is set, and the cache lacks "
        "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors; "
        "connect once to complete the download"
    )
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ResourceError, match=r"the cache lacks any \.safetensors file"):
        fetch("org/tiny")


def test_no_network(hub, monkeypatch, tmp_path):
    with hub_server() as gone:
        url = gone.url
    point_to(monkeypatch, url, tmp_path / "cache")
    with pytest.raises(
        ResourceError, match=rf"org/tiny: {url} cannot be reached \(.*\) and the cache .* check"
    ):
        fetch("org/tiny")


def test_no_network_takes_the_cache_and_says_so(hub, monkeypatch, tmp_path):
    folder = fetch("org/tiny")
    hub.failing = 503
    seen = []
    assert fetch("org/tiny", announce=seen.append) == folder
    assert seen[0].offline == f"{hub.url} cannot be reached (HfHubHTTPError)"


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (403, CheckpointError, r"refuses access \(403\); log in"),
        (400, ResourceError, "answered 400; try again later"),
    ],
)
def test_refusals(hub, status, kind, text):
    hub.failing = status
    with pytest.raises(kind, match=text):
        fetch("org/tiny")


def test_a_full_disk_is_found_before_the_download(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        ResourceError, match=r"needs 16\.5 kB, .*hub has 1\.00 kB free; make room or set HF_HOME"
    ):
        fetch("org/tiny")
    assert hub.downloads() == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_disk_that_fills_up_meanwhile(hub, monkeypatch):
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(file_download, "http_get", lambda *a, **k: full.write(b"x"))
    with full, pytest.raises(ResourceError, match="No space left on device; make room or set HF_HOME"):
        fetch("org/tiny")


def test_a_repository_that_changes_meanwhile(hub):
    def change(download):
        hub.repositories["org/tiny"].files["config.json"] = b'{"new": 1}'

    with pytest.raises(ResourceError, match="org/tiny: main was changed during the download; start it again"):
        fetch("org/tiny", announce=change)


@pytest.mark.parametrize("text", ["tiny", "a/b/c", "org/tiny@", "org/ti\x1bny", "../tiny", "org/tiny@v1@v2"])
def test_what_is_no_hub_id(text):
    with pytest.raises(CheckpointError, match="expected a hub id, org/name or org/name@revision") as caught:
        fetch(text)
    assert "\x1b" not in str(caught.value)


def test_two_revisions():
    with pytest.raises(CheckpointError, match="given twice, also as v2; give it once"):
        fetch("org/tiny@v1", revision="v2")


def test_looks_like_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("org/name", "org/name@v1", "o-r.g/na_me.1", "org/name@refs/pr/3"):
        assert looks_like_hub_id(text), text
    for text in ("name", "./org/name", "/org/name", "~/name", "../name", "org/name/x", "org\\name", "C:a/b"):
        assert not looks_like_hub_id(text), text
    for text in ("", "org/", "/name", "org/name@", "org/model.safetensors", "org/na me"):
        assert not looks_like_hub_id(text), text
    (tmp_path / "org").mkdir()
    assert looks_like_hub_id("org/name")
    (tmp_path / "org" / "name").symlink_to("nowhere")
    assert not looks_like_hub_id("org/name"), "a path that exists is a path, a broken link too"


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        MissingExtraError, match=r"downloading from a hub needs .*: pip install 'w8a16\[hub\]'"
    ):
        hub_module.fetch("org/name")


def test_the_environment_of_a_user(hub, tmp_path):
    """HF_ENDPOINT and HF_HOME as huggingface_hub reads them, in a process of its own; no bars if asked."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    environment = {
        k: v for k, v in environment.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    code = "from w8a16.integrations.hub import fetch; print(fetch('org/tiny', bars=False))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(tmp_path / "home" / "hub" / "models--org--tiny" / "snapshots"))
