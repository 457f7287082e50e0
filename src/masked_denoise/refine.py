"""R3, random replacement refinement: denoise again after putting back a share of noisy pixels."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import number, whole
from .errors import SettingError


@dataclass(frozen=True)
class Refinement:
    """Settings of R3 (AP-BSN, Lee et al. 2022; the E of the paper's variants B-E and P-E).

    Attributes:
        draws: T, the number of images with replaced pixels that are denoised and averaged.
        share: share of the pixels replaced by the noisy ones, in [0, 1).
        masked: True denoises every such image by the masked branches at stride 1, as the paper's
            code does (K·T network passes); False by the plain network, as AP-BSN does (T passes),
            which requires a blind-spot network.
        balanced: True spreads the replaced pixels evenly over the draws: if T·share is whole, every
            pixel is replaced in exactly T·share draws. False draws independently each time, as
            both papers do.

    Raises:
        SettingError: a value is out of range.
    """

    draws: int = 8
    share: float = 0.16
    masked: bool = True
    balanced: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", whole("draws", self.draws))
        object.__setattr__(self, "share", number("share", self.share))
        for name in ("masked", "balanced"):
            if not isinstance(getattr(self, name), bool):
                raise SettingError(f"{name} is {getattr(self, name)!r}; True or False is needed")
        if self.draws < 1 or not 0 <= self.share < 1:
            raise SettingError(
                f"refinement with draws={self.draws}, share={self.share}; draws >= 1 and a share "
                "in [0, 1) are needed"
            )
