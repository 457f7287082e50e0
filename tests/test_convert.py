"""Published trainer checkpoints become models: every name mapped, nothing else let in."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from masked_denoise import AsymmetricMaskDenoiser, create_backbone, from_pretrained
from masked_denoise.backbones.deamnet import UNUSED
from masked_denoise.cli import app
from masked_denoise.errors import CheckpointError, SettingError, WeightsError
from masked_denoise.pretrained.convert import convert_checkpoint, read_checkpoint
from masked_denoise.pretrained.published import BRANCH, recognise
from masked_denoise.pretrained.table import PRETRAINED, PretrainedModel

Weights = dict[str, Tensor]
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4},
    "deamnet": {"width": 8},
    "nafnet": {
        "width": 4, "encoder_blocks": (1, 2), "middle_blocks": 1, "decoder_blocks": (2, 1),
        "expand": 2, "hidden": 3,
    },
    "restormer": {
        "dim": 8, "blocks": (1, 2, 1, 1), "refinement_blocks": 1, "heads": (1, 2, 4, 4),
        "expansion": 1.5, "bias": True, "norm_bias": True,
    },
}  # fmt: skip


def network(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_backbone(name, **(arguments or SMALL[name])).eval()


def published_weights(name: str) -> Weights:
    """Return the weights of a small network under the names they were published with."""
    weights = dict(network(name).state_dict())
    if name == "deamnet":
        weights |= {f"{beginning}{kind}": torch.zeros(2) for beginning in UNUSED
                    for kind in ("conv2d.weight", "conv2d.bias")}  # fmt: skip
    return weights


def layout(weights: Weights, branch: int = 0) -> Weights:
    return {BRANCH.format(branch) + name: value for name, value in weights.items()}


def write(path: Path, weights: Weights | None = None, **more: Any) -> Path:
    """Write a checkpoint as the trainer does."""
    state = layout(published_weights("unet")) if weights is None else weights
    torch.save({"epoch": 3, "global_step": 1234, "state_dict": state, "loops": {}, **more}, path)
    return path


def shapes_of(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


# From a checkpoint to a model


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_the_model_is_the_network_in_the_file(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt", layout(published_weights(name)))
    folder = convert_checkpoint(path, tmp_path / "model")
    assert folder == tmp_path / "model"
    denoiser = from_pretrained(folder)
    assert denoiser.backbone_name == name
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in denoiser.backbone_args.items()}
    assert given == SMALL[name]
    image = torch.rand(1, 3, 32, 64)
    torch.testing.assert_close(denoiser.backbone(image), network(name)(image))


@pytest.mark.parametrize("name", ["unet", "nafnet", "restormer"])
@torch.no_grad()
def test_recorded_checkpoints_give_the_recorded_output(
    name: str, shared: Path, tmp_path: Path
) -> None:
    path = shared / "golden" / f"published_layout_{name}.ckpt"
    denoiser = from_pretrained(convert_checkpoint(path, tmp_path / "model"))
    data = load_file(path.with_suffix(".safetensors"))
    output = denoiser.backbone(data["input"])
    torch.testing.assert_close(output, data["output"], rtol=1e-5, atol=1e-5)


def test_the_recipe_is_the_papers(tmp_path: Path) -> None:
    denoiser = from_pretrained(convert_checkpoint(write(tmp_path / "a.ckpt"), tmp_path / "model"))
    assert denoiser.preset == "amsnet"
    assert denoiser.scheme.settings()["fill"] == "zero"
    assert denoiser.scheme.branches == 2
    assert denoiser.train_strides == (5,)
    assert (denoiser.stride, denoiser.passes, denoiser.observation) == (2, 1, 0)
    assert not denoiser.residual
    assert denoiser.refinement is not None
    assert denoiser.refinement.masked


def test_where_it_comes_from_is_stored(tmp_path: Path) -> None:
    path = write(tmp_path / "some name.ckpt")
    folder = convert_checkpoint(path, tmp_path / "model", license="cc-by-4.0")
    config = json.loads((folder / "config.json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert config["source"] == {"file": "some name.ckpt", "sha256": digest}
    assert config["license"] == "cc-by-4.0"
    assert not {"metrics", "training_data"} & config.keys()
    assert digest in (folder / "README.md").read_text()


@pytest.fixture
def small_published(monkeypatch: pytest.MonkeyPatch) -> PretrainedModel:
    """A named model with a small network."""
    model = PretrainedModel(
        name="small", backbone="unet", arguments=SMALL["unet"], file="unet-12.34.ckpt",
        paper_psnr=12.5, paper_ssim=0.5, file_psnr=12.34, license_note="nobody knows",
    )  # fmt: skip
    monkeypatch.setitem(PRETRAINED, "small", model)
    return model


def test_published_facts_belong_to_the_published_file_alone(
    small_published: PretrainedModel, tmp_path: Path
) -> None:
    same = read_checkpoint(write(tmp_path / "renamed 12.34.ckpt"))
    assert same.published is small_published
    folder = convert_checkpoint(same.path, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["metrics"] == small_published.published_numbers()
    assert config["training_data"] == small_published.training_data
    assert config["license"] == "unknown"
    assert config["source"]["name"] == "small"
    assert config["source"]["licence"] == "nobody knows"
    assert read_checkpoint(write(tmp_path / "mine 30.00.ckpt")).published is None
    other = layout(dict(network("unet", width=5).state_dict()))
    assert read_checkpoint(write(tmp_path / "12.34.ckpt", other)).published is None


def test_half_precision_and_branches_and_the_trainer_are_told_of(tmp_path: Path) -> None:
    weights = {name: value.half() for name, value in published_weights("unet").items()}
    state = layout(weights) | layout(weights, 1)
    path = write(tmp_path / "a.ckpt", state, optimizer_states=[{"state": {}}])
    found = read_checkpoint(path)
    assert found.left_out == (
        "branch 1, a copy of branch 0",
        "what the trainer kept beside the weights: epoch, global_step, loops, optimizer_states",
    )
    denoiser = from_pretrained(convert_checkpoint(path, tmp_path / "model"))
    assert {weight.dtype for weight in denoiser.backbone.parameters()} == {torch.float32}
    path = write(tmp_path / "b.ckpt", layout(published_weights("deamnet")))
    assert read_checkpoint(path).left_out[0] == "8 weights that deamnet never reads"


def test_no_random_number_is_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt")
    state = torch.random.get_rng_state()
    convert_checkpoint(path, tmp_path / "model")
    assert torch.equal(state, torch.random.get_rng_state())


# Which network it is


@pytest.mark.parametrize("name", PRETRAINED)
def test_published_sizes_are_recognised(name: str) -> None:
    model = PRETRAINED[name]
    with torch.device("meta"):
        weights = create_backbone(model.backbone, **model.arguments).state_dict()
    found = recognise(shapes_of(weights))
    assert (found.backbone, found.channels, found.arguments) == (
        model.backbone, 3, dict(model.arguments),
    )  # fmt: skip
    assert found.published is model


@pytest.mark.parametrize("name", PRETRAINED)
def test_every_published_name_is_mapped(name: str, shared: Path) -> None:
    file = shared / "golden" / "published_checkpoints.json"
    recorded = json.loads(file.read_text())[name]["state_dict"]
    prefix = BRANCH.format(0)
    assert all(one.startswith(prefix) for one in recorded)
    shapes = {one.removeprefix(prefix): tuple(shape) for one, shape in recorded.items()}
    found = recognise(shapes)
    assert found.published is PRETRAINED[name]
    with torch.device("meta"):
        network = create_backbone(found.backbone, **found.arguments)
    assert shapes_of(dict(network.state_dict())).keys() | found.unread == shapes.keys()
    assert bool(found.unread) == (name == "amsnet-deamnet-sidd")


@pytest.mark.parametrize("expansion", [1, 1.5, 2, 2.66, 3, 4])
@pytest.mark.parametrize("dim", [2, 12, 48])
def test_any_restormer_is_recognised(dim: int, expansion: float) -> None:
    arguments = {"dim": dim, "expansion": expansion, "blocks": (1, 1, 1, 1), "heads": (1, 1, 2, 2)}
    with torch.device("meta"):
        weights = create_backbone("restormer", channels=2, **arguments).state_dict()
    found = recognise(shapes_of(weights))
    with torch.device("meta"):
        again = create_backbone("restormer", channels=2, **found.arguments).state_dict()
    assert shapes_of(again) == shapes_of(weights)


@pytest.mark.parametrize("name", SMALL)
def test_a_name_too_few_too_many_or_of_another_shape(name: str) -> None:
    shapes = shapes_of(dict(network(name).state_dict()))
    for some in list(shapes)[:: max(len(shapes) // 7, 1)]:
        with pytest.raises(WeightsError):
            recognise({one: shape for one, shape in shapes.items() if one != some}, "f")
        with pytest.raises(WeightsError):
            recognise(shapes | {some: (*shapes[some], 7)}, "f")
    with pytest.raises(WeightsError, match=r"f is a .* left over: 1 name \(one\.more\)"):
        recognise(shapes | {"one.more": (1,)}, "f")
    with pytest.raises(WeightsError):
        recognise(dict.fromkeys(shapes, ()))


def test_messages_name_what_is_wrong() -> None:
    shapes = shapes_of(dict(network("unet").state_dict()))
    del shapes["nin_a.bias"]
    shapes["nin_b.bias"] = (95,)
    with pytest.raises(WeightsError) as caught:
        recognise(shapes, "f.ckpt")
    assert str(caught.value) == (
        "f.ckpt is a unet that does not fit: missing: 1 name (nin_a.bias); of another shape: 1 "
        "name (nin_b.bias), the first (95,) instead of (96,)"
    )
    with pytest.raises(WeightsError, match=r"no network that is known here: found 1 name \(a\)"):
        recognise({"a": (1,)})
    with pytest.raises(WeightsError, match="begins like a unet"):
        recognise({"enc_conv0.weight": (3,)})
    huge = {name: tuple(2**40 for _ in shape) for name, shape in shapes.items()}
    with pytest.raises(WeightsError):
        recognise(huge)


# What is refused


class Code:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = write(tmp_path / "a.ckpt", hyper_parameters=Code(f"touch {witness}"))
    with pytest.raises(WeightsError, match=r"a\.ckpt is refused: .*system would have to be called"):
        convert_checkpoint(path, tmp_path / "model")
    path.write_bytes(pickle.dumps(Code(f"touch {witness}")))
    with pytest.raises(WeightsError):
        convert_checkpoint(path, tmp_path / "model")
    assert not witness.exists()
    assert not (tmp_path / "model").exists()


def test_damaged_files(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.ckpt").read_bytes()
    path = tmp_path / "a.ckpt"
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="damaged, cut off or of another kind"):
            read_checkpoint(path)
    path.write_text("not a checkpoint at all")
    with pytest.raises(WeightsError, match="of another kind"):
        read_checkpoint(path)
    for missing in (tmp_path / "none.ckpt", tmp_path):
        with pytest.raises(WeightsError, match="cannot read"):
            read_checkpoint(missing)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "it holds list"),
        ({"weights": 1}, r"it holds 1 name \(weights\)"),
        ({"state_dict": {}}, "weights under 'state_dict' are needed"),
        ({"state_dict": {"a.b": torch.zeros(1)}}, r"no name begins with 'net\.dn\.branches\.0\.'"),
        ({"state_dict": {"a": 1}}, "holds 'a', a int"),
        ({"state_dict": {1: torch.zeros(1)}}, "only tensors under names"),
        ({"state_dict": {"a": torch.zeros(1, dtype=torch.int8)}}, "dense float values"),
        ({"state_dict": {"a": torch.zeros(2, 2).to_sparse()}}, "dense float values"),
    ],
)
def test_other_files_are_told_apart(content: Any, told: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=told):
        read_checkpoint(tmp_path / "a.ckpt")


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    weights = published_weights("unet")
    state = layout(weights)
    broken = layout(weights | {"nin_a.bias": torch.full((96,), torch.nan)})
    with pytest.raises(WeightsError, match=r"NaN or infinite: 1 name \(nin_a\.bias\)"):
        read_checkpoint(write(tmp_path / "a.ckpt", broken))
    other = {name: value + 1 for name, value in weights.items()}
    with pytest.raises(WeightsError, match="branch 1 differs from branch 0"):
        read_checkpoint(write(tmp_path / "a.ckpt", state | layout(other, 1)))
    partial = {"nin_a.bias": weights["nin_a.bias"]}
    with pytest.raises(WeightsError, match="branch 1 differs"):
        read_checkpoint(write(tmp_path / "a.ckpt", state | layout(partial, 1)))
    with pytest.raises(WeightsError, match=r"more than the branches .*: 1 name \(net\.loss\)"):
        read_checkpoint(write(tmp_path / "a.ckpt", state | {"net.loss": torch.zeros(1)}))


def test_a_small_file_cannot_claim_a_large_network(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = shapes_of(dict(create_backbone("unet", width=1 << 20).state_dict()))
    claimed = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    path = write(tmp_path / "a.ckpt", layout(claimed))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(WeightsError, match="made to fill the memory"):
        read_checkpoint(path)


# Whole or not at all


def test_folders_that_are_taken(tmp_path: Path) -> None:
    path, folder = write(tmp_path / "a.ckpt"), tmp_path / "model"
    folder.mkdir()
    convert_checkpoint(path, folder)  # into an empty one
    first = (folder / "model.safetensors").read_bytes()
    other = layout({name: value + 1 for name, value in published_weights("unet").items()})
    write(path, other)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(SettingError, match="is not empty"):
        convert_checkpoint(path, folder)
    assert (folder / "model.safetensors").read_bytes() == first
    convert_checkpoint(path, folder, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() != first
    assert (folder / "notes.txt").read_text() == "mine"
    from_pretrained(folder)
    with pytest.raises(SettingError, match="is a file"):
        convert_checkpoint(path, path)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.ckpt")

    def save(self: object, folder: Path, **named: object) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AsymmetricMaskDenoiser, "save_pretrained", save)
    with pytest.raises(CheckpointError, match="No space left"):
        convert_checkpoint(path, tmp_path / "model")
    assert [one.name for one in tmp_path.iterdir()] == ["a.ckpt"]


# The command


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def words(result: Result) -> str:
    return " ".join(result.output.split())


def test_the_command_tells_what_it_found(
    small_published: PretrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "u-12.34.ckpt")
    told = words(run("u-12.34.ckpt", "-o", "model"))
    assert "u-12.34.ckpt is a unet (width=4)" in told
    assert "the published small; licence: nobody knows" in told
    assert "left out: what the trainer kept" in told
    assert "denoise photos/ -o clean/ --model model" in told
    assert "--output model is not empty" in words(run("u-12.34.ckpt", "-o", "model", code=2))
    assert run("u-12.34.ckpt", "-o", "model", "--overwrite", "--quiet").output == ""
    assert "cannot read none.ckpt" in words(run("none.ckpt", "-o", "other", code=2))
    assert not (tmp_path / "other").exists()


def test_the_command_pushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pushed = write(tmp_path / "a.ckpt"), []

    def push(self: AsymmetricMaskDenoiser, repository: str) -> str:
        pushed.append((repository, self.backbone_name, self.card["license"]))
        return f"https://hub/{repository}/commit/1"

    monkeypatch.setattr(AsymmetricMaskDenoiser, "push_to_hub", push)
    told = words(run(path, "-o", tmp_path / "a", "--push", "me/mine"))
    assert "https://hub/me/mine/commit/1" in told
    assert "licence is not stated" in told
    told = words(run(path, "-o", tmp_path / "b", "--push", "me/mine", "--license", "mit"))
    assert "licence is not stated" not in told
    assert pushed == [("me/mine", "unet", "unknown"), ("me/mine", "unet", "mit")]
    assert "not a repository" in words(run(path, "-o", tmp_path / "c", "--push", "me", code=2))
    assert not (tmp_path / "c").exists()
