"""Model folders from a hub: a repository's weights and descriptions, through huggingface_hub's own cache.

Endpoint, token, cache folder and offline mode are huggingface_hub's, from its environment variables
(HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE). Pickles and code are never downloaded.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w8a16.checkpoint import shown
from w8a16.convert import size
from w8a16.errors import CheckpointError, MissingExtraError, ResourceError
from w8a16.integrations.hub_errors import explained, is_unreachable
from w8a16.integrations.hub_files import WEIGHTS, choose, missing_parts

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.][\w./-]*)?", re.ASCII)
_FILES = (WEIGHTS, ".json", ".bin", ".pt", ".pth", ".gguf")
_DEFAULT_REVISION = "main"


@dataclass(frozen=True)
class Download:
    """What `fetch` downloads of a repository, or finds in the cache."""

    repository: str
    commit: str
    files: tuple[str, ...]
    """Names inside the repository."""
    total_bytes: int
    """Of all files, 0 where they were found in the cache without asking the hub."""
    missing_bytes: int
    """Of the files that are not in the cache yet."""
    offline: str | None = None
    """Why the cache was taken without asking the hub whether there is something newer; None: it was asked."""

    def sentence(self) -> str:
        """One line to show before the download starts.

        Example:
            >>> Download("org/name", "0a1b2c3d4e", ("config.json",), 1000, 0).sentence()
            'org/name at 0a1b2c3d: 1 file, 1.00 kB, all in the cache'
        """
        if self.offline:
            return f"{self.repository} at {self.commit[:8]}: from the cache, {self.offline}"
        count = f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}"
        todo = f"{size(self.missing_bytes)} to download" if self.missing_bytes else "all in the cache"
        return f"{self.repository} at {self.commit[:8]}: {count}, {size(self.total_bytes)}, {todo}"


def looks_like_hub_id(text: str) -> bool:
    """Whether a text names a repository, `org/name` or `org/name@revision`, rather than a path.

    A path that exists is a path, and so is one that starts with `.`, `/` or `~` or names a weight file.

    Example:
        >>> looks_like_hub_id("org/name@v1"), looks_like_hub_id("./org/name"), looks_like_hub_id("name")
        (True, False, False)
    """
    if os.path.lexists(text) or text.endswith(_FILES):
        return False
    return _ID.fullmatch(text) is not None


def survey(repository: str, *, revision: str | None = None, token: str | bool | None = None) -> Download:
    """Ask the hub what `fetch` would download; nothing is downloaded. Arguments and errors as there."""
    return _find(repository, revision, token)[0]


def fetch(
    repository: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    announce: Callable[[Download], object] | None = None,
    bars: bool = True,
) -> Path:
    """Download a repository's safetensors weights, json and text files; return the folder in the cache.

    `repository` is `org/name` or `org/name@revision`, where a revision is a branch, tag or commit; `announce`
    is called once before the download; `bars` are huggingface_hub's own, on standard error.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        CheckpointError: no such repository or revision, no access to it, or no safetensors weights in it.
        ResourceError: the hub cannot be reached and the cache does not hold the whole repository, the
            download broke off, or the disk is full.
    """
    download, folder = _find(repository, revision, token)
    if announce:
        announce(download)
    if folder is not None:
        return folder
    hub = _library()
    _check_space(hub, download)
    name, asked = _split(repository, revision)
    with explained(hub, name, asked):
        fetched = Path(
            hub.snapshot_download(
                name,
                revision=asked,
                token=token,
                allow_patterns=[glob.escape(file) for file in download.files],
                tqdm_class=None if bars else _silent(hub),
            )
        )
    if fetched.name != download.commit:
        raise ResourceError(f"{shown(name)}: {shown(asked)} was changed during the download; start it again")
    return fetched


def _find(repository: str, revision: str | None, token: str | bool | None) -> tuple[Download, Path | None]:
    """What there is to download; or, where the hub cannot be reached, what the cache holds and its folder."""
    name, asked = _split(repository, revision)
    hub = _library()
    with explained(hub, name, asked):
        try:
            info = hub.HfApi(token=token).model_info(name, revision=asked, files_metadata=True)
        except Exception as error:
            if not is_unreachable(hub, error):
                raise
            return _cached(hub, name, asked, error)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    files = choose(sizes)
    if not any(file.endswith(WEIGHTS) for file in files):
        pickles = sorted(file for file in sizes if file.endswith((".bin", ".pt", ".pth", ".ckpt")))
        hint = f" (found {shown(', '.join(pickles))}: pickle is never read)" if pickles else ""
        raise CheckpointError(f"{shown(name)}: holds no {WEIGHTS} weights at {shown(asked)}{hint}")
    missing = [
        file
        for file in files
        if not isinstance(hub.try_to_load_from_cache(name, file, revision=info.sha), str)
    ]
    download = Download(
        name, info.sha, tuple(files), sum(sizes[file] for file in files), sum(sizes[file] for file in missing)
    )
    return download, None


def _cached(hub: Any, name: str, revision: str, error: Exception) -> tuple[Download, Path]:
    """The folder in the cache, if all its weights are there."""
    # No patterns: whether the folder has what we need is checked below, whoever downloaded it, and how much.
    folder = Path(hub.snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[]))
    found = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    files = choose(found)
    weights = [file for file in files if file.endswith(WEIGHTS)]
    lacking = missing_parts(weights) if weights else [f"any {WEIGHTS} file"]
    why = _why_unreachable(hub, error)
    if lacking:
        raise ResourceError(
            f"{shown(name)}: {why}, and the cache lacks {shown(', '.join(lacking))}; "
            "connect once to complete the download"
        )
    return Download(name, folder.name, tuple(files), 0, 0, why), folder


def _why_unreachable(hub: Any, error: Exception) -> str:
    if hub.constants.HF_HUB_OFFLINE:
        return "offline mode (HF_HUB_OFFLINE) is set"
    return f"{shown(hub.constants.ENDPOINT)} cannot be reached ({type(error).__name__})"


def _split(repository: str, revision: str | None) -> tuple[str, str]:
    """The name and the revision of `name@revision`."""
    name, at, written = repository.partition("@")
    if at and revision is not None and revision != written:
        raise CheckpointError(
            f"{shown(repository)}: the revision is given twice, also as {shown(revision)}; give it once"
        )
    if not _ID.fullmatch(repository):
        raise CheckpointError(f"{shown(repository)}: expected a hub id, org/name or org/name@revision")
    return name, written or revision or _DEFAULT_REVISION


def _check_space(hub: Any, download: Download) -> None:
    cache = Path(hub.constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if download.missing_bytes > free:
        raise ResourceError(
            f"{shown(download.repository)}: the download needs {size(download.missing_bytes)}, "
            f"{shown(cache)} has {size(free)} free; make room or set HF_HOME to a folder on another disk"
        )


def _silent(hub: Any) -> type[Any]:
    """A progress bar that shows nothing; the library wants a class."""

    class Silent(hub.utils.tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

    return Silent


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub", "downloading from a hub") from error
    return huggingface_hub
