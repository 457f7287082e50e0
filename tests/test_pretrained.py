"""The table of named models, where they are, and the pages that are written from it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import pytest
from typer.testing import CliRunner

from masked_denoise import create_backbone
from masked_denoise.backbones.cost import count_parameters
from masked_denoise.cli import app
from masked_denoise.pretrained.availability import availability
from masked_denoise.pretrained.shipped import SHIPPED
from masked_denoise.pretrained.table import (
    OWNER_VARIABLE,
    PRETRAINED,
    PretrainedModel,
    owner,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
UNET = PRETRAINED["amsnet-unet-sidd"]


# The table


@pytest.mark.parametrize(
    ("name", "psnr", "ssim", "file_psnr"),
    [
        ("restormer", 37.93, 0.8948, 37.92),
        ("deamnet", 37.80, 0.8923, 37.80),
        ("nafnet", 37.10, 0.8814, 36.94),
        ("unet", 36.94, 0.8854, 36.94),
    ],
)
def test_numbers_are_those_published(name: str, psnr: float, ssim: float, file_psnr: float) -> None:
    model = PRETRAINED[f"amsnet-{name}-sidd"]
    assert model.backbone == name
    assert (model.paper_psnr, model.paper_ssim, model.file_psnr) == (psnr, ssim, file_psnr)
    assert model.file == f"{name}-sidd-val_avg_psnr={file_psnr:.2f}.ckpt"
    assert set(model.published_numbers()["SIDD validation"].values()) == {psnr, ssim, file_psnr}


def test_the_table_holds_what_was_published_and_no_more() -> None:
    assert len(PRETRAINED) == 4
    for name, model in PRETRAINED.items():
        assert model.name == name
        assert (model.revision is None) == (model.sha256 is None)
        assert model.license == "unknown"
        assert "no licence is stated" in model.license_note
    assert "non-commercial" in PRETRAINED["amsnet-restormer-sidd"].license_note


def test_sizes_are_those_of_the_published_files(shared: Path) -> None:
    published = json.loads((shared / "golden" / "published_checkpoints.json").read_text())
    assert set(published) == set(PRETRAINED)
    for name, model in PRETRAINED.items():
        ours = count_parameters(model.backbone, **model.arguments)
        unread = 64 * 64 * (9 + 25 + 49) + 3 * 64 + 64 * 192 + 64 if "deamnet" in name else 0
        assert ours + unread == published[name]["parameters"]


def test_the_owner_on_the_hub_is_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OWNER_VARIABLE, raising=False)
    assert owner() == "masked-denoise"
    assert UNET.repository == "masked-denoise/amsnet-unet-sidd"
    monkeypatch.setenv(OWNER_VARIABLE, "us")
    assert {model.repository.partition("/")[0] for model in PRETRAINED.values()} == {"us"}
    assert "us/amsnet-unet-sidd" in UNET.missing_message()
    monkeypatch.setenv(OWNER_VARIABLE, "")
    assert owner() == "masked-denoise"


@pytest.mark.parametrize("model", PRETRAINED.values(), ids=lambda model: model.name)
def test_the_message_says_where_the_original_is_and_what_to_type(model: PretrainedModel) -> None:
    told = model.missing_message()
    assert "https://github.com/lll143653/amsnet" in told
    folder = model.name.removesuffix("-sidd")  # of its name a folder would hide the model
    assert f"`masked-denoise convert {model.file} -o {folder}`" in told
    assert told.endswith(f"load '{folder}'")


def test_the_networks_can_be_made() -> None:
    assert sum(p.numel() for p in create_backbone("unet", width=128).parameters()) == 7_935_555


# Where they are


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub's client, used by the library."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*arguments: object, **named: object) -> bool:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(huggingface_hub.HfApi, "file_exists", ask)


def put(cache: Path, *files: str, revision: str = "main") -> None:
    """Put files into the cache as the client does."""
    folder = cache / f"models--{UNET.repository.replace('/', '--')}"
    commit = "0123456789abcdef" * 2 + "01234567"
    for file in files:
        (folder / "snapshots" / commit / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / commit / file).write_text("{}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / revision).write_text(commit)


@pytest.mark.usefixtures("no_connection")
def test_what_is_in_the_cache_is_told_without_a_connection(cache: Path) -> None:
    assert availability(UNET, cache_dir=cache) == (False, "not checked")
    put(cache, "config.json")
    assert not availability(UNET, cache_dir=cache).cached
    put(cache, "config.json", "model.safetensors")
    found = availability(UNET, cache_dir=cache)
    assert found.cached
    assert found.words() == "cached, to convert"
    assert not availability(PRETRAINED["amsnet-nafnet-sidd"], cache_dir=cache).cached


@pytest.mark.parametrize(("there", "told"), [(True, "on the Hub"), (False, "not on the Hub")])
def test_the_hub_is_asked_where_that_is_wished(
    cache: Path, monkeypatch: pytest.MonkeyPatch, there: bool, told: str
) -> None:
    asked = []

    def ask(self: object, repository: str, file: str, **named: object) -> bool:
        asked.append((repository, file, named))
        return there

    monkeypatch.setattr(huggingface_hub.HfApi, "file_exists", ask)
    found = availability(UNET, online=True, cache_dir=cache)
    assert asked == [(UNET.repository, "model.safetensors", {"revision": None})]
    assert found.hub == ("yes" if there else "no")
    assert found.words() == f"{told}, to convert"


def test_a_hub_that_does_not_answer_is_no_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*arguments: object, **named: object) -> bool:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "file_exists", ask)
    found = availability(UNET, online=True, cache_dir=cache)
    assert "no route to host" in found.hub
    assert "no route to host" in found.words()


def models(*options: str) -> str:
    result = CliRunner().invoke(app, ["models", *options])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("no_connection", "cache")
def test_the_command_lists_the_models() -> None:
    text = models()
    assert "camera-small" in text
    row = next(line for line in text.splitlines() if "amsnet-nafnet-sidd" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["amsnet-nafnet-sidd", "29.1 M", "unknown", "37.10/0.8814", "36.94",
                     "to convert"]  # fmt: skip
    assert all(model.convert_command() in text for model in PRETRAINED.values())
    assert "https://github.com/lll143653/amsnet" in text


@pytest.mark.usefixtures("no_connection")
def test_the_command_prints_json(cache: Path) -> None:
    put(cache, "config.json", "model.safetensors")
    told: dict[str, Any] = {one["name"]: one for one in json.loads(models("--json"))}
    assert set(told) == {*PRETRAINED, *SHIPPED}
    assert told["camera-small"]["where"] == "shipped"
    unet = told["amsnet-unet-sidd"]
    assert unet["cached"]
    assert not told["amsnet-deamnet-sidd"]["cached"]
    assert unet["hub"] == "not checked"
    assert unet["parameters"] == 7_935_555
    assert unet["published"] == {"paper_psnr": 36.94, "paper_ssim": 0.8854, "file_psnr": 36.94}


# The pages


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["backbones.md", "pretrained.md"])
def test_tables_of_the_documentation_are_up_to_date(tables: ModuleType, page: str) -> None:
    assert tables.rewritten(page) == (DOCS / page).read_text("utf-8"), "python docs/tables.py"


def test_a_stale_table_is_noticed_and_mended(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    text = (DOCS / "pretrained.md").read_text("utf-8")
    (tmp_path / "pretrained.md").write_text(text.replace("| 37.10 /", "| 38.10 /"), "utf-8")
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    monkeypatch.setattr(tables, "TABLES", {"pretrained.md": tables.TABLES["pretrained.md"]})
    assert tables.main(check=True) == 1
    assert "stale" in capsys.readouterr().out
    assert tables.main(check=False) == 0
    assert (tmp_path / "pretrained.md").read_text("utf-8") == text
    assert tables.main(check=True) == 0
    (tmp_path / "pretrained.md").write_text("no place", "utf-8")
    with pytest.raises(SystemExit, match="0 places for the table 'pretrained'"):
        tables.main(check=False)


def test_the_owner_is_named_in_one_place() -> None:
    source = DOCS.parent / "src"
    named = [file.name for file in source.rglob("*.py") if OWNER_VARIABLE in file.read_text()]
    assert named == ["table.py"]
