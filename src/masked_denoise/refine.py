"""R3, random replacement refinement: denoise again with a share of noisy pixels put back."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import number, whole
from .errors import SettingError


@dataclass(frozen=True)
class Refinement:
    """Settings of R3 (AP-BSN, Lee et al. 2022; the E of the paper's variants B-E and P-E).

    Attributes:
        draws: T, the number of replaced images that are denoised and averaged.
        share: the share of pixels replaced by the noisy ones, in [0, 1).
        masked: True sends every replaced image through the masked branches at stride 1, as the
            paper's code does (K·T network passes); False sends it through the plain network, as
            AP-BSN does (T passes), which needs a blind-spot network.
        balanced: True spreads the replaced pixels evenly over the draws: with T·share whole every
            pixel is put back in exactly T·share of them. False draws anew each time, as both
            papers do.
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
