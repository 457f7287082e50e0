"""Where to get a named model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..config import CONFIG
from ..weights import WEIGHTS
from .table import PretrainedModel


class Availability(NamedTuple):
    """Where a named model is.

    Attributes:
        cached: whether it was downloaded, and loads without a connection.
        hub: "yes" or "no", "not checked", or why there was no answer.
    """

    cached: bool
    hub: str

    def words(self) -> str:
        """Return a description in words.

        Every model can be converted from a file that its authors published (`masked-denoise
        convert`).

        >>> Availability(True, "not checked").words()
        'cached, to convert'
        """
        told = ["cached"] * self.cached
        if self.hub != "not checked":
            known = {"yes": "on the Hub", "no": "not on the Hub"}
            told.append(known.get(self.hub, f"the Hub: {self.hub}"))
        return ", ".join([*told, "to convert"])


def availability(
    model: PretrainedModel, *, online: bool = False, cache_dir: str | Path | None = None
) -> Availability:
    """Return where a model is; no connection is made unless `online`."""
    from huggingface_hub import try_to_load_from_cache

    def cached(file: str) -> bool:
        found = try_to_load_from_cache(
            model.repository, file, cache_dir=cache_dir, revision=model.revision
        )
        return isinstance(found, str)

    return Availability(
        cached=cached(CONFIG) and cached(WEIGHTS),
        hub=_ask(model) if online else "not checked",
    )


def _ask(model: PretrainedModel) -> str:
    """Return whether the Hub has the model, or why that is not known."""
    from huggingface_hub import HfApi

    from ..errors import WeightsError
    from .failures import Request, explained
    from .place import ModelSource

    place = ModelSource(repository=model.repository, revision=model.revision)
    try:
        with explained(Request(place, WEIGHTS)):
            there = HfApi(library_name="masked-denoise").file_exists(
                model.repository, WEIGHTS, revision=model.revision
            )
    except WeightsError as error:
        return str(error)
    return "yes" if there else "no"
