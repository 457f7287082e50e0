"""Trial of a mask scheme on a small grid, to report its errors before it is used."""

from __future__ import annotations

import warnings

import torch

from .checks import whole
from .errors import SettingError
from .hashing import Key
from .pixels import PixelDownsample
from .scheme import NOBODY, MaskScheme, NothingHidden, check_fill, check_label, label_error


def check_scheme(scheme: MaskScheme, *, trains: bool = True) -> None:
    """Raise SettingError if a trial on a small grid shows that a scheme cannot work.

    Its inference scheme is tried, too. If a scheme has labels of one size only, such as recorded
    ones, little can be checked before it is used.

    Args:
        scheme: of the denoiser, or its inference scheme.
        trains: whether it is used in training, where a scored pixel must be hidden.
    """
    if not 1 <= whole(f"{type(scheme).__name__}.branches", scheme.branches) <= NOBODY:
        raise SettingError(
            f"{type(scheme).__name__} has branches {scheme.branches!r}; a whole number from 1 to "
            f"{NOBODY} is needed"
        )
    check_fill(scheme.fill, sparse=True)
    if scheme.inference is not None:
        check_scheme(scheme.inference, trains=False)
    grid = PixelDownsample(2).grid(1, (16, 24))
    try:
        label = scheme.label(grid, Key())
    except (NotImplementedError, TypeError):  # no label(), or one with other arguments
        raise
    except Exception:  # perhaps for this size only; otherwise its first use raises it again
        return
    if label.dtype != torch.uint8 or label.ndim != 4 or label.shape[1] != 1:
        check_label(scheme, label, grid)
    if not torch.equal(label, scheme.label(grid, Key())):
        raise SettingError(
            f"{type(scheme).__name__}.label() returns other labels for the same grid and key; take "
            "all randomness from self.bits(grid, key)"
        )
    wrong = label[(label >= scheme.branches) & (label != NOBODY)]
    if len(wrong):
        raise label_error(scheme, f"branch {int(wrong[0])}", grid)
    try:
        scored = [scheme.scored(label, branch) for branch in range(scheme.branches)]
        hidden = [scheme.hidden(label, branch) for branch in range(scheme.branches)]
        often = torch.stack([one.expand(label.shape) for one in scored]).sum(0)
        leaks = [b for b, one in enumerate(scored) if bool((one & ~hidden[b]).any())]
    except Exception:  # these may be restricted to one size, too
        return
    name = type(scheme).__name__
    if int(often.max()) > 1:
        raise SettingError(
            f"{name} has pixels that several branches score; no more than one may score each (Eq. "
            "3, 7): change label() or scored()"
        )
    if scheme.inference is None and int(often.min()) < 1:
        warnings.warn(
            f"{name} has pixels that no branch scores: where it denoises, the first branch makes "
            "them, and may have seen them; give it another scheme for that, such as "
            "inference=RandomPartition(2)",
            stacklevel=4,
        )
    if trains and leaks and not (scheme.blind or isinstance(scheme, NothingHidden)):
        raise SettingError(
            f"branch {leaks[0]} of {name} sees pixels that it scores, and would learn to copy "
            "their noise; hide them in hidden(), or set blind = True where the backbone itself "
            "cannot see the pixel that it predicts"
        )
