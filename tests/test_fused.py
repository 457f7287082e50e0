"""The fused operators: every kernel against its definition, and what PyTorch's compilers ask.

Without a GPU the kernels run in Triton's interpreter, which conftest.py switches on; with one, the
same tests run natively.
"""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from masked_denoise import (
    AsymmetricMaskDenoiser,
    Checkerboard,
    Lattice,
    MaskScheme,
    Noise2Void,
    NothingHidden,
    PixelDownsample,
    RandomPartition,
    Refinement,
    mask_loss,
    smoothness_loss,
)
from masked_denoise.errors import SettingError, SizeError
from masked_denoise.hashing import Key, Purpose, hash_key
from masked_denoise.ops import (
    MaskedImage,
    fast,
    launch,
    library,
    library_losses,
    masked,
    reference,
    replace,
    why_eager,
)
from masked_denoise.ops.plan import READ, Kind, MaskPlan, Origin, plan_hidden, plan_label, plan_of
from masked_denoise.ops.reference import replacement
from masked_denoise.pixels import outside
from masked_denoise.scheme import Fill

pytestmark = pytest.mark.gpu  # in Triton's interpreter where there is none
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEY = Key(-7, Purpose.TRAIN, 2**40 + 3)
FAR = 2**33 + 5  # number of an image that needs more than 32 bits
SCHEMES = [
    RandomPartition(2),
    RandomPartition(1),
    RandomPartition(5),
    RandomPartition(255),
    RandomPartition(2, hide="others"),
    RandomPartition(4, hide="others"),
    Checkerboard(),
    Lattice(3, radius=1),
    Lattice(7, radius=3),
    Lattice(4),
    Noise2Void(0.5),
    Noise2Void(0.1),
    NothingHidden(),
]
kernels = pytest.mark.skipif(fast.no_triton() is not None, reason=str(fast.no_triton()))


class Own(MaskScheme):
    """A scheme of a user's own: one mask for all, fewer pixels scored than hidden."""

    branches = 3

    def label(self, grid: Any, key: Key) -> Tensor:
        return ((grid.sub_col + grid.sub_row * 2 + key.draw) % 4).to(torch.uint8)

    def hidden(self, label: Tensor, branch: int) -> Tensor:
        return label >= branch

    def scored(self, label: Tensor, branch: int) -> Tensor:
        return (label == branch) | ((label == 3) & (branch == 0))


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """What a kernel does not write is NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def rand(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)


def masked_image(image: Tensor, scheme: MaskScheme, stride: int, **place: Any) -> MaskedImage:
    """Return the plain form, on a CPU, where the masks are those of the scheme itself."""
    place = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in place.items()}
    return MaskedImage(image.cpu(), scheme, KEY, stride, **place)


def planned(scheme: MaskScheme) -> MaskPlan:
    plan = plan_of(scheme, KEY)
    assert plan is not None
    return plan


def launch_hide(
    image: Tensor,
    plan: MaskPlan,
    place: Origin,
    branch: int = 0,
    *,
    fill: Fill = "zero",
    scored: bool = False,
    sample: Tensor | None = None,
    draw: Tensor | None = None,
    mask: Tensor | None = None,
    bad: Tensor | None = None,
    channels_last: bool = False,
) -> Tensor:
    value = 0.0 if isinstance(fill, str) else fill
    return launch.hide_down(
        image, sample, draw, mask, bad, plan, place, branch, scored, fill == "mean", value,
        channels_last,
    )  # fmt: skip


def reference_hide(
    image: Tensor, scheme: MaskScheme, stride: int, branch: int, fill: Fill, **place: Any
) -> Tensor:
    """Return the definition, computed in float64."""
    masked = masked_image(image, scheme, stride, **place)
    hidden = scheme.hidden(masked.label, branch)
    hidden = hidden if masked.unseen is None else hidden | masked.unseen
    return reference.fill_hidden(masked.sub_images.double(), hidden, fill).to(image.dtype)


def same(ours: Tensor, expected: Tensor) -> bool:
    return torch.equal(ours.cpu(), expected.cpu())


# -- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("stride", [1, 3])
def test_a_plan_draws_the_masks_of_its_scheme(scheme: MaskScheme, stride: int) -> None:
    grid = PixelDownsample(stride).grid(2, (40, 37), sample=FAR, origin=(6, 63))
    plan, label = planned(scheme), scheme.label(grid, KEY).expand(grid.shape)
    assert torch.equal(plan_label(plan, grid, plan.state).expand(grid.shape), label)
    for branch in {0, 1 % scheme.branches, scheme.branches - 1}:
        for number in (branch, torch.tensor(branch)):
            assert torch.equal(plan_hidden(plan, label, number), scheme.hidden(label, branch))
        assert torch.equal(label == branch, scheme.scored(label, branch))


@kernels
@pytest.mark.parametrize("scheme", [SCHEMES[0], SCHEMES[2], SCHEMES[4], Checkerboard()], ids=repr)
def test_passes_that_complement_each_other(scheme: MaskScheme) -> None:
    image, place = torch.ones(1, 1, 8, 6, device=DEVICE), Origin(2, 2, 6)
    grid = PixelDownsample(2).grid(1, (8, 6), origin=(2, 6))
    for draw in range(8):
        key = KEY._replace(draw=draw)
        plan, label = plan_of(scheme, key, of_pass=True), scheme.label_of_pass(grid, key)
        assert plan is not None
        assert torch.equal(plan_label(plan, grid, plan.state), label)
        kept = launch_hide(image, plan, place, 1, scored=True)
        assert same(kept == 1, scheme.scored(label, 1))
        seen = MaskedImage(image.cpu(), scheme, key, 2, origin=(2, 6), of_pass=True)
        assert torch.equal(seen.label, label)


def test_only_the_built_in_classes_themselves_have_a_plan() -> None:
    class Derived(RandomPartition):
        def hidden(self, label: Tensor, branch: int) -> Tensor:
            return label != branch

    assert plan_of(Derived(2), KEY) is None
    assert plan_of(Own(), KEY) is None
    assert planned(Noise2Void(0.5)).size == 2**31


@kernels
@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize(("stride", "origin"), [(1, (0, 0)), (2, (34, 62)), (3, (3, 0))])
def test_kernels_draw_the_same_masks(
    scheme: MaskScheme, stride: int, origin: tuple[int, int]
) -> None:
    """Bit for bit: hidden and scored pixels, and the branch that each is taken from."""
    image = torch.ones(2, 1, 7, 40, device=DEVICE)
    sample = torch.tensor([FAR, -3], device=DEVICE)
    place, plan = Origin(stride, *origin, 77), planned(scheme)
    for numbers in (None, sample):
        plain = masked_image(
            image, scheme, stride, sample=77 if numbers is None else numbers, origin=origin
        )
        padded = outside(plain.grid, plain._end)
        padded = torch.zeros_like(plain.label, dtype=torch.bool) if padded is None else padded
        for branch in {0, scheme.branches - 1}:
            hidden = launch_hide(image, plan, place, branch, fill=-1, sample=numbers)
            assert same(hidden == -1, scheme.hidden(plain.label, branch) | padded)
            kept = launch_hide(image, plan, place, branch, scored=True, sample=numbers)
            assert same(kept == 1, scheme.scored(plain.label, branch) & ~padded)
        if scheme.branches <= 16:
            shape = (scheme.branches, *plain.sub_images.shape)
            outputs = torch.arange(float(scheme.branches), device=DEVICE)
            merged = launch.merge_up(
                outputs.view(-1, 1, 1, 1, 1).expand(shape), numbers, None, None, plan, place, 7, 40
            )
            expected = plain.pixels.up(plain.label % 255, size=(7, 40)).float()
            assert same(merged, expected)


@kernels
def test_a_draw_on_the_device_takes_the_place_of_key_and_branch() -> None:
    image, place = rand(1, 2, 6, 6), Origin(2)
    other = plan_of(RandomPartition(3), Key(99))
    assert other is not None
    for key, branch in ((KEY, 0), (Key(4), 2)):
        draw = masked.draw_of(key, branch, device=DEVICE)
        plan = plan_of(RandomPartition(3), key)
        assert plan is not None
        for fill in ("zero", "mean"):
            ours = launch_hide(image, other, place, 1, fill=fill, draw=draw)
            assert same(ours, launch_hide(image, plan, place, branch, fill=fill))
            args = (None, draw.cpu(), None, None, other, place, 1, False, fill == "mean", 0.0)
            assert same(ours, library.hide_down(image.cpu(), *args, False)) or fill == "mean"
        output = rand(4, 2, 3, 3, seed=1)
        ours, _ = launch.masked_distance(output, image, None, draw, None, other, place, 1, False)
        expected, _ = launch.masked_distance(
            output, image, None, None, None, plan, place, branch, False
        )
        assert same(ours, expected)


# -- hide and downsample --------------------------------------------------------------------------


@kernels
@pytest.mark.parametrize(
    ("scheme", "stride", "size"),
    [
        (RandomPartition(2), 1, (9, 11)),
        (RandomPartition(2), 2, (9, 10)),
        (RandomPartition(40, hide="others"), 1, (4, 9)),
        (Lattice(7, radius=3), 1, (8, 9)),
        (NothingHidden(), 3, (7, 8)),
        (RandomPartition(1), 1, (3, 2)),
        (RandomPartition(2), 2, (2, 2)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("fill", ["mean", "zero", 0.1])
def test_hide_down(scheme: MaskScheme, stride: int, size: tuple[int, int], fill: Fill) -> None:
    """Against the definition: few and many hidden pixels, lonely ones, and nothing to see at all.

    A window's mean is summed in another order, so that its last bits may differ.
    """
    image = rand(1, 2, *size) if fill == "mean" else rand(2, 3, *size)
    for branch in {0, scheme.branches - 1} if fill != "mean" else {scheme.branches - 1}:
        ours = launch_hide(image, planned(scheme), Origin(stride, sample=4), branch, fill=fill)
        expected = reference_hide(image, scheme, stride, branch, fill, sample=4)
        assert ours.is_contiguous()
        if fill == "mean":
            torch.testing.assert_close(ours.cpu(), expected, atol=3e-7, rtol=0)
        else:
            assert same(ours, expected)


@kernels
@pytest.mark.parametrize("channels", [1, 4, 5, 6, 8, 12])
def test_mean_fill_of_any_number_of_channels(channels: int) -> None:
    """Taken in groups of at most four, the lonely pixels, too."""
    image, scheme = rand(2, channels, 7, 9), RandomPartition(4, hide="others")
    ours = launch_hide(image, planned(scheme), Origin(2), 1, fill="mean")
    expected = reference_hide(image, scheme, 2, 1, "mean")
    torch.testing.assert_close(ours.cpu(), expected, atol=3e-7, rtol=0)


@kernels
@pytest.mark.parametrize("hole", [3, 5, 7])
def test_a_hole_is_filled_from_the_smallest_window_that_sees(hole: int) -> None:
    image, mask = rand(1, 2, 11, 11), torch.zeros(1, 1, 11, 11, dtype=torch.bool, device=DEVICE)
    low, high = 5 - hole // 2, 5 + hole // 2 + 1
    mask[:, :, low:high, low:high] = True
    ours = launch_hide(image, READ, Origin(), mask=mask, fill="mean")
    expected = reference.fill_hidden(image.double(), mask, "mean").float()
    torch.testing.assert_close(ours, expected, atol=3e-7, rtol=0)


@kernels
@pytest.mark.parametrize("fill", ["mean", "zero"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nothing_hidden_comes_through(fill: Fill, poison: float) -> None:
    """Neither what the mask hides, nor bad pixels, nor the neighbours of the image in memory."""
    whole = torch.full((1, 2, 10, 14), poison, device=DEVICE)
    image, bad = whole[..., 2:9, 3:13], rand(1, 1, 7, 10, seed=3) < 0.1
    clean = rand(1, 2, 7, 10)
    plan, place = planned(RandomPartition(2, hide="others")), Origin(2)
    seen = launch_hide(torch.ones_like(clean), plan, place, 1, fill=0, bad=bad)
    image.copy_(torch.where(PixelDownsample(2).up(seen, size=(7, 10)) == 1, clean, poison))
    ours = launch_hide(image, plan, place, 1, fill=fill, bad=bad)
    assert same(ours, launch_hide(clean, plan, place, 1, fill=fill, bad=bad))
    assert bool(ours.isfinite().all())


@kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("fill", ["mean", 0.1])
def test_dtypes_of_hide_down(dtype: torch.dtype, fill: Fill) -> None:
    image, scheme = rand(1, 3, 6, 7, dtype=dtype), RandomPartition(3, hide="others")
    ours = launch_hide(image, planned(scheme), Origin(2), 1, fill=fill)
    expected = reference_hide(image, scheme, 2, 1, fill)
    if dtype == torch.float64 or fill != "mean":
        torch.testing.assert_close(ours.cpu(), expected, atol=1e-15, rtol=0)
    else:  # the float32 mean is rounded once
        torch.testing.assert_close(ours.cpu(), expected)


@kernels
@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_memory_layouts_of_hide_down(fill: Fill) -> None:
    image, plan, place = rand(2, 2, 3, 4), planned(RandomPartition(3)), Origin()
    expected = launch_hide(image, plan, place, fill=fill)
    layouts = [
        image.contiguous(memory_format=torch.channels_last),
        torch.stack([image, torch.full_like(image, math.nan)], -1).flatten(3)[..., ::2],
        image.mT.contiguous().mT,
    ]
    for other in layouts:
        assert not other.is_contiguous()
        assert same(launch_hide(other, plan, place, fill=fill), expected)
    ours = launch_hide(image, plan, place, fill=fill, channels_last=True)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert same(ours, expected)
    one = image[:1, :1].expand(2, 2, 3, 4)
    assert same(
        launch_hide(one, plan, place, fill=fill), launch_hide(one.clone(), plan, place, fill=fill)
    )


# -- distance -------------------------------------------------------------------------------------


def launch_distance(
    output: Tensor,
    image: Tensor,
    plan: MaskPlan,
    place: Origin,
    branch: int = 0,
    *,
    squared: bool = False,
    mask: Tensor | None = None,
    grad: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return distance and gradient."""
    args = (None, None, mask, plan, place, branch, squared)
    loss, scale = launch.masked_distance(output, image, *args)
    grad_input = torch.tensor(grad, device=DEVICE)
    return loss, launch.masked_distance_backward(grad_input, scale, output, image, *args)


@kernels
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(
    ("scheme", "stride", "size"),
    [
        (RandomPartition(2), 2, (9, 10)),
        (Lattice(3, radius=1), 1, (6, 50)),
        (NothingHidden(), 3, (7, 8)),
        (RandomPartition(2), 1, (1, 1)),
    ],
    ids=repr,
)
def test_distance(scheme: MaskScheme, stride: int, size: tuple[int, int], squared: bool) -> None:
    image = rand(2, 3, *size)
    plain = masked_image(image, scheme, stride)
    output = rand(*plain.sub_images.shape, seed=1)
    padded = outside(plain.grid, plain._end)
    scored = scheme.scored(plain.label, 0).expand(len(output), 1, *output.shape[2:])
    scored = scored if padded is None else scored & ~padded
    wide = output.cpu().double().requires_grad_()
    expected = reference.masked_distance(wide, plain.sub_images, scored, squared=squared)
    expected.backward(torch.tensor(3.0))
    assert wide.grad is not None
    loss, grad_input = launch_distance(
        output, image, planned(scheme), Origin(stride), squared=squared, grad=3
    )
    torch.testing.assert_close(loss.cpu(), expected.detach().float())
    torch.testing.assert_close(grad_input.cpu(), wide.grad.float())
    last = output.contiguous(memory_format=torch.channels_last)
    again, last_slope = launch_distance(
        last, image, planned(scheme), Origin(stride), squared=squared, grad=3
    )
    assert same(again, loss)  # the same sum in the same order
    assert same(last_slope, grad_input)
    assert last_slope.stride() == last.stride()


@kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_of_distance(dtype: torch.dtype) -> None:
    """A half-precision output against a float32 image, as under autocast; summed in float32."""
    output, image = rand(1, 3, 20, 30, dtype=dtype), rand(1, 3, 20, 30, seed=1)
    plan = planned(NothingHidden())
    loss, grad_input = launch_distance(output, image, plan, Origin(), squared=True)
    wide = output.double()
    torch.testing.assert_close(loss, (wide - image).square().mean().float())
    torch.testing.assert_close(grad_input, (2 * (wide - image) / 1800).to(dtype))
    assert loss.dtype == torch.float32
    large = torch.full((1, 1, 8, 8), 1000.0, dtype=dtype, device=DEVICE)
    assert float(launch_distance(large, -large, plan, Origin(), squared=True)[0]) == 4e6


@kernels
@pytest.mark.parametrize("squared", [False, True])
def test_distance_of_a_mask_that_is_given(squared: bool) -> None:
    output, target = rand(2, 3, 5, 6), rand(2, 3, 5, 6, seed=1)
    scored = rand(2, 1, 5, 6, seed=2) < 0.4
    expected = reference.masked_distance(output, target, scored, squared=squared)
    output = torch.where(scored, output, math.nan)
    target = torch.where(scored, target, math.inf)
    loss, grad_input = launch_distance(output, target, READ, Origin(), mask=scored, squared=squared)
    torch.testing.assert_close(loss, expected)
    assert bool(grad_input.isfinite().all())
    assert same((grad_input != 0).any(1, keepdim=True), scored)
    nothing = torch.zeros_like(scored)
    loss, grad_input = launch_distance(
        output, target, READ, Origin(), mask=nothing, squared=squared
    )
    assert float(loss) == 0
    assert not bool(grad_input.any())


# -- merge, replace, smoothness -------------------------------------------------------------------


@kernels
def test_merge_up() -> None:
    """Each pixel from its own branch, of any memory layout, and nothing from the others."""
    scheme, size = RandomPartition(3), (7, 8)
    plain = masked_image(rand(2, 3, *size), scheme, 3)
    values = [rand(18, 3, 3, 3, seed=branch) for branch in range(3)]
    outputs = [
        torch.where((plain.label == branch).to(DEVICE), value, math.nan)
        for branch, value in enumerate(values)
    ]
    expected = plain.merge([value.cpu() for value in values])
    stacked = torch.stack(outputs)
    for form in (
        stacked,
        stacked.transpose(0, 1).contiguous().transpose(0, 1),
        stacked.mT.clone().mT,
    ):
        args = (None, None, None, planned(scheme), Origin(3), *size)
        assert same(launch.merge_up(form, *args), expected)
    label = plain.label.to(DEVICE).mT.contiguous().mT
    assert same(launch.merge_up(stacked, None, None, label, READ, Origin(3), *size), expected)


@kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_replace_puts_the_same_pixels_back_as_refine(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy, denoised = rand(2, 3, 9, 11, dtype=dtype), rand(2, 3, 9, 11, dtype=dtype, seed=1)
    bad, keys, origin = rand(2, 1, 9, 11, seed=2) < 0.2, [Key(-7, 0, 1), Key(5, 0, 2)], (3, 70)
    sample = torch.tensor([7, FAR], device=DEVICE)
    for numbers, gone, draws in ((3, None, 0), (sample, bad, 0), (3, None, 3)):
        place: dict[str, Any] = {"origin": origin, "draws": draws}
        images = numbers.cpu() if isinstance(numbers, Tensor) else numbers
        back = [replacement((9, 11), 2, 0.3, key=k, sample=images, **place) for k in keys]
        masks = torch.stack(back) if gone is None else torch.stack(back) & ~gone.cpu()
        expected = torch.where(masks, noisy.cpu(), denoised.cpu()).flatten(0, 1)
        states = [
            hash_key(key._replace(purpose=Purpose.REPLACE, draw=0 if draws else key.draw))
            for key in keys
        ]
        turns = [(key.draw << 32) // draws % 2**32 if draws else 0 for key in keys]
        ours = launch.replace(
            noisy.mT.contiguous().mT,
            denoised,
            numbers if isinstance(numbers, Tensor) else None,
            gone,
            states,
            turns,
            int(0.3 * 2**32),
            Origin(1, *origin, 3),
        )
        assert same(ours, expected)
        for fused in (False, True):
            monkeypatch.setattr(masked, "_fused", lambda *_, fused=fused: fused)
            plain = replace(noisy, denoised, 0.3, keys, sample=numbers, bad=gone, **place)
            assert same(plain, expected)


@kernels
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (1, 2, 6, 1), (2, 3, 7, 40)])
def test_smoothness(shape: tuple[int, int, int, int]) -> None:
    image = rand(*shape)
    for x in (image, image.contiguous(memory_format=torch.channels_last), image.half()):
        exact = x.cpu().float().requires_grad_()
        expected = reference.smoothness(exact, 1e-6)
        expected.backward(torch.tensor(2.0))
        assert exact.grad is not None
        torch.testing.assert_close(launch.smoothness(x, 1e-6).cpu(), expected.detach())
        grad_input = launch.smoothness_backward(torch.tensor(2.0, device=DEVICE), x, 1e-6)
        torch.testing.assert_close(grad_input.cpu(), exact.grad.to(x.dtype), atol=1e-5, rtol=1e-3)
        assert grad_input.stride() == x.stride()
    flat = torch.full(shape, 0.3, device=DEVICE)
    assert float(launch.smoothness(flat, 1e-6)) == 0


@kernels
def test_empty_batches() -> None:
    plan, image = planned(RandomPartition(2)), rand(0, 3, 6, 7)
    output = rand(0, 3, 3, 4)
    for fill in ("zero", "mean"):
        assert launch_hide(image, plan, Origin(2), fill=fill).shape == output.shape
    loss, grad_input = launch_distance(output, image, plan, Origin(2))
    assert (float(loss), grad_input.shape) == (0, output.shape)
    merged = launch.merge_up(
        output.expand(2, -1, -1, -1, -1), None, None, None, plan, Origin(2), 6, 7
    )
    assert merged.shape == image.shape
    assert launch.replace(image, image, None, None, [1], [0], 5, Origin()).shape == image.shape
    assert float(launch.smoothness(image, 1e-6)) == 0


@kernels
@pytest.mark.skipif(DEVICE == "cuda", reason="the offsets are those of the interpreter")
def test_offsets_over_two_to_the_31(tmp_path: Path) -> None:
    """Images that reach over more than 2**31 elements, in a file that is a hole but for them.

    Their strides fit into 32 bits, and so do places; the products do not.
    """
    apart = 2**30 + 64
    memory = torch.from_file(
        str(tmp_path / "hole"), shared=True, size=3 * apart + 256, dtype=torch.float16
    )
    image = memory.as_strided((4, 1, 4, 6), (apart, 24, 6, 1))
    image.copy_(rand(4, 1, 4, 6, dtype=torch.float16))
    rows = memory.as_strided((1, 1, 4, 4), (4, 4, apart, 1))
    plan, one = planned(RandomPartition(2)), torch.ones(())
    for far in (image, rows, rows.mT):
        near = far.contiguous()
        for fill in ("zero", "mean"):
            ours = launch_hide(far, plan, Origin(2), fill=fill)
            assert same(ours, launch_hide(near, plan, Origin(2), fill=fill))
        assert same(launch.smoothness(far, 1e-6), launch.smoothness(near, 1e-6))
        slopes = (launch.smoothness_backward(one, x, 1e-6) for x in (far, near))
        assert same(*slopes)
        other = rand(*far.shape, dtype=torch.float16, seed=1)
        put_back = (None, None, [5], [0], 2**31, Origin())
        wanted = launch.replace(near, other, *put_back), launch.replace(other, near, *put_back)
        assert same(launch.replace(far, other, *put_back), wanted[0])
        assert same(launch.replace(other, far, *put_back), wanted[1])
        for squared in (False, True):
            of_output = launch_distance(far, other, plan, Origin(), squared=squared)
            of_image = launch_distance(other, far, plan, Origin(), squared=squared)
            wanted = launch_distance(near, other, plan, Origin(), squared=squared)
            assert all(map(same, of_output, wanted))
            wanted = launch_distance(other, near, plan, Origin(), squared=squared)
            assert all(map(same, of_image, wanted))
    args = (None, None, None, plan, Origin(), 4, 6)
    stacked = image.expand(2, 4, 1, 4, 6)
    assert same(launch.merge_up(stacked, *args), launch.merge_up(stacked.contiguous(), *args))
    stacked = rows[None].expand(2, 1, 1, 4, 4)
    args = (None, None, None, plan, Origin(), 4, 4)
    assert same(launch.merge_up(stacked, *args), launch.merge_up(stacked.contiguous(), *args))


# -- registered operators -------------------------------------------------------------------------


def operator_cases() -> list[tuple[Any, tuple[Any, ...]]]:
    plan, place, none = planned(RandomPartition(2)), Origin(2), (None, None, None)
    image = rand(1, 2, 5, 6).requires_grad_()
    output = rand(4, 2, 3, 3, seed=1).requires_grad_()
    mask = rand(4, 1, 3, 3, seed=2) < 0.5
    own = (None, None, mask)
    outputs = rand(2, 4, 2, 3, 3).requires_grad_()
    other = image.detach().clone().requires_grad_()
    return [
        (library.hide_down, (image, *none, None, plan, place, 0, False, False, 0.5, True)),
        (library.hide_down, (image, *own, None, READ, place, 0, False, True, 0.0, False)),
        (library_losses.masked_distance, (output, image, *none, plan, place, 1, False)),
        (library_losses.masked_distance, (output, image, *own, READ, place, 0, True)),
        (library.merge_up, (outputs, *none, plan, place, 5, 6)),
        (library.merge_up, (outputs, None, None, mask.byte(), READ, place, 5, 6)),
        (library.replace, (image, other, None, None, [5, 2**32 - 1], [0, 2**31], 2**30, Origin())),
        (library_losses.smoothness, (image, 1e-6)),
    ]


@pytest.mark.parametrize("case", range(8))
def test_operators_keep_what_pytorch_asks_of_them(case: int) -> None:
    torch.use_deterministic_algorithms(False)  # opcheck compares results that it does not fill
    operator, args = operator_cases()[case]
    opcheck(operator, args)


def test_gradients_of_the_image() -> None:
    """Of hide-and-downsample, merge and replace, which are linear: by finite differences."""
    image = rand(1, 2, 5, 6, dtype=torch.float64).requires_grad_()
    for scheme in (RandomPartition(2), RandomPartition(9, hide="others")):
        plan = planned(scheme)
        for scored, mean in ((False, True), (False, False), (True, False)):
            assert torch.autograd.gradcheck(
                lambda x, plan=plan, scored=scored, mean=mean: library.hide_down(
                    x, None, None, None, None, plan, Origin(2), 0, scored, mean, 0.5, False
                ),
                (image,),
            )
    plan = planned(RandomPartition(3))
    outputs = rand(3, 4, 1, 3, 3, dtype=torch.float64).requires_grad_()
    label = torch.randint(0, 5, (4, 1, 3, 3), dtype=torch.uint8).to(DEVICE)
    draw = masked.draw_of(KEY, device=DEVICE)
    for masks in ((None, None, None), (None, draw, None), (None, None, label)):
        chosen = READ if masks[2] is not None else plan
        assert torch.autograd.gradcheck(
            lambda x, masks=masks, plan=chosen: library.merge_up(x, *masks, plan, Origin(2), 5, 6),
            (outputs,),
        )
    other = rand(1, 2, 5, 6, dtype=torch.float64, seed=4).requires_grad_()
    bad = rand(1, 1, 5, 6) < 0.3
    assert torch.autograd.gradcheck(
        lambda x, y: library.replace(x, y, None, bad, [3, 4], [0, 7], 2**31, Origin()),
        (image, other),
    )


def test_gradient_of_the_target() -> None:
    output, image = rand(4, 2, 3, 3), rand(1, 2, 5, 6).requires_grad_()
    scheme = RandomPartition(2)
    loss, _ = library_losses.masked_distance(
        output, image, None, None, None, planned(scheme), Origin(2), 0, True
    )
    loss.backward()
    twin = image.detach().cpu().clone().requires_grad_()
    MaskedImage(twin, scheme, KEY, 2).distance(output.cpu(), 0, kind="l2").backward()
    assert image.grad is not None
    assert twin.grad is not None
    torch.testing.assert_close(image.grad.cpu(), twin.grad)


def step(image: Tensor, weight: Tensor, number: int, scheme: MaskScheme) -> Tensor:
    seen = MaskedImage(image, scheme, Key(0, 0, number), 2)
    outputs = [seen.show(branch) * weight for branch in range(2)]
    losses = [seen.distance(output, branch) for branch, output in enumerate(outputs)]
    return sum(losses) + smoothness_loss(seen.merge(outputs))


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="PyTorch 2.6 traces no xor of a step's number"
)
def test_a_compiled_step_equals_the_plain_one() -> None:
    """In one graph, which a new number of the step does not break or make anew."""
    torch._dynamo.reset()
    frames: list[int] = []

    def count(graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        frames.append(1)
        return aot_eager(graph, inputs)

    compiled = torch.compile(step, fullgraph=True, backend=count)
    image, scheme = rand(2, 3, 7, 8), RandomPartition(2)
    for number in range(5):
        weights = [torch.tensor(0.9, device=DEVICE, requires_grad=True) for _ in range(2)]
        ours, plain = (
            compiled(image, weights[0], number, scheme),
            step(image, weights[1], number, scheme),
        )
        ours.backward()
        plain.backward()
        torch.testing.assert_close(ours, plain)
        torch.testing.assert_close(weights[0].grad, weights[1].grad)
    assert len(frames) <= 2


def test_losses_compile() -> None:
    torch._dynamo.reset()
    output, target, scored = rand(2, 3, 5, 6), rand(2, 3, 5, 6, seed=1), rand(2, 1, 5, 6) < 0.5
    both = lambda x: mask_loss(x, target, scored) + smoothness_loss(x)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    ours, plain = output.clone().requires_grad_(), output.clone().requires_grad_()
    compiled(ours).backward()
    both(plain).backward()
    torch.testing.assert_close(ours.grad, plain.grad)


def test_an_exported_model_holds_the_operators() -> None:
    class Model(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            seen = MaskedImage(image, RandomPartition(2), KEY, 2)
            return seen.merge([seen.show(0), seen.show(1) * 2])

    image = rand(1, 3, 6, 7)
    program = torch.export.export(Model(), (image,))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"masked_denoise.hide_down.default", "masked_denoise.merge_up.default"} <= called
    torch.testing.assert_close(program.module()(image), Model()(image))


def test_operators_under_autocast() -> None:
    image, layer = rand(1, 3, 8, 8), torch.nn.Conv2d(3, 3, 1).to(DEVICE)
    seen = MaskedImage(image, RandomPartition(2), KEY, 2)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        output = layer(seen.show(0))
        loss = seen.distance(output, 0) + smoothness_loss(output)
    assert (output.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    loss.backward()
    assert bool(layer.weight.grad.isfinite().all())


# -- the joint ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [*SCHEMES[:3], Lattice(3, radius=1, fill=0.25), Own()], ids=repr)
@pytest.mark.parametrize("stride", [1, 2])
def test_operators_and_plain_forms_are_joined_alike(
    scheme: MaskScheme, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registered operators of a CPU, called as on a GPU, and the plain way: the same bits."""
    image, bad = rand(2, 3, 9, 8).cpu(), (rand(2, 1, 9, 8, seed=1) < 0.1).cpu()
    sample = torch.tensor([3, FAR])
    found = []
    for fused in (False, True):
        monkeypatch.setattr(masked, "_fused", lambda *_, fused=fused: fused)
        seen = MaskedImage(image, scheme, KEY, stride, sample=sample, origin=(4, 6), bad=bad)
        assert seen.fused is fused
        shown = [seen.show(branch) for branch in range(scheme.branches)]
        outputs = [x.mul(0.5).requires_grad_() for x in shown]
        loss = sum(seen.distance(x, branch, kind="l2") for branch, x in enumerate(outputs))
        whole = seen.merge(outputs)
        (whole.sum() + loss).backward()
        found.append([*shown, loss, whole, *[x.grad for x in outputs]])
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-8)
    for plain, ours in zip(*[x[: scheme.branches] for x in found], strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("scheme", [RandomPartition(3), Noise2Void(0.3), Own()], ids=repr)
def test_plain_forms_are_those_of_scheme_and_downsampling(scheme: MaskScheme) -> None:
    image, pixels = rand(2, 3, 9, 8).cpu(), PixelDownsample(2)
    grid = pixels.grid(2, (9, 8), sample=5)
    label, padded, sub_images = scheme.label(grid, KEY), outside(grid, (9, 8)), pixels.down(image)
    assert padded is not None
    branch = scheme.branches - 1
    hidden = scheme.hidden(label, branch) | padded
    seen = MaskedImage(image, scheme, KEY, 2, sample=5)
    ours = seen.show(branch).cpu()
    if scheme.fill == "neighbor":
        word = scheme.bits(grid, KEY._replace(purpose=KEY.purpose + Purpose.NEIGHBOR))
        near = reference.fill_hidden(sub_images, hidden & ~padded, "neighbor", word=word)
        mean = reference.fill_hidden(sub_images, hidden, "mean")
        assert torch.equal(
            ours[~padded.expand_as(ours)] == near[~padded.expand_as(ours)],
            (ours == near)[~padded.expand_as(ours)],
        )
        torch.testing.assert_close(torch.where(padded, ours, 0), torch.where(padded, mean, 0))
        assert bool((ours != sub_images)[scheme.hidden(label, 0).expand_as(ours)].any())
    else:
        expected = reference.fill_hidden(sub_images, hidden, scheme.fill)
        torch.testing.assert_close(ours, expected)
    output = rand(*sub_images.shape, seed=1).cpu()
    loss = seen.distance(output, branch)
    scored = (scheme.scored(label, branch) & ~padded).expand(8, 1, 5, 4)
    expected = mask_loss(output, sub_images, scored)
    assert torch.equal(loss, expected)
    outputs = [rand(*sub_images.shape, seed=k).cpu() for k in range(scheme.branches)]
    scored = [scheme.scored(label, k) for k in range(scheme.branches)]
    expected = pixels.up(reference.merge_branches(outputs, scored), size=(9, 8))
    assert torch.equal(seen.merge(outputs), expected)


@kernels
@pytest.mark.parametrize("fill", ["mean", 0.25])
def test_denoising_and_training_take_the_kernels(
    fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does step by step, and what a CPU does, agree; and every kernel is called."""
    called: list[str] = []

    def counted(name: str) -> Any:
        def call(*args: Any) -> Any:
            called.append(name)
            return getattr(launch, name)(*args)

        return call

    torch.manual_seed(0)
    denoiser = AsymmetricMaskDenoiser(
        torch.nn.Conv2d(3, 3, 3, padding=1), scheme=RandomPartition(2, fill=fill), stride=2,
        passes=2, refine=Refinement(1), train_stride=2,
    ).to(DEVICE)  # fmt: skip
    image = rand(1, 3, 9, 8)
    plain = copy.deepcopy(denoiser).cpu()
    clean, loss = plain.denoise(image.cpu()), plain.train()(image.cpu(), step=3, smoothness=0.1)
    for name in ("hide_down", "merge_up", "replace"):
        monkeypatch.setattr(library, name, counted(name))
    for name in ("masked_distance", "smoothness"):
        monkeypatch.setattr(library_losses, name, counted(name))
    monkeypatch.setattr(masked, "_fused", lambda *_: True)
    ours = denoiser.denoise(image, precision="float32")
    torch.testing.assert_close(ours.cpu(), clean, atol=2e-6, rtol=0)
    assert sorted(called) == ["hide_down"] * 6 + ["merge_up"] * 3 + ["replace"]
    called.clear()
    with torch.no_grad():
        again = denoiser.train()(image, step=3, smoothness=0.1)
    torch.testing.assert_close(again.cpu(), loss.detach(), atol=1e-6, rtol=1e-5)
    assert sorted(set(called)) == ["hide_down", "masked_distance", "merge_up", "smoothness"]


def test_what_does_not_fit_is_named() -> None:
    image, scheme = rand(1, 3, 6, 6), RandomPartition(2)
    with pytest.raises(SizeError, match="sides of at least the stride"):
        MaskedImage(image, scheme, KEY, 7)
    with pytest.raises(SizeError, match=r"\(B, C, H, W\)"):
        MaskedImage(image[0], scheme, KEY)
    with pytest.raises(SettingError, match="uint8"):
        MaskedImage(image.byte(), scheme, KEY)
    with pytest.raises(SettingError, match="multiple of the stride"):
        MaskedImage(image, scheme, KEY, 2, origin=(1, 0)).show(0)
    with pytest.raises(SizeError, match="sample indices"):
        MaskedImage(image, scheme, KEY, 2, sample=torch.arange(2)).show(0)
    with pytest.raises(SettingError, match="built-in scheme"):
        MaskedImage(image, Own(), KEY, draw=masked.draw_of(KEY))
    with pytest.raises(SettingError, match="fill='neighbor'"):
        MaskedImage(image, Noise2Void(), KEY, draw=masked.draw_of(KEY))
    seen = MaskedImage(image, scheme, KEY, 2)
    with pytest.raises(SizeError, match=r"\(4, 3, 3, 3\) is needed"):
        seen.distance(image, 0)
    with pytest.raises(SizeError, match=r"\(4, 3, 3, 3\) is needed"):
        seen.merge([image, image])
    with pytest.raises(SettingError, match="'l1' or 'l2'"):
        seen.distance(seen.show(0), 0, kind="huber")  # type: ignore[arg-type]


def test_why_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason for each case; the GPU is made up where there is none."""
    on_gpu = lambda dtype=torch.float32: SimpleNamespace(device=torch.device("cuda"), dtype=dtype)
    card = {"version": (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: card["version"])
    monkeypatch.setattr(fast, "no_triton", lambda: None)
    monkeypatch.setattr(fast, "_no_compiler", lambda: None)
    for version, dtype, reason in (
        ((9, 0), torch.float32, None),
        ((9, 0), torch.bfloat16, None),
        ((7, 5), torch.bfloat16, "bfloat16"),
        ((6, 1), torch.float32, "capability (6, 1)"),
        ((9, 0), torch.uint8, "torch.uint8"),
    ):
        fast._too_old.cache_clear()
        card["version"] = version
        told = why_eager(on_gpu(dtype))  # type: ignore[arg-type]
        assert told == reason if reason is None else reason in str(told)
    fast._too_old.cache_clear()
    card["version"] = (9, 0)
    monkeypatch.setattr(fast, "no_triton", lambda: "no triton")
    assert why_eager(on_gpu()) == "no triton"  # type: ignore[arg-type]
    monkeypatch.setenv("MASKED_DENOISE_EAGER", "1")
    assert "MASKED_DENOISE_EAGER=1" in str(why_eager(on_gpu()))  # type: ignore[arg-type]
    monkeypatch.setenv("MASKED_DENOISE_EAGER", "0")
    assert "CPU" in str(why_eager(torch.zeros(1)))
    assert "'meta'" in str(why_eager(torch.zeros(1, device="meta")))


@pytest.mark.parametrize(
    ("found", "reason"),
    [("3.3.1", "triton is 3.3.1; 3.4 or newer is needed"), ("3.4.0", None), ("3.10.0+git", None),
     ("4.0", None)],
)  # fmt: skip
def test_why_eager_with_an_old_triton(
    monkeypatch: pytest.MonkeyPatch, found: str, reason: str | None
) -> None:
    monkeypatch.setattr(fast, "find_spec", lambda name: name)
    monkeypatch.setattr(fast, "version", lambda name: found)
    told = fast.no_triton.__wrapped__()
    assert told is None if reason is None else reason in str(told)
    monkeypatch.setattr(fast, "find_spec", lambda name: None)
    assert "not installed" in str(fast.no_triton.__wrapped__())


def test_why_eager_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    monkeypatch.setattr(fast, "no_triton", lambda: None)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(fast.sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(fast.shutil, "which", lambda name: None)
    try:
        fast._no_compiler.cache_clear()
        assert "install gcc" in str(why_eager(on_gpu))
        monkeypatch.setattr(fast.shutil, "which", lambda name: f"/bin/{name}")
        fast._no_compiler.cache_clear()
        assert fast._no_compiler() is None
        (tmp_path / "Python.h").unlink()
        fast._no_compiler.cache_clear()
        assert "python3-dev" in str(why_eager(on_gpu))
    finally:
        fast._no_compiler.cache_clear()


def test_kinds_of_plan_and_kernel_are_the_same() -> None:
    assert READ.kind == Kind.MAP == 0
    assert len({planned(scheme).kind for scheme in SCHEMES}) == 6


def run_python(code: str) -> str:
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=variables, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_triton_everything_else_works() -> None:
    code = """
        import sys
        sys.modules["triton"] = None
        import torch
        from masked_denoise import RandomPartition, mask_loss, smoothness_loss
        from masked_denoise.ops import MaskedImage, why_eager
        from masked_denoise.hashing import Key
        image = torch.rand(1, 3, 6, 6)
        seen = MaskedImage(image, RandomPartition(2), Key(), 2)
        loss = seen.distance(seen.show(0), 0) + smoothness_loss(image)
        print(why_eager(image), float(loss))
    """
    assert "CPU" in run_python(code)


@kernels
def test_kernels_compile_for_gpus() -> None:
    """Machine code for an H100 of every kernel, in two or three forms, with no GPU at hand."""
    code = """
        import torch, triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
        from masked_denoise import RandomPartition
        from masked_denoise.ops import launch
        from masked_denoise.ops.plan import READ, Origin, plan_of
        from masked_denoise.hashing import Key

        names = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float64: "*fp64",
                 torch.uint8: "*u8", torch.int32: "*i32", torch.int64: "*i64"}
        real, made = launch._kernels, []

        class Kernels:
            def __init__(self, module): self.module = module
            def __getattr__(self, name): return Kernel(getattr(self.module, name))

        class Kernel:
            def __init__(self, function): self.function = function
            def __getitem__(self, grid): return self.compile
            def compile(self, num_warps=4, **values):
                signature, constants, whole = {}, {}, {}
                for index, parameter in enumerate(self.function.params):
                    value = values[parameter.name]
                    if parameter.is_constexpr:
                        signature[parameter.name], constants[parameter.name] = "constexpr", value
                    elif isinstance(value, torch.Tensor):
                        signature[parameter.name] = names[value.dtype]
                        whole[(index,)] = [["tt.divisibility", 16]]
                    elif isinstance(value, float):
                        signature[parameter.name] = "fp32"
                    else:
                        signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
                source = ASTSource(self.function, signature, constants, whole)
                code = triton.compile(source, target=GPUTarget("cuda", 90, 32),
                                      options={"num_warps": num_warps})
                assert code.asm["cubin"]
                made.append(self.function.__name__)

        launch._kernels = lambda file: Kernels(real(file))
        plan, place, none = plan_of(RandomPartition(2), Key(1)), Origin(2), (None, None, None)
        for dtype in (torch.float32, torch.bfloat16):
            image = torch.zeros(1, 3, 64, 64, dtype=dtype)
            output, mask = torch.zeros(4, 3, 32, 32, dtype=dtype), torch.zeros(4, 1, 32, 32) > 0
            for mean in (False, True):
                launch.hide_down(image, *none, None, plan, place, 0, False, mean, 0.0, False)
            args = (output, image, *none, plan, place, 0, False)
            launch.masked_distance(*args)
            launch.masked_distance_backward(torch.ones(()), torch.ones(()), *args)
            launch.merge_up(torch.stack([output] * 2), *none, plan, place, 64, 64)
            launch.replace(image, image, None, None, [5], [0], 2**32 - 1, Origin())
            launch.smoothness(image, 1e-6)
            launch.smoothness_backward(torch.ones(()), image, 1e-6)
        launch.hide_down(image, None, None, mask, mask[:1], READ, place, 0, False, True, 0.0, True)
        print(len(set(made)), len(made))
    """
    pytest.importorskip("triton.compiler")
    assert run_python(code).split() == ["10", "24"]


def test_importing_the_package_does_not_import_triton() -> None:
    code = "import sys, masked_denoise.denoiser; print('triton' in sys.modules)"
    assert run_python(code).strip() == "False"
