"""The model card: README.md of a model folder, generated from config.json."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import write_whole
from ..config import plain
from ..errors import CheckpointError, WeightsError
from ..scheme import NothingHidden
from ..values import middle

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

README, PICTURE = "README.md", "before_after.png"
_MARK = re.compile(r"\n<!-- written by masked-denoise, SHA-256 ([0-9a-f]{64}) -->\n*\Z")
_FURTHER = "The weights were trained further after that, on pictures that are not named here."
_LARGEST_SIDE = 512  # in pixels, of the picture that is shown
_LICENSES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unknown",
}  # fmt: skip


def tell(
    denoiser: AsymmetricMaskDenoiser,
    *,
    license: str | None = None,
    training_data: str | None = None,
    metrics: dict[str, Any] | None = None,
) -> None:
    """Store licence, training data and metrics in `denoiser.card`; None leaves what is there.

    Raises:
        WeightsError: a value has the wrong type.
    """
    for key, text in {"license": license, "training_data": training_data}.items():
        if text is not None and not isinstance(text, str):
            raise WeightsError(f"{key} is {text!r}; a text is needed")
        if text is not None:
            denoiser.card[key] = text
    if metrics is not None:
        if not isinstance(metrics, dict):
            raise WeightsError(
                f"metrics is {metrics!r}; a dict is needed, for example "
                "{'SIDD validation': {'PSNR': 37.93}}"
            )
        denoiser.card["metrics"] = plain(metrics, "metrics")


def after_training(denoiser: AsymmetricMaskDenoiser) -> dict[str, Any]:
    """Return what still holds of `denoiser.card` once its weights are trained further.

    The metrics were those of the old weights. The licence stays: it covers weights derived from
    them.
    """
    card = {key: value for key, value in denoiser.card.items() if key != "metrics"}
    told = card.get("training_data")
    trained = denoiser.fit_record or "source" in card
    if told and trained and _FURTHER not in told:
        card["training_data"] = f"{told} {_FURTHER}"
    return card


def write_card(
    denoiser: AsymmetricMaskDenoiser,
    folder: Path,
    *,
    repository: str | None = None,
    before_after: Any = None,
) -> bool:
    """Write README.md and its picture beside a model; return whether README.md was written.

    A card ends with a line that holds the digest of the text above it. A README.md without such a
    line, or with another text, was written or edited by hand, and is kept.

    Args:
        denoiser: the model in the folder.
        folder: with config.json.
        repository: owner/name, for the usage example; None if not known.
        before_after: a noisy picture, array or tensor, to make the picture from; None makes none.

    Raises:
        CheckpointError: a file cannot be written.
        SizeError, PixelError: the picture cannot be denoised.
    """
    from ..checkpoint import config_of

    path = folder / README
    try:
        if before_after is not None:
            write_whole(folder / PICTURE, before_after_png(denoiser, before_after))
        if path.exists() and not is_generated(path.read_text("utf-8", "replace")):
            return False
        picture = (folder / PICTURE).exists()
        card = model_card(config_of(denoiser), repository=repository, picture=picture)
        write_whole(path, card.encode())
    except OSError as error:
        raise CheckpointError(
            f"cannot write the model card in {folder}: {error.strerror or error}; pass card=False "
            "to do without"
        ) from error
    return True


def is_generated(text: str) -> bool:
    """Return whether a README.md is unchanged since this library wrote it.

    >>> is_generated("# Mine")
    False
    """
    text = text.replace("\r\n", "\n")
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _digest(text[: mark.start()])


def model_card(
    config: dict[str, Any], *, repository: str | None = None, picture: bool = False
) -> str:
    """Return the text of a model card, front matter first.

    Args:
        config: the content of `config.json`.
        repository: owner/name on the Hub.
        picture: whether there is a before_after.png beside it.
    """
    from huggingface_hub import ModelCard

    sections = [
        f"# {(repository or 'Image denoiser').rpartition('/')[2]}",
        _about(config),
        f"![noisy and denoised]({PICTURE})" if picture else "",
        "## Use",
        _usage(config, repository),
        "## Recipe",
        _table(_recipe(config)),
        "## Training data",
        config.get("training_data") or "Not stated.",
        "## Licence of the weights",
        config.get("license") or "Not stated.",
        "## Numbers",
        _numbers(config.get("metrics") or {}),
    ]
    if config.get("source"):
        sections += ["## Source", _table(config["source"])]
    front = _front_matter(config, repository).to_yaml()
    body = "\n\n".join(section for section in sections if section)
    text = str(ModelCard(f"---\n{front}\n---\n\n{body}\n", ignore_metadata_errors=False))
    text = text.replace("\r\n", "\n").rstrip("\n") + "\n"
    return f"{text}\n<!-- written by masked-denoise, SHA-256 {_digest(text)} -->\n"


def before_after_png(denoiser: AsymmetricMaskDenoiser, picture: Any) -> bytes:
    """Return a PNG of a noisy picture beside the denoised one; of a large one, the middle.

    Args:
        picture: array (H, W) or (H, W, C), or tensor (C, H, W).

    Raises:
        SizeError, PixelError: the picture cannot be denoised.
    """
    import io

    from PIL import Image
    from torch import Tensor

    from ..report import side_by_side

    pair = []
    for pixels in (picture, denoiser.denoise(picture)):
        if isinstance(pixels, Tensor):
            pixels = pixels.detach().cpu().movedim(-3, -1).numpy()
        pair.append(middle(np.asarray(pixels), _LARGEST_SIDE))
    shown = side_by_side(
        [list(zip(("noisy", "denoised"), pair, strict=True))], value_range=denoiser.value_range
    )
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "PNG")
    return buffer.getvalue()


def _front_matter(config: dict[str, Any], repository: str | None) -> Any:
    from huggingface_hub import ModelCardData

    stated: str = config.get("license") or "unknown"
    known = stated.lower() in _LICENSES
    more: dict[str, Any] = {} if known else {"license_name": _slug(stated)}
    results = _results(config.get("metrics") or {})
    if results:
        more |= {"eval_results": results, "model_name": (repository or "denoiser").split("/")[-1]}
    return ModelCardData(
        license=stated.lower() if known else "other",
        library_name="masked-denoise",
        pipeline_tag="image-to-image",
        tags=["image-denoising", "self-supervised", "image-restoration", "pytorch"],
        **more,
    )


def _results(metrics: dict[str, Any]) -> list[Any]:
    """Return the numbers of each data set in the Hub's format."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="image-to-image",
            task_name="Image denoising",
            dataset_type=_slug(dataset),
            dataset_name=dataset,
            metric_type=_slug(metric),
            metric_name=metric,
            metric_value=value,
        )
        for dataset, numbers in metrics.items()
        if isinstance(numbers, dict)
        for metric, value in numbers.items()
        if type(value) in (int, float)
    ]


def _about(config: dict[str, Any]) -> str:
    kind = {1: "grey pictures", 3: "colour pictures"}.get(
        config["channels"], f"pictures of {config['channels']} channels"
    )
    training = "trained on noisy pictures alone with asymmetric masks"
    if config["scheme"]["name"] == NothingHidden.name:
        training = "one pass of a plain network that sees every pixel"
    return (
        f"A denoiser for {kind}, {training}. It is "
        "loaded by the Python library masked-denoise; loading it runs no code from this repository."
    )


def _usage(config: dict[str, Any], repository: str | None) -> str:
    given = ""
    if config["backbone"]["name"] is None:
        given += ", backbone=network"
    if config["scheme"]["name"] is None:
        given += f", scheme={config['scheme']['class']}()"
    lines = [
        "from masked_denoise import from_pretrained",
        "",
        f'denoiser = from_pretrained("{repository or "path/to/this/folder"}"{given})',
        "clean = denoiser.denoise(noisy)  # array (H, W, C) or tensor (C, H, W)",
    ]
    code = "```python\n" + "\n".join(lines) + "\n```"
    if not given:
        return code
    return code + "\n\nThe network or the scheme is not part of the library: bring its code along."


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    backbone, scheme, refine = config["backbone"], config["scheme"], config["refine"]
    settings = ", ".join(
        f"{key}={value!r}" for key, value in scheme["settings"].items() if value is not None
    )
    return {
        "backbone": backbone["name"] or "a network of its author",
        "its arguments": backbone["arguments"] or "the defaults",
        "channels": config["channels"],
        "mask scheme": f"{scheme['class']}({settings})",
        "stride in training": ", ".join(map(str, config["train_stride"])),
        "stride when denoising": config["stride"],
        "passes": config["passes"],
        "refinement": "none" if refine is None else refine,
        "share of a pixel's own value": config["observation"],
        "radius of chroma smoothing": config["chroma_radius"],
        "cosine threshold": config.get("dct_threshold", 0.0),
        "value range of floats": config["value_range"] or "as they come",
        "preset": config["preset"] or "default",
        "written by": f"masked-denoise {config['library_version']}",
    }


def _numbers(metrics: dict[str, Any]) -> str:
    rows: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            rows |= {f"{name}, {metric}": number for metric, number in value.items()}
        else:
            rows[name] = value
    return _table(rows) if rows else "None were measured."


def _table(rows: dict[str, Any]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", r"\|").replace("<", "&lt;").split())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "unknown"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
