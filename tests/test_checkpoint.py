"""Models on disk: the same denoiser comes back, and nothing damaged or foreign gets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.checkpoint import (
    CONFIG,
    WEIGHTS,
    load_model,
    load_state,
    save_state,
    write_file,
)
from masked_denoise.denoiser import from_pretrained
from masked_denoise.errors import BackboneError, CheckpointError, SettingError
from masked_denoise.refine import Refinement
from masked_denoise.scheme import Checkerboard, Lattice, MaskScheme, Noise2Void, RandomPartition

SMALL: dict[str, Any] = {"backbone_args": {"widths": (4, 8)}}


class Own(nn.Module):
    """A network that is not registered, with a buffer and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 3, 3, padding=1)
        self.b.weight = self.a.weight
        self.register_buffer("gain", torch.rand(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * self.gain  # type: ignore[no-any-return]


class Stripes(MaskScheme):
    """A mask scheme that is not built in."""

    branches = 2

    def label(self, grid: Any, key: Any) -> Tensor:
        return ((grid.sub_col + grid.sub_row + key.draw) % 2).to(torch.uint8).expand(grid.shape)


def randomised(denoiser: AsymmetricMaskDenoiser) -> AsymmetricMaskDenoiser:
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.normal_(0, 0.1)
    return denoiser


RECIPES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "scheme": RandomPartition(4, hide="others", fill="zero", inference=Lattice(4, radius=1)),
        "train_stride": (2, 3), "stride": 2, "passes": 2, "refine": Refinement(2, 0.1),
        "residual": False, "observation": 0.2, "value_range": (0.0, 255.0),
    },
    "paper": {"preset": "amsnet-p-e", "refine": Refinement(1)},
    "noise2void": {"scheme": Noise2Void(0.05), "train_stride": 1},
    "checkerboard": {"scheme": Checkerboard(inference=RandomPartition(3))},
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_the_same_denoiser_comes_back(recipe: dict[str, Any], tmp_path: Path) -> None:
    denoiser = randomised(AsymmetricMaskDenoiser(**SMALL, **recipe))
    state = torch.get_rng_state()
    again = AsymmetricMaskDenoiser.from_pretrained(denoiser.save_pretrained(tmp_path / "a" / "b"))
    assert torch.equal(state, torch.get_rng_state())
    image = torch.rand(3, 21, 30)
    assert torch.equal(denoiser.denoise(image), again.denoise(image))
    assert (again.preset, again.value_range) == (denoiser.preset, denoiser.value_range)
    names = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert names == ["README.md", CONFIG, WEIGHTS]


def test_a_network_and_a_scheme_of_ones_own_come_back_when_passed(tmp_path: Path) -> None:
    denoiser = AsymmetricMaskDenoiser(Own(), scheme=Stripes())
    denoiser.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="pass backbone="):
        from_pretrained(tmp_path, scheme=Stripes())
    with pytest.raises(CheckpointError, match=r"mask scheme Stripes.*pass scheme="):
        from_pretrained(tmp_path, backbone=Own())
    again = from_pretrained(tmp_path, backbone=Own(), scheme=Stripes())
    image = torch.rand(3, 16, 16)
    assert torch.equal(denoiser.denoise(image), again.denoise(image))
    with pytest.raises(CheckpointError, match="do not fit the backbone"):
        from_pretrained(tmp_path, backbone=nn.Conv2d(3, 3, 1), scheme=Stripes())


def test_backbone_args_reach_the_network() -> None:
    assert AsymmetricMaskDenoiser(**SMALL).backbone.head.in_channels == 4  # type: ignore[union-attr]
    with pytest.raises(SettingError, match="backbone_args"):
        AsymmetricMaskDenoiser(nn.Conv2d(3, 3, 1), **SMALL)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return randomised(AsymmetricMaskDenoiser(**SMALL)).save_pretrained(tmp_path / "model")


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def test_damage_is_noticed(model: Path) -> None:
    data = bytearray((model / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (model / WEIGHTS).write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged, or is not the file"):
        load_model(model)
    (model / WEIGHTS).write_bytes(data[: len(data) // 2])
    config = json.loads((model / CONFIG).read_text())
    del config["weights_sha256"]
    (model / CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="cannot read"):
        load_model(model)
    (model / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        load_model(model)
    (model / CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_model(model)
    (model / CONFIG).unlink()
    with pytest.raises(CheckpointError, match="no model in"):
        load_model(model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2"),
        ({"colour": 1}, "unknown keys: colour"),
        ({"passes": 0}, "passes is 0"),
        ({"backbone": {"name": "no-net", "arguments": {}}}, "unknown backbone 'no-net'"),
        ({"backbone": {"name": "fast-unet", "arguments": {"depth": 3}}}, "depth"),
        ({"scheme": {"name": "no", "class": "No", "settings": {}}}, "unknown scheme"),
        ({"channels": 1}, "do not fit the backbone"),
    ],
)
def test_settings_that_do_not_belong_are_named(
    model: Path, changes: dict[str, Any], words: str
) -> None:
    edit(model, **changes)
    with pytest.raises(CheckpointError, match=words):
        load_model(model)


def test_a_missing_key_is_named(model: Path) -> None:
    config = json.loads((model / CONFIG).read_text())
    del config["stride"]
    (model / CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="missing keys: stride"):
        load_model(model)


def test_a_full_disk_harms_nothing(model: Path) -> None:
    resource = pytest.importorskip("resource")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    other = randomised(AsymmetricMaskDenoiser(**SMALL))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*model\.safetensors"):
            other.save_pretrained(model)
        with pytest.raises(CheckpointError, match=r"cannot write .*last\.pt"):
            save_state(model / "last.pt", {"weights": torch.zeros(4000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_a_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "model", b"old")

    def refuse(source: Path, target: Path) -> None:
        assert (tmp_path / "model").read_bytes() == b"old"
        assert Path(source).read_bytes() == b"new"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(CheckpointError, match="No space left on device; free some space"):
        write_file(tmp_path / "model", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        write_file(tmp_path / "file" / "model", b"x")


def test_states_run_no_code(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"format": 1, "recipe": {}, "bad": BackboneError("x")}, path)
    with pytest.raises(CheckpointError, match="damaged, cut off or of another kind"):
        load_state(path)
    torch.save({"format": 1}, path)
    with pytest.raises(CheckpointError, match="not a training state"):
        load_state(path)
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        load_state(path)


def test_what_cannot_be_stored_is_named(tmp_path: Path) -> None:
    scheme = Stripes()
    scheme.table = torch.zeros(3)  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"scheme\.table cannot be stored"):
        AsymmetricMaskDenoiser(**SMALL, scheme=scheme).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
