"""The models that have a name: what they are, and where; each fact in one place.

This module holds facts and loads nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

OWNER_VARIABLE = "MASKED_DENOISE_HUB_OWNER"
DEFAULT_OWNER = "masked-denoise"
ORIGINALS = "https://github.com/lll143653/amsnet"
"""The repository of the paper's authors, whose readme links the original weights."""

_NOT_STATED = "no licence is stated for the weights; the code beside them is MIT"
_RESTORMER = f"{_NOT_STATED}; the code that Restormer was first published with: non-commercial"


def owner() -> str:
    """Return the account on the Hub that holds the named models.

    It is the value of the environment variable `MASKED_DENOISE_HUB_OWNER`, or "masked-denoise".
    """
    return os.environ.get(OWNER_VARIABLE) or DEFAULT_OWNER


@dataclass(frozen=True)
class PretrainedModel:
    """A model with a name.

    Attributes:
        name: for `from_pretrained`.
        backbone: name of its network.
        arguments: of the network.
        file: name of the trainer checkpoint that its authors published.
        paper_psnr: on SIDD validation, in dB, from the paper's Table 4.
        paper_ssim: from the same table.
        file_psnr: in dB, from the name of the published file.
        license: of the weights, as the Hub spells it.
        license_note: what is known of the licence.
        source: where the original is published.
        training_data: what its authors trained it on.
        revision: commit on the Hub; None until it is published there.
        sha256: of `model.safetensors` at that commit; None until then.
    """

    name: str
    backbone: str
    file: str
    paper_psnr: float
    paper_ssim: float
    file_psnr: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    license: str = "unknown"
    license_note: str = _NOT_STATED
    source: str = ORIGINALS
    training_data: str = "The noisy pictures of SIDD-Medium (320), by the authors of the paper."
    revision: str | None = None
    sha256: str | None = None

    @property
    def repository(self) -> str:
        """Return owner/name on the Hub."""
        return f"{owner()}/{self.name}"

    def published_numbers(self) -> dict[str, dict[str, float]]:
        """Return the published numbers by data set; they were not measured here."""
        return {
            "SIDD validation": {
                "PSNR in the paper's Table 4": self.paper_psnr,
                "SSIM in the paper's Table 4": self.paper_ssim,
                "PSNR in the name of the published file": self.file_psnr,
            }
        }

    @property
    def folder(self) -> str:
        """A folder to convert it into: not named like the model, which would be ambiguous."""
        return self.name.removesuffix("-sidd")

    def convert_command(self) -> str:
        """Return the command that turns the published file into a model folder."""
        return f"masked-denoise convert {self.file} -o {self.folder}"

    def missing_message(self) -> str:
        """Return where the original is and what to type, if the model cannot be loaded."""
        upload = "" if self.revision else f"No upload to {self.repository} is known. "
        return (
            f"{upload}The original is {self.file}, which its authors link from the readme of "
            f"{self.source}: download it, type `{self.convert_command()}`, and load "
            f"'{self.folder}'"
        )


def _arguments(**arguments: Any) -> Mapping[str, Any]:
    return MappingProxyType(arguments)


_MODELS = (
    PretrainedModel(
        name="amsnet-restormer-sidd",
        backbone="restormer",
        arguments=_arguments(
            dim=48, blocks=(4, 6, 6, 8), refinement_blocks=4, heads=(1, 2, 4, 8), expansion=2.66,
            bias=False, norm_bias=False,
        ),
        file="restormer-sidd-val_avg_psnr=37.92.ckpt",
        paper_psnr=37.93, paper_ssim=0.8948, file_psnr=37.92,
        license_note=_RESTORMER,
    ),
    PretrainedModel(
        name="amsnet-deamnet-sidd",
        backbone="deamnet",
        arguments=_arguments(width=64),
        file="deamnet-sidd-val_avg_psnr=37.80.ckpt",
        paper_psnr=37.80, paper_ssim=0.8923, file_psnr=37.80,
    ),
    PretrainedModel(
        name="amsnet-nafnet-sidd",
        backbone="nafnet",
        arguments=_arguments(
            width=32, encoder_blocks=(2, 2, 4, 8), middle_blocks=12, decoder_blocks=(2, 2, 2, 2),
            expand=1, hidden=2,
        ),
        file="nafnet-sidd-val_avg_psnr=36.94.ckpt",
        paper_psnr=37.10, paper_ssim=0.8814, file_psnr=36.94,
    ),
    PretrainedModel(
        name="amsnet-unet-sidd",
        backbone="unet",
        arguments=_arguments(width=128),
        file="unet-sidd-val_avg_psnr=36.94.ckpt",
        paper_psnr=36.94, paper_ssim=0.8854, file_psnr=36.94,
    ),
)  # fmt: skip

PRETRAINED: dict[str, PretrainedModel] = {model.name: model for model in _MODELS}
"""The named models. DnCNN, the fifth network of Table 4, was never published."""
