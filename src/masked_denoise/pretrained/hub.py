"""Models on the Hugging Face Hub: downloaded into the cache and checked, or pushed."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import CONFIG, parse_config
from ..errors import WeightsError
from ..weights import WEIGHTS, sha256_of
from .failures import Request, explained
from .place import HUB, ModelSource, find_place

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser


def fetch(
    place: ModelSource,
    *,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Return the folder in the cache that holds a model of the Hub, downloaded if it is not there.

    Both files are of one commit. Downloaded weights are checked against their SHA-256 digests in
    config.json, on the Hub and in the table of named models, and removed from the cache if they
    differ. For a model in the cache there is one request, for the current commit of a branch, and
    none if the revision is a commit.

    Raises:
        WeightsError: the model cannot be found or downloaded, or is damaged.
    """
    from huggingface_hub import try_to_load_from_cache

    options = {
        "cache_dir": cache_dir, "token": token, "local_files_only": local_files_only,
        "force_download": force_download,
    }  # fmt: skip
    config = _download(place, CONFIG, place.revision, options)
    try:
        digest = parse_config(config).get("weights_sha256")
    except WeightsError as error:
        _forget(config)
        raise WeightsError(
            f"{error}. It is out of the cache now: load again to fetch it"
        ) from error
    commit = _commit_of(config, place)
    name = _path(place, WEIGHTS)
    cached = try_to_load_from_cache(place.repository, name, cache_dir=cache_dir, revision=commit)
    weights = _download(place, WEIGHTS, commit or place.revision, options)
    if force_download or not isinstance(cached, str):
        _check(weights, {digest, place.sha256, _digest_of_hub(weights)} - {None}, place)
    return config.parent


def push(
    denoiser: AsymmetricMaskDenoiser,
    repository: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a denoiser",
    create_pr: bool = False,
    before_after: Any = None,
) -> str:
    """Save a denoiser into a repository, created if it is missing, and return the commit's URL.

    Raises:
        WeightsError: a setting cannot be stored, or the Hub refused.
    """
    from ..checkpoint import save_model
    from .card import README, write_card

    place = find_place(HUB + repository.removeprefix(HUB), revision=revision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(denoiser, folder)
        with explained(Request(place, token=token, writes=True)):
            _create(place, private, token)
            card = _card_there(place, token)
        if card is not None:
            (folder / README).write_bytes(card)
        write_card(denoiser, folder, repository=place.repository, before_after=before_after)
        return push_folder(
            folder, place, token=token, commit_message=commit_message, create_pr=create_pr
        )


def push_folder(
    folder: Path,
    place: ModelSource,
    *,
    token: str | bool | None = None,
    commit_message: str = "Upload a denoiser",
    create_pr: bool = False,
) -> str:
    """Upload a model folder into an existing repository, and return the commit's URL.

    Raises:
        WeightsError: the Hub refused; the message says why.
    """
    from huggingface_hub import HfApi

    from .card import PICTURE, README

    request = Request(place, token=token, writes=True)
    with explained(request):
        api = HfApi(token=token, library_name="masked-denoise")
        commit = api.upload_folder(
            repo_id=place.repository,
            folder_path=str(folder),
            revision=place.revision,
            commit_message=commit_message,
            create_pr=create_pr,
            allow_patterns=[CONFIG, WEIGHTS, README, PICTURE],
        )
    return str(getattr(commit, "pr_url", None) or commit.commit_url)


def _create(place: ModelSource, private: bool | None, token: str | bool | None) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="masked-denoise")
    if private is None:  # older libraries would send the None
        api.create_repo(place.repository, exist_ok=True)
    else:
        api.create_repo(place.repository, private=private, exist_ok=True)
    if place.revision is not None:
        api.create_branch(place.repository, branch=place.revision, exist_ok=True)


def _card_there(place: ModelSource, token: str | bool | None) -> bytes | None:
    """Return the README.md of a repository, None if there is none."""
    from huggingface_hub import errors, hf_hub_download

    from .card import README

    with tempfile.TemporaryDirectory() as cache:
        try:
            path = hf_hub_download(
                place.repository, README, revision=place.revision, token=token, cache_dir=cache
            )
        except errors.LocalEntryNotFoundError:
            raise
        except errors.EntryNotFoundError:
            return None
        return Path(path).read_bytes()


def _download(place: ModelSource, file: str, revision: str | None, options: dict[str, Any]) -> Path:
    from huggingface_hub import hf_hub_download

    from .. import __version__

    request = Request(
        place, _path(place, file), options["token"], offline=options["local_files_only"]
    )
    with explained(request):
        path: str = hf_hub_download(
            place.repository,
            file,
            subfolder=place.subfolder,
            revision=revision,
            library_name="masked-denoise",
            library_version=__version__,
            **options,
        )
        return Path(path)


def _path(place: ModelSource, file: str) -> str:
    return file if place.subfolder is None else f"{place.subfolder}/{file}"


def _commit_of(path: Path, place: ModelSource) -> str | None:
    """Return the commit that a cached file is from: .../snapshots/COMMIT/[subfolder/]file."""
    commit = path.parents[_path(place, path.name).count("/")].name
    return commit if re.fullmatch("[0-9a-f]{40}", commit) else None


def _digest_of_hub(path: Path) -> str | None:
    """Return the SHA-256 by which the Hub stores a large file: the name of its blob."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def _check(weights: Path, digests: set[str | None], place: ModelSource) -> None:
    came = sha256_of(weights)
    if digests - {came}:
        _forget(weights)
        raise WeightsError(
            f"{WEIGHTS} of {place.repository} came damaged: its SHA-256 is {came}, "
            f"{' and '.join(sorted(map(str, digests)))} is needed. It is out of the cache now: "
            "load again to fetch it. If that does not help, the repository itself is wrong, or "
            "something between here and there changes files"
        )


def _forget(path: Path) -> None:
    """Remove a file from the cache: its name in the snapshot, and the blob that it points to."""
    blob = path.resolve()
    try:
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"{blob} is damaged and cannot be removed: {error.strerror}") from error
