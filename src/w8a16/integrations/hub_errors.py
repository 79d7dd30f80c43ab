"""What huggingface_hub raises, as our errors: one line that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from w8a16.checkpoint import shown
from w8a16.errors import CheckpointError, ResourceError, W8A16Error

_HTTP_LIBRARIES = ("httpx", "httpx2")  # versions of huggingface_hub differ
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def explained(hub: Any, repository: str, revision: str) -> Iterator[None]:
    """Turn whatever the library raises inside into CheckpointError or ResourceError."""
    try:
        yield
    except W8A16Error:
        raise
    except Exception as error:  # it lets errors of its HTTP library, tqdm and the system through
        raise _translate(hub, error, repository, revision) from error


def is_unreachable(hub: Any, error: Exception) -> bool:
    """Whether the hub gave no answer, so that the cache may answer instead: offline, no network, 5xx."""
    if isinstance(error, hub.errors.OfflineModeIsEnabled):
        return True
    if isinstance(error, hub.errors.HfHubHTTPError):
        return bool(error.response.status_code >= 500)
    return _is_network(error)


def _translate(hub: Any, error: Exception, repository: str, revision: str) -> W8A16Error:
    name, endpoint, errors = shown(repository), shown(hub.constants.ENDPOINT), hub.errors
    login = "log in (`hf auth login`, or HF_TOKEN)"
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(f"{name}: access is restricted; ask for it at {endpoint}/{name}, then {login}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"{name}: no such folder here, and no such repository on {endpoint}, or a private one: "
            f"check the name, or {login}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(
            f"{name}: no revision {shown(revision)}; expected a branch, tag or commit of {endpoint}/{name}"
        )
    if isinstance(error, errors.HFValidationError):
        return CheckpointError(f"{name}: not a hub id: {_line(error)}")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _not_in_cache(hub, error, name, shown(revision))
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error, name, endpoint, login)
    if _is_network(error):
        return ResourceError(
            f"{name}: the connection to {endpoint} failed ({_line(error)}); check the network and start "
            "again, what is complete stays in the cache"
        )
    if isinstance(error, OSError):
        cache = shown(hub.constants.HF_HUB_CACHE)
        hint = "; make room or set HF_HOME to a folder on another disk" if error.errno in _FULL else ""
        return ResourceError(f"{name}: downloading to {cache}: {error.strerror or _line(error)}{hint}")
    return CheckpointError(f"{name}: huggingface_hub cannot download it: {_line(error)}")


def _not_in_cache(hub: Any, error: Exception, name: str, revision: str) -> ResourceError:
    cache = shown(hub.constants.HF_HUB_CACHE)
    if hub.constants.HF_HUB_OFFLINE:
        return ResourceError(
            f"{name}: offline mode is set and the cache {cache} does not hold {revision}; "
            "unset HF_HUB_OFFLINE, or give a local folder"
        )
    reason, endpoint = error.__cause__ or error.__context__ or error, shown(hub.constants.ENDPOINT)
    if isinstance(reason, hub.errors.FileMetadataError):
        return ResourceError(
            f"{name}: {endpoint} does not answer as a hub does; check HF_ENDPOINT, proxy and firewall"
        )
    return ResourceError(
        f"{name}: {endpoint} cannot be reached ({_line(reason)}) and the cache {cache} "
        f"does not hold {revision}; check the network, or give a local folder"
    )


def _refused(error: Any, name: str, endpoint: str, login: str) -> W8A16Error:
    status = error.response.status_code
    if status in (401, 403):
        return CheckpointError(f"{name}: {endpoint} refuses access ({status}); {login} with a valid token")
    advice = "too many requests: wait a while, or " + login if status == 429 else "try again later"
    return ResourceError(f"{name}: {endpoint} answered {status}; {advice}")


def _is_network(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return library in _HTTP_LIBRARIES or isinstance(error, (ConnectionError, TimeoutError))


def _line(error: BaseException) -> str:
    """The first line of its text that says anything, or its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0].rstrip(".")) if lines else type(error).__name__
