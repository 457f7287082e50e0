"""Named recipes: the arguments of the denoiser and of `fit` that belong together."""

from __future__ import annotations

import copy
from typing import Any

from .cosine import PHOTOGRAPHS
from .errors import unknown_name
from .refine import Refinement
from .scheme import NothingHidden, RandomPartition

_PAPER_FIT: dict[str, Any] = {
    "steps": 25_000,
    "crop": 160,
    "batch_size": 4,
    "learning_rate": 1e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "ema_decay": 0.0,
    "loss": "l1",
}


def _amsnet(smooth: bool, refined: bool) -> dict[str, dict[str, Any]]:
    return {
        "denoiser": {
            "scheme": RandomPartition(2, fill="zero"),
            "train_stride": 5,
            "stride": 2,
            "passes": 1,
            "refine": Refinement(draws=8, share=0.16, masked=True) if refined else False,
            "residual": False,
            "observation": 0.0,
            "chroma_radius": 0,
            "dct_threshold": 0.0,
            "turns": False,
        },
        "fit": {**_PAPER_FIT, "smooth_steps": 0.2 if smooth else 0},
    }


_DEFAULT: dict[str, dict[str, Any]] = {
    "denoiser": {
        "scheme": RandomPartition(2, fill="mean"),
        "train_stride": 2,
        "stride": 1,
        "passes": 4,
        "refine": False,
        "residual": "auto",
        "observation": 0.0,
        "chroma_radius": 8,
        "dct_threshold": PHOTOGRAPHS,
        "turns": True,
    },
    "fit": {"optimizer": "auto", "mixed_precision": "auto"},
}

_INDEPENDENT: dict[str, dict[str, Any]] = {
    "denoiser": {
        **_DEFAULT["denoiser"],
        "scheme": RandomPartition(4, fill="mean"),
        "train_stride": 1,
        "observation": "measured",
        "chroma_radius": 0,
        "dct_threshold": 0.0,
    },
    # batch_size, crop, augment and seed must not differ: `fit` cuts crops before it decides
    "fit": {**_DEFAULT["fit"], "loss": "l2", "learning_rate": 2e-3},
}

_STUDENT: dict[str, dict[str, Any]] = {
    "denoiser": {
        "scheme": NothingHidden(blind=False),
        "train_stride": 1,
        "stride": 1,
        "passes": 1,
        "refine": False,
        "residual": "auto",
        "observation": 0.0,
        "chroma_radius": 0,
        "dct_threshold": 0.0,
        "turns": False,
    },
    "fit": {
        "batch_size": 8,
        "learning_rate": 2e-3,
        "loss": "psnr",
        "clip_norm": 0.5,
        "mixed_precision": "auto",
    },
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "default": _DEFAULT,
    "independent": _INDEPENDENT,
    "student": _STUDENT,
    "amsnet": _amsnet(smooth=False, refined=True),
    "amsnet-b": _amsnet(smooth=False, refined=False),
    "amsnet-p": _amsnet(smooth=True, refined=False),
    "amsnet-b-e": _amsnet(smooth=False, refined=True),
    "amsnet-p-e": _amsnet(smooth=True, refined=True),
}


def preset(name: str) -> dict[str, dict[str, Any]]:
    """Return {"denoiser": arguments, "fit": arguments} of a named recipe.

    "independent" is for noise that is independent from pixel to pixel, as in microscopes,
    telescopes and raw sensors: stride 1, most neighbours visible (K = 4), the L2 loss, which learns
    means instead of medians, and each pixel's own value weighted by the measured noise.

    "student" is a plain network that sees every pixel, in one pass, as made by `distill`.

    "amsnet" is the paper as its published configuration trains it: zero fill, K = 2, stride 5 in
    training and 2 at inference, R3 of 8 draws at 0.16 through the masked branches. The paper's
    variants: "amsnet-b" (mask loss only), "amsnet-p" (then smoothness), and "amsnet-b-e",
    "amsnet-p-e" with R3 at inference.

    Raises:
        UnknownNameError: no recipe has that name; the nearest one is suggested.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return copy.deepcopy(PRESETS[name])
