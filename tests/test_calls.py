"""How the network is called: precision, compiling, batches, and what memory allows."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from masked_denoise import AsymmetricMaskDenoiser, RandomPartition, Refinement
from masked_denoise import calls as module
from masked_denoise.calls import NetworkCalls, cast_of
from masked_denoise.errors import SettingError
from masked_denoise.images import read_image
from masked_denoise.metrics import psnr
from masked_denoise.transfer import to_device, to_host

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SAMPLES = Path(module.__file__).parent / "samples"


class Counted(nn.Module):
    """Mixes neighbours, and notes what it is shown: shape, dtype of the result, compiled or not."""

    def __init__(self, *, most: int = 10**9) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.most, self.shapes, self.dtypes = most, list[Any](), list[torch.dtype]()

    def forward(self, image: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.shapes.append(tuple(image.shape))
        if len(image) > self.most:
            raise torch.cuda.OutOfMemoryError("made up")
        output: Tensor = self.layer(image)
        if not torch.compiler.is_compiling():
            self.dtypes.append(output.dtype)
        return output


def make(network: nn.Module | None = None, **settings: Any) -> AsymmetricMaskDenoiser:
    settings = {"chroma_radius": 0, "dct_threshold": 0.0, "scheme": RandomPartition(3), **settings}
    denoiser = AsymmetricMaskDenoiser(network or Counted(), **settings)
    for name in ("shapes", "dtypes"):  # of the trials that probe the network
        getattr(denoiser.backbone, name, []).clear()
    return denoiser


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Pretend that calls run on a GPU, of which `pixels` go into one."""
    limit = {"pixels": 1e9}

    class Pretended(NetworkCalls):
        def __init__(self, denoiser: AsymmetricMaskDenoiser, device: Any, **settings: Any) -> None:
            super().__init__(denoiser, device, **settings)
            self.device, self.cast = GPU, None
            self.memory.measured[GPU, None] = 4.0, module.TELLING

    monkeypatch.setattr(module, "free_memory", lambda _: 8 * limit["pixels"])
    monkeypatch.setattr("masked_denoise.inference.NetworkCalls", Pretended)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return limit


# -- batches --------------------------------------------------------------------------------------


def test_on_a_cpu_every_branch_is_a_call() -> None:
    denoiser = make(passes=2)
    denoiser.denoise(picture(3, 12, 14))
    assert denoiser.backbone.shapes == [(1, 3, 12, 14)] * 6


@pytest.mark.parametrize(
    ("pixels", "numbers"),
    [
        (1e9, [6, 12, 6]),  # turns 0 and 2; 5, 7, 1 and 3, which lie on their side; 4 and 6
        (3 * 168, [3] * 8),
        (4 * 168 + 1, [4, 2, 4, 4, 4, 4, 2]),
        (1, [1] * 24),
    ],
)
@pytest.mark.parametrize("refined", [False, True])
def test_any_batch_gives_the_same_picture(
    roomy: dict[str, float], pixels: float, numbers: list[int], refined: bool
) -> None:
    image = picture(3, 12, 14)
    denoiser = make(passes=8, refine=Refinement(2) if refined else False)
    roomy["pixels"] = 0.1
    alone = denoiser.denoise(image)
    denoiser.backbone.shapes.clear()
    roomy["pixels"] = pixels
    torch.testing.assert_close(denoiser.denoise(image), alone, atol=1e-6, rtol=0)
    found = [shape[0] for shape in denoiser.backbone.shapes]
    assert found[: len(numbers)] == numbers
    assert sum(found) == 24 + 6 * refined


def test_square_images_of_all_turns_go_together(roomy: dict[str, float]) -> None:
    denoiser = make(passes=8, stride=2)
    denoiser.denoise(picture(2, 3, 12, 12))
    assert denoiser.backbone.shapes == [(8 * 3 * 8, 3, 6, 6)]


def test_sub_images_of_one_branch_are_parted_where_memory_is_short(roomy: dict[str, float]) -> None:
    denoiser = make(passes=1, stride=3)
    expected = denoiser.denoise(picture(3, 12, 12))
    denoiser.backbone.shapes.clear()
    roomy["pixels"] = 4 * 16 + 1
    torch.testing.assert_close(denoiser.denoise(picture(3, 12, 12)), expected, atol=1e-6, rtol=0)
    assert [shape[0] for shape in denoiser.backbone.shapes] == [4, 4, 1] * 3


def test_where_memory_runs_out_half_as_many_are_tried(roomy: dict[str, float]) -> None:
    image, expected = picture(3, 12, 12), make(passes=4).denoise(picture(3, 12, 12))
    denoiser = make(Counted(most=2), passes=4)
    torch.testing.assert_close(denoiser.denoise(image), expected, atol=1e-6, rtol=0)
    found = [shape[0] for shape in denoiser.backbone.shapes]
    assert found[:3] == [12, 6, 3]  # refused
    assert set(found[3:]) == {1}
    denoiser.backbone.shapes.clear()
    denoiser.denoise(image)
    assert {shape[0] for shape in denoiser.backbone.shapes} == {1}  # it is remembered
    denoiser.backbone.most = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        denoiser.denoise(image)


def test_the_first_call_on_a_gpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"now": 1000, "peak": 1000 + 50 * 144}
    for name, value in (
        ("memory_allocated", taken["now"]), ("max_memory_allocated", taken["peak"]),
        ("memory_reserved", taken["now"]), ("reset_peak_memory_stats", None),
        ("mem_get_info", (50 * 144 * 2 * 5, 0)),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(module, "TELLING", 1)  # one call tells
    denoiser = make()
    calls = NetworkCalls(denoiser, CPU)
    calls.device = GPU
    outputs = list(calls.run((picture(2, 3, 12, 12, seed=n), 0) for n in range(6)))
    assert denoiser.call_cache.measured == {(GPU, None): (50.0, 144)}
    assert [shape[0] for shape in denoiser.backbone.shapes] == [1, 1, 4, 4, 2]
    for number, output in enumerate(outputs):
        expected = denoiser.predict(picture(2, 3, 12, 12, seed=number))
        torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)


def test_memory_is_measured_again_where_more_pixels_tell_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thumbnail takes mostly workspace; what came of it must not hold for all that follow."""
    work, pixels = 1_000_000, {"now": 0}
    denoiser = make()
    calls = NetworkCalls(denoiser, CPU)
    forward = calls._call

    def call(part: Tensor) -> Tensor:
        pixels["now"] = len(part) * part.shape[2] * part.shape[3]
        return forward(part)

    monkeypatch.setattr(calls, "_call", call)
    for name, value in (
        ("memory_allocated", lambda *_: 0), ("reset_peak_memory_stats", lambda *_: None),
        ("max_memory_allocated", lambda *_: work + 8 * pixels["now"]),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    calls.device = GPU
    found = []
    for side in (8, 64, 16, 256, 300):
        calls._call_and_measure(picture(1, 3, side, side))
        found.append(denoiser.call_cache.measured[GPU, None])
    assert [pixels for _, pixels in found] == [64, 4096, 4096, 65536, 65536]
    assert found[0][0] > 10_000
    assert found[-1][0] == pytest.approx(8 + work / 65536)


def test_what_was_found_out_about_a_network_does_not_hold_for_the_next() -> None:
    denoiser = make()
    NetworkCalls(denoiser, CPU).memory.measured[GPU, None] = 4.0, 10
    assert NetworkCalls(denoiser, CPU).memory.measured
    denoiser.backbone = Counted()
    assert not NetworkCalls(denoiser, CPU).memory.measured


# -- precision ------------------------------------------------------------------------------------


def test_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = {"now": (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability["now"])
    assert cast_of("auto", CPU, torch.float32) is None
    assert cast_of("auto", GPU, torch.float32) == torch.bfloat16
    assert cast_of("auto", GPU, torch.float16) is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cast_of("auto", CPU, torch.float32) is None  # that of the caller stays
    capability["now"] = (7, 5)
    assert cast_of("auto", GPU, torch.float32) is None
    with pytest.raises(SettingError, match=r"precision is 'bf61'.*'auto', 'float32', 'bf16'"):
        make().denoise(picture(3, 8, 8), precision="bf61")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("float32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_precision_is_that_of_the_network_alone(precision: str, dtype: torch.dtype) -> None:
    denoiser, image = make(passes=1), picture(3, 12, 12)
    result = denoiser.denoise(image, precision=precision)
    assert set(denoiser.backbone.dtypes) == {dtype}
    assert result.dtype == torch.float32
    expected = denoiser.denoise(image)
    assert torch.equal(result, expected) is (dtype == torch.float32)
    torch.testing.assert_close(result, expected, atol=0.01, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        denoiser.denoise(image, precision=precision)
    assert denoiser.backbone.dtypes[-1] == (torch.bfloat16 if precision == "auto" else dtype)


def test_bf16_costs_less_than_a_hundredth_of_a_decibel() -> None:
    """On a shipped picture, with a network that was trained on it for a moment."""
    noisy = read_image(SAMPLES / "parrot_noisy.jpg").pixels[100:164, 100:164]
    clean = read_image(SAMPLES / "parrot_clean.png").pixels[100:164, 100:164]
    torch.manual_seed(0)
    denoiser = AsymmetricMaskDenoiser("fast-unet", backbone_args={"widths": (8, 16)})
    untrained = denoiser.denoise(noisy.astype("float32") / 255, passes=1)
    denoiser.fit(noisy, steps=40, batch_size=1, crop=32, progress=False, validation=False)
    full, half = (
        denoiser.denoise(noisy.astype("float32") / 255, passes=1, precision=precision)
        for precision in ("float32", "bf16")
    )
    truth = clean.astype("float32") / 255
    scores = [float(psnr(x, truth)) for x in (untrained, full, half)]
    assert scores[1] > scores[0]  # it has learned something
    assert 0 < abs(scores[1] - scores[2]) < 0.01


# -- compiling ------------------------------------------------------------------------------------


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compile with the quick back end that makes no machine code, and note it."""
    made: list[str] = []
    real = torch.compile

    def compile(network: nn.Module) -> Any:
        made.append(type(network).__name__)
        return functools.partial(real, backend="eager")(network)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compile)
    return made


def test_a_network_is_compiled_once(compiler: list[str]) -> None:
    denoiser, image = make(), picture(3, 12, 12)
    expected = denoiser.denoise(image)
    kept = list(denoiser.state_dict())
    denoiser.backbone.shapes.clear()
    for _ in range(2):
        torch.testing.assert_close(denoiser.denoise(image, compile=True), expected)
    assert compiler == ["Counted"]
    assert denoiser.backbone.shapes == []  # the compiled one ran
    assert list(denoiser.state_dict()) == kept
    denoiser.denoise(image)
    assert denoiser.backbone.shapes
    for twin in (copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        assert twin.call_cache.compiled is None
        torch.testing.assert_close(twin.denoise(image), expected)
    denoiser.backbone = Counted()
    denoiser.denoise(image, compile=True)
    assert len(compiler) == 2


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def compile(network: nn.Module) -> Any:
        def refuse(_: Tensor) -> Tensor:
            tried.append(1)
            raise RuntimeError("no C++ compiler\nand much more")

        return refuse

    monkeypatch.setattr(torch, "compile", compile)
    denoiser, image = make(), picture(3, 12, 12)
    with pytest.warns(UserWarning, match="without compile=True.*no C.. compiler$"):
        result = denoiser.denoise(image, compile=True)
    assert torch.equal(result, denoiser.denoise(image))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoiser.denoise(image, compile=True)
    assert tried == [1]


def test_what_the_network_itself_cannot_do_is_raised(compiler: list[str]) -> None:
    denoiser = make()
    denoiser.backbone.layer = nn.Conv2d(5, 3, 3, padding=1)
    with pytest.raises(RuntimeError, match="5 channels"):
        denoiser.denoise(picture(3, 12, 12), compile=True)


# -- copies ---------------------------------------------------------------------------------------


def test_only_copies_to_a_gpu_are_pinned() -> None:
    image = picture(3, 4, 4)
    assert to_device(image, CPU) is image
    assert to_host(image) is image


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu() -> None:
    """The same picture as on a CPU, in float32 and, a little less so, in bf16 and batches."""
    image, denoiser = picture(3, 70, 85), AsymmetricMaskDenoiser("fast-unet")
    for parameter in denoiser.backbone.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, 0, 0.05)
    expected = denoiser.denoise(image)
    denoiser.to("cuda")
    for precision, tolerance in (("float32", 2e-3), ("auto", 0.03), ("fp16", 0.03)):
        for _ in range(2):
            result = denoiser.denoise(image, precision=precision)
            assert result.device == image.device
            torch.testing.assert_close(result, expected, atol=tolerance, rtol=0)
    assert denoiser.denoise(image.cuda()).is_cuda


def test_a_network_that_works_in_place_leaves_the_picture_alone() -> None:
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 1, 3, padding=1))
    student = AsymmetricMaskDenoiser(network, preset="student", channels=1)
    picture = torch.randn(1, 20, 20, generator=torch.Generator().manual_seed(0))
    before = picture.clone()
    student.denoise(picture)
    assert torch.equal(picture, before)


class _InPlace(nn.Module):
    """Takes half of its input away, in the memory of the input or elsewhere."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.share, self.inplace = nn.Parameter(torch.tensor(0.5)), inplace

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2] % 2 or image.shape[3] % 2:
            raise ValueError("even sides are needed")
        return image.mul_(-self.share) if self.inplace else image * -self.share


@pytest.mark.parametrize("size", [(20, 24), (21, 23)])
@pytest.mark.parametrize("residual", [True, False])
def test_a_network_may_work_in_place_on_any_size(size: tuple[int, int], residual: bool) -> None:
    picture = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    made = [
        AsymmetricMaskDenoiser(
            _InPlace(inplace=inplace), preset="student", channels=1, residual=residual
        ).denoise(picture)
        for inplace in (False, True)
    ]
    assert torch.equal(*made)
