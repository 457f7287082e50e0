"""Errors of the Hub in words: what happened, and what to type."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..errors import WeightsError, first_line
from .place import ModelSource


class Request(NamedTuple):
    """What was asked of the Hub.

    Attributes:
        place: repository and revision.
        file: in the repository.
        token: as given.
        writes: whether the request was to change the repository.
        offline: whether no connection was to be made.
    """

    place: ModelSource
    file: str = ""
    token: str | bool | None = None
    writes: bool = False
    offline: bool = False


@contextmanager
def explained(request: Request) -> Iterator[None]:
    """Turn errors of `huggingface_hub` in the block into a WeightsError that says what to do."""
    try:
        yield
    except WeightsError:
        raise
    except _client_errors() as error:
        raise WeightsError(explain(error, request)) from error


def _client_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of the client, and those of its web client.

    The web client has changed between versions. Its base exception is among the bases of the
    client's error for a bad response.
    """
    from huggingface_hub import errors

    bases = [
        base
        for base in errors.HfHubHTTPError.__mro__
        if issubclass(base, Exception) and base is not Exception
    ]
    return (*bases, errors.EntryNotFoundError, OSError, ValueError, RuntimeError)


def explain(error: Exception, request: Request) -> str:
    """Return the message for an error of the client."""
    from huggingface_hub import errors

    repository = request.place.repository
    verb = "push to" if request.writes else "load"
    chain = _chain(error)
    status = next((code for code in map(_status, chain) if code), None)

    def came(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if request.offline or came(errors.OfflineModeIsEnabled):
        revision = request.place.revision or "main"
        told = (
            f"{repository} ({revision}) is not complete in the cache, and no connection is made; "
            "load it once without local_files_only and HF_HUB_OFFLINE"
        )
    elif came(errors.HFValidationError):
        told = f"'{repository}' is not a name of a repository; owner/name is needed"
    elif came(errors.GatedRepoError):
        told = (
            f"access to {repository} is granted by its owner (it is gated); ask for it on "
            f"{_address(repository)}, then {_login(request)}"
        )
    elif came(errors.RepositoryNotFoundError):
        told = (
            f"there is no repository {repository}, or it is private; check the name, or "
            f"{_login(request)}"
        )
    elif came(errors.RevisionNotFoundError):
        told = f"{repository} has no revision '{request.place.revision}'{_near_revision(request)}"
    elif status == 404 and came(errors.EntryNotFoundError):
        told = f"{repository} has no {request.file}{_other_folders(request)}"
    elif status in (401, 403):
        told = (
            f"the Hub refused the request ({status}); the token is not valid or not enough: "
            f"{_login(request)}"
        )
    elif status == 429:
        told = "the Hub got too many requests (429) from here; wait some minutes and try again"
    elif status is not None:
        trouble = "has trouble of its own" if status >= 500 else "did not accept the request"
        told = f"the Hub {trouble} ({status}); try again later"
    elif any("onsistency check" in str(one) for one in chain):
        told = "the download came incomplete; try again"
    elif _is_network(chain):
        told = (
            f"no answer from the Hub ({type(chain[-1]).__name__}: {first_line(chain[-1])}); check "
            "the connection, or pass local_files_only=True for what is in the cache"
        )
    else:
        told = f"{type(error).__name__}: {first_line(error)}"
    message = f"cannot {verb} {request.place.model.name if request.place.model else repository}"
    message += f": {told}"
    if request.place.model is None and not request.writes and status is None:
        message += f". (There is no folder {repository} on this machine either.)"
    if request.place.model is not None and not request.writes:
        message += f". {request.place.model.missing_message()}"
    return message


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and those that caused it."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    return chain


def _status(error: BaseException) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def _is_network(chain: list[BaseException]) -> bool:
    from huggingface_hub import errors

    web = [
        base
        for base in errors.HfHubHTTPError.__mro__
        if base.__module__.split(".")[0] not in ("builtins", "huggingface_hub")
    ]
    return any(isinstance(one, (*web, ConnectionError, TimeoutError)) for one in chain)


def _login(request: Request) -> str:
    right = "with write access" if request.writes else "that may read it"
    if request.token:
        return f"pass a token {right}"
    login = "`hf auth login` (`huggingface-cli login` before huggingface_hub 0.34)"
    return f"pass token=... ({right}), or type {login}"


def _address(repository: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"


def _near_revision(request: Request) -> str:
    """Return the nearest branch or tag, as the end of a message."""

    def look() -> list[str]:
        from huggingface_hub import HfApi

        refs = HfApi(token=request.token).list_repo_refs(request.place.repository)
        return [ref.name for ref in (*refs.branches, *refs.tags)]

    names = _asked(look)
    near = difflib.get_close_matches(request.place.revision or "", names, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    return f"{hint} There are: {', '.join(names[:20])}" if names else ""


def _other_folders(request: Request) -> str:
    """Return which folders of the repository hold models, as the end of a message."""

    def look() -> list[str]:
        from huggingface_hub import HfApi

        return HfApi(token=request.token).list_repo_files(
            request.place.repository, revision=request.place.revision
        )

    files = _asked(look)
    name = request.file.rpartition("/")[2]
    folders = [file.rpartition("/")[0] for file in files if file.rpartition("/")[2] == name]
    if "" in folders:
        return "; it has one at its top: leave subfolder out"
    if folders:
        return f"; pass subfolder={folders[0]!r}" + (
            f" (there are also {', '.join(folders[1:9])})" if folders[1:] else ""
        )
    return "; it holds no model of masked-denoise"


def _asked(look: Callable[[], list[str]]) -> list[str]:
    """Return the Hub's answer, or nothing if that fails: the message has a reason already."""
    try:
        return look()
    except _client_errors():
        return []
