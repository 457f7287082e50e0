"""Mask schemes: which branch scores each pixel, and which pixels each branch hides.

A mask is a pure function of (seed, purpose, draw, sample, row, column), computed with an integer
hash: the bits are the same on every device, and no random number generator is used.
"""

from __future__ import annotations

from numbers import Real
from types import ModuleType
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from .checks import number, whole
from .errors import SettingError, unknown_name
from .hashing import Key, Purpose, hash_key, hash_pixels
from .pixels import Grid
from .plugins import SCHEMES as PLUGINS
from .plugins import load_plugins

NOBODY = 255
Fill = Literal["mean", "zero", "neighbor"] | float


def check_fill(fill: object, *, sparse: bool = False) -> None:
    """Raise SettingError unless a fill is "mean", "zero", a number, or "neighbor" if `sparse`.

    "neighbor" shows another pixel's value in place of a hidden one. Where many pixels are hidden,
    that other pixel would often be hidden, too, and its value would leak.
    """
    is_number = isinstance(fill, Real) and not isinstance(fill, bool)
    if fill == "neighbor" and not sparse:
        raise SettingError("fill 'neighbor' is for Noise2Void only, which hides few pixels")
    if not is_number and fill not in ("mean", "zero", "neighbor"):
        raise SettingError(f"fill is {fill!r}; 'mean', 'zero', 'neighbor' or a number is needed")


class MaskScheme:
    """Which branch scores each pixel, and which pixels each branch cannot see (Eq. 2, 3, 5, 7).

    A scheme has K branches. In branch i the network sees the image with the `hidden` pixels filled
    in, and its output counts at the `scored` pixels only. At inference all K branches run and
    every pixel is taken from the branch that scores it, so the scored sets must partition the
    image. In training, a scored pixel must be hidden unless the backbone is blind by itself.
    The channels of a pixel share its mask; random masks differ from sub-image to sub-image.

    To write your own, subclass it and implement `label`, with random numbers from `self.bits`:

    >>> class Stripes(MaskScheme):
    ...     branches = 3
    ...     def label(self, grid, key):
    ...         return ((grid.sub_col + grid.sub_row * 0 + key.draw) % 3).to(torch.uint8)
    >>> from masked_denoise import PixelDownsample
    >>> grid = PixelDownsample(1).grid(1, (2, 6))
    >>> label = Stripes().label(grid, Key(draw=1))
    >>> label[0, 0, 0].tolist()
    [1, 2, 0, 1, 2, 0]
    >>> Stripes().hidden(label, 0)[0, 0, 0].int().tolist()
    [0, 0, 1, 0, 0, 1]

    Attributes:
        branches: K >= 1.
        fill: what a hidden pixel shows: the "mean" of its visible neighbours, "zero", a number,
            or "neighbor" (one random pixel of the 5 x 5 around it, as in Noise2Void).
        inference: the scheme used by `denoise`; None means this one.
        blind: True when the backbone itself cannot see the pixel that it predicts, so that
            scored pixels need not be hidden.
    """

    branches: int = 2
    fill: Fill = "mean"
    inference: MaskScheme | None = None
    blind: bool = False
    name: ClassVar[str] = ""

    def label(self, grid: Grid, key: Key) -> Tensor:
        """Return uint8 (N, 1, h, w): the branch that scores each pixel; 255 means none does."""
        raise NotImplementedError("a MaskScheme needs a label(grid, key) method")

    def label_of_pass(self, grid: Grid, key: Key) -> Tensor:
        """Return the label for pass number `key.draw` of several that are averaged.

        The same as `label`, unless the scheme has draws that complement each other (see
        `RandomPartition`).
        """
        return self.label(grid, key)

    def hidden(self, label: Tensor, branch: int) -> Tensor:
        """Return bool (N, 1, h, w): the pixels that branch `branch` must not see."""
        return label == branch

    def scored(self, label: Tensor, branch: int) -> Tensor:
        """Return bool (N, 1, h, w): the pixels whose output of branch `branch` is kept."""
        return label == branch

    def bits(self, grid: Grid, key: Key) -> Tensor:
        """Return 32 random bits per pixel: int64 (N, 1, h, w) in [0, 2**32)."""
        return hash_pixels(key, grid.sample, grid.row, grid.col)

    def coin(self, grid: Grid, key: Key) -> Tensor:
        """Return one random bit per pixel: uint8 (N, 1, h, w); 32 pixels share a hash word."""
        block, place, shift = grid.bits_of_columns
        words = hash_pixels(key, grid.sample, grid.row, block).to(torch.int32)
        picked = words.gather(3, place.expand(words.shape[0], 1, words.shape[2], -1))
        return (picked >> shift).bitwise_and_(1).to(torch.uint8)

    def branch_of_step(self, key: Key) -> int:
        """Return the branch of training step `key.draw`, drawn from the hash of the step."""
        return hash_key(Key(key.seed, Purpose.BRANCH, key.draw)) % self.branches

    def settings(self) -> dict[str, object]:
        """Return the JSON-able arguments that recreate this scheme."""
        return dict(vars(self))

    def __repr__(self) -> str:
        told = ", ".join(f"{k}={v!r}" for k, v in self.settings().items() if v is not None)
        return f"{type(self).__name__}({told})"


def check_label(scheme: MaskScheme, label: Tensor, grid: Grid) -> Tensor:
    """Return the label; raise SettingError unless it is uint8 and broadcasts to the grid.

    The values are not checked, as that would have to wait for the device.
    """
    fits = label.ndim == 4 and all(
        side in (1, needed) for side, needed in zip(label.shape, grid.shape, strict=True)
    )
    if label.dtype != torch.uint8 or not fits:
        came = f"{label.dtype} {tuple(label.shape)}".removeprefix("torch.")
        raise label_error(scheme, came, grid)
    return label


def label_error(scheme: MaskScheme, came: str, grid: Grid) -> SettingError:
    """Return the error for a label of the wrong type, shape or values; `came` describes it."""
    return SettingError(
        f"label() of {type(scheme).__name__} returned {came}; uint8 {grid.shape} is needed, of "
        f"branches from 0 to {scheme.branches - 1}, or {NOBODY} where no branch scores a pixel"
    )


class RandomPartition(MaskScheme):
    """Every pixel falls into one of K equally likely random groups: the scheme of AMSNet.

    Args:
        branches: K.
        hide: "own": branch i hides and scores group i, 1/K of the pixels. "others": branch i sees
            one group only and hides the rest, (K-1)/K of the pixels; it scores its own group.
        fill: see `MaskScheme`.
        inference: see `MaskScheme`.

    Of the mask ratios in the paper's Fig. 10, 50, 25, 12.5 and 6.25 % are K = 2, 4, 8 and 16, and
    75 % is K = 4 with hide="others".
    """

    name = "random"

    def __init__(
        self,
        branches: int = 2,
        *,
        hide: Literal["own", "others"] = "own",
        fill: Fill = "mean",
        inference: MaskScheme | None = None,
    ) -> None:
        check_fill(fill)
        branches = whole("branches", branches)
        if not 1 <= branches <= 255:
            raise SettingError(f"branches is {branches!r}; a number from 1 to 255 is needed")
        if hide not in ("own", "others") or (hide == "others" and branches < 2):
            raise SettingError(
                f"hide={hide!r} with {branches} branches; use 'own', or 'others' with 2+"
            )
        self.branches, self.hide, self.fill, self.inference = branches, hide, fill, inference

    def label(self, grid: Grid, key: Key) -> Tensor:
        """Return the group of each pixel: uint8 (N, 1, h, w) in [0, K)."""
        if self.branches == 2:
            return self.coin(grid, key)
        return ((self.bits(grid, key) * self.branches) >> 32).to(torch.uint8)

    def label_of_pass(self, grid: Grid, key: Key) -> Tensor:
        """Return the group of each pixel; for K = 2 it is balanced over every four passes.

        The four share one random partition: unchanged, with the groups swapped in every other row,
        in every other column, and in both (a checkerboard). Whatever was drawn, each of a pixel's
        eight neighbours is then visible to the branch of the pixel in exactly two of the four. Four
        such passes are worth about eight random ones.
        """
        if self.branches != 2:
            return self.label(grid, key)
        block, place = divmod(key.draw, 4)
        label = self.label(grid, Key(key.seed, key.purpose, block))
        if place & 1:
            label = label ^ (grid.sub_row & 1).to(torch.uint8)
        if place & 2:
            label = label ^ (grid.sub_col & 1).to(torch.uint8)
        return label

    def hidden(self, label: Tensor, branch: int) -> Tensor:
        """Return the pixels of the branch's own group, or of all groups but the next one."""
        if self.hide == "others":
            return label != (branch + 1) % self.branches
        return label == branch


class Checkerboard(MaskScheme):
    """Two branches: one hides and scores the black, the other the white squares of a checkerboard.

    Which colour branch 0 gets is drawn for each sub-image and draw, so that passes differ.
    """

    name = "checkerboard"

    def __init__(self, *, fill: Fill = "mean", inference: MaskScheme | None = None) -> None:
        check_fill(fill)
        self.fill, self.inference = fill, inference

    def label(self, grid: Grid, key: Key) -> Tensor:
        """Return the colour of each pixel's square: uint8 (N, 1, h, w), 0 or 1."""
        first = hash_pixels(
            key, grid.sample, grid.row[:, :, :1] % grid.stride, grid.col[..., :1] % grid.stride
        )
        return ((grid.sub_row + grid.sub_col + first) & 1).to(torch.uint8)


class Lattice(MaskScheme):
    """Every branch scores one pixel of each P x P square (Noise2Self, Batson and Royer 2019).

    Args:
        period: P, from 2 to 15; there are K = P·P branches.
        radius: R, with 2·R < P: around a scored pixel every pixel at |dy| + |dx| <= R is hidden, a
            diamond. 0 hides the scored pixel only.
        fill: see `MaskScheme`.
        inference: see `MaskScheme`.
    """

    name = "lattice"

    def __init__(
        self,
        period: int = 4,
        *,
        radius: int = 0,
        fill: Fill = "mean",
        inference: MaskScheme | None = None,
    ) -> None:
        check_fill(fill)
        period, radius = whole("period", period), whole("radius", radius)
        if not 2 <= period <= 15:
            raise SettingError(f"period is {period}; a number from 2 to 15 is needed")
        if not 0 <= 2 * radius < period:
            raise SettingError(
                f"radius is {radius}; with period {period} it must be under {period / 2:g}"
            )
        self.period, self.radius, self.fill, self.inference = period, radius, fill, inference

    @property
    def branches(self) -> int:  # type: ignore[override]
        """K = period²."""
        return self.period**2

    def label(self, grid: Grid, key: Key) -> Tensor:
        """Return the place of each pixel in its square: uint8 (N, 1, h, w) in [0, K)."""
        p = self.period
        return ((grid.sub_row % p) * p + grid.sub_col % p).to(torch.uint8).expand(grid.shape)

    def hidden(self, label: Tensor, branch: int) -> Tensor:
        """Return the pixels within `radius` of a pixel that the branch scores."""
        p = self.period
        dy = (label // p).int() - branch // p
        dx = (label % p).int() - branch % p
        dy, dx = dy.abs(), dx.abs()
        return torch.minimum(dy, p - dy) + torch.minimum(dx, p - dx) <= self.radius


class Noise2Void(MaskScheme):
    """A few pixels show a random neighbour and are scored (Krull, Buchholz and Jug 2019).

    Inference shows the network the plain image: it is assumed to have learnt not to rely on a
    pixel's own value.

    Args:
        share: share of the pixels hidden and scored in a training step, in (0, 0.5].
        fill: see `MaskScheme`; the default "neighbor" is that of the paper.
    """

    name = "noise2void"
    branches = 1

    def __init__(self, share: float = 0.02, *, fill: Fill = "neighbor") -> None:
        check_fill(fill, sparse=True)
        share = number("share", share, "a share of pixels in (0, 0.5]")
        if not 0 < share <= 0.5:
            raise SettingError(f"share is {share}; a share of pixels in (0, 0.5] is needed")
        self.share, self.fill = share, fill
        self.inference = NothingHidden()

    def label(self, grid: Grid, key: Key) -> Tensor:
        """Return 0 at the chosen pixels and 255 elsewhere: uint8 (N, 1, h, w)."""
        chosen = self.bits(grid, key) < int(self.share * 2**32)
        return torch.where(chosen, 0, NOBODY).to(torch.uint8)

    def settings(self) -> dict[str, object]:
        """Return the JSON-able arguments that recreate this scheme."""
        return {"share": self.share, "fill": self.fill}


class NothingHidden(MaskScheme):
    """One branch that sees and scores every pixel: for networks that are blind by themselves.

    Args:
        blind: False for a network that sees the pixel it predicts, and therefore has to learn from
            targets instead of the noisy image: a student (`distill`).
    """

    name = "nothing"
    branches = 1

    def __init__(self, *, blind: bool = True) -> None:
        self.blind = blind

    def settings(self) -> dict[str, object]:
        """Return the JSON-able arguments that recreate this scheme."""
        return {} if self.blind else {"blind": False}

    def label(self, grid: Grid, key: Key) -> Tensor:
        """Return zeros: uint8 (N, 1, h, w)."""
        return torch.zeros(grid.shape, dtype=torch.uint8, device=grid.device)

    def hidden(self, label: Tensor, branch: int) -> Tensor:
        """Return False everywhere."""
        return torch.zeros_like(label, dtype=torch.bool)


Kind = TypeVar("Kind", bound=MaskScheme)
SCHEMES: dict[str, type[MaskScheme]] = {
    kind.name: kind for kind in (RandomPartition, Checkerboard, Lattice, Noise2Void, NothingHidden)
}


def register_scheme(kind: type[Kind]) -> type[Kind]:
    """Return the class itself, registered under its `name`: a class decorator.

    Models with the scheme are then stored with that name, and need no `scheme=` to be loaded.

    Raises:
        SettingError: the class is no MaskScheme or has no name, or the name is taken.

    >>> @register_scheme
    ... class Columns(MaskScheme):
    ...     name = "columns-example"
    ...     def label(self, grid, key):
    ...         return ((grid.sub_col + grid.sub_row * 0 + key.draw) % 2).to(torch.uint8)
    >>> create_scheme("columns-example")
    Columns()
    """
    if not isinstance(kind, type) or not issubclass(kind, MaskScheme):
        raise SettingError(f"{kind!r} is no mask scheme; a subclass of MaskScheme is needed")
    if not isinstance(kind.name, str) or not kind.name:
        raise SettingError(f"{kind.__name__} has no name; give the class one: name = 'my-scheme'")
    known = SCHEMES.get(kind.name, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise SettingError(f"scheme name '{kind.name}' is taken by {known!r}; choose another")
    SCHEMES[kind.name] = kind
    return kind


def create_scheme(name: str, **settings: object) -> MaskScheme:
    """Return the scheme registered as `name`, built in or from a plug-in, with these settings.

    >>> create_scheme("random", branches=4)
    RandomPartition(branches=4, hide='own', fill='mean')

    Raises:
        UnknownNameError: no scheme has that name; the nearest one is suggested.
    """
    if name not in SCHEMES:
        load_plugins(PLUGINS, _accept)
    if name not in SCHEMES:
        raise unknown_name("scheme", name, SCHEMES)
    return SCHEMES[name](**settings)


def _accept(plugin: object) -> None:
    """Register the object of an entry point; a module must have registered a scheme by itself."""
    if not isinstance(plugin, ModuleType):
        register_scheme(plugin)  # type: ignore[arg-type]
    elif not any(kind.__module__.startswith(plugin.__name__) for kind in SCHEMES.values()):
        raise SettingError(f"{plugin!r} registers no scheme; decorate it with @register_scheme")
