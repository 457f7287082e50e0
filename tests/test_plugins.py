"""Plug-ins: a real package, installed and used by its metadata; and what can go wrong with one."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import json
import re
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import masked_denoise
from masked_denoise import (
    AsymmetricMaskDenoiser,
    MaskScheme,
    create_backbone,
    list_backbones,
    plugins,
    register_backbone,
    scheme,
)
from masked_denoise.backbones import backbone_info, registry
from masked_denoise.errors import SettingError, UnknownNameError
from masked_denoise.plugins import PluginWarning
from masked_denoise.scheme import create_scheme, register_scheme

HERE = Path(__file__).resolve().parent
GUIDE = HERE.parent / "docs" / "add_a_backbone.md"

# -- an installed package -------------------------------------------------------------------------

USE = """
import json, sys, warnings
folder, told = sys.argv[1], {}
import masked_denoise
from masked_denoise import AsymmetricMaskDenoiser, backbones, scheme
loaded = lambda: "denoise_plugin" in sys.modules
masked_denoise.create_backbone("unet", width=2)
scheme.create_scheme("random")
told["early"] = loaded()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    denoiser = masked_denoise.from_pretrained(folder)
    told["names"] = masked_denoise.list_backbones()
    told["again"] = masked_denoise.list_backbones("half*")
told["late"] = loaded()
told["warnings"] = [[type(w.message).__name__, str(w.message)] for w in caught]
told["network"] = type(denoiser.backbone).__module__
told["scheme"] = repr(denoiser.scheme)
told["unet"] = backbones.backbone_info("unet").build.__module__
told["multiple"] = denoiser.traits.size_multiple
import torch
told["sum"] = float(denoiser.denoise(torch.linspace(0, 1, 270).view(1, 15, 18)).sum())
print(json.dumps(told))
"""


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test registers and loads."""
    list_backbones()
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    monkeypatch.setattr(plugins, "_LOADED", set())
    known = dict(scheme.SCHEMES)
    yield
    scheme.SCHEMES.clear()
    scheme.SCHEMES.update(known)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new virtual environment with the package of tests/plugins in it.

    The environment sees the packages of this one, and pip installs into it what setuptools builds
    of a copy of the folder; nothing is downloaded.
    """
    for needed in ("setuptools", "pip"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed}, which builds the package of the plug-ins, is not installed")
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copytree(HERE / "plugins", folder / "source")
    builder = venv.EnvBuilder(with_pip=False)
    builder.create(folder / "venv")
    python = Path(builder.ensure_directories(folder / "venv").env_exe)
    ours = Path(masked_denoise.__file__).parents[1]
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    packages = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (Path(packages.stdout.strip()) / "parent.pth").write_text("\n".join([str(ours), *lines]))
    install = [
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index",
        "--no-deps", "--no-build-isolation", "--disable-pip-version-check", folder / "source",
    ]  # fmt: skip
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return python


@pytest.mark.usefixtures("clean")
def test_an_installed_package_adds_a_network_and_a_scheme(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model made with both here is loaded there by name; the other two plug-ins only warn."""
    monkeypatch.syspath_prepend(HERE / "plugins")
    importlib.import_module("denoise_plugin.half_net")
    importlib.import_module("denoise_plugin.diagonal")
    denoiser = AsymmetricMaskDenoiser("half-net", channels=1, scheme=create_scheme("diagonal"))
    torch.nn.init.normal_(denoiser.backbone.body[-1].weight)
    denoiser.save_pretrained(tmp_path / "model")
    expected = denoiser.denoise(torch.linspace(0, 1, 270).view(1, 15, 18)).sum()
    for name in [name for name in sys.modules if name.startswith("denoise_plugin")]:
        monkeypatch.delitem(sys.modules, name)

    done = subprocess.run(
        [environment, "-c", USE, tmp_path / "model"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["early"], told["late"]) == (False, True)
    assert "half-net" in told["names"]
    assert set(list_backbones()) <= set(told["names"])
    assert told["again"] == ["half-net"]
    assert told["network"] == "denoise_plugin.half_net"
    assert told["scheme"] == "Diagonal()"
    assert told["multiple"] == 2
    assert told["unet"] == "masked_denoise.backbones.unet"
    assert told["sum"] == pytest.approx(float(expected), rel=1e-5)
    assert [kind for kind, _ in told["warnings"]] == ["PluginWarning"] * 2
    missing, taken = (message for _, message in told["warnings"])
    assert re.search(r"'needs-something'.*denoise-plugin 1\.2.*a_package_that_nobody", missing)
    assert re.search(r"'other-unet'.*denoise-plugin 1\.2.*'unet' is taken.*pip uninstall", taken)


# -- one at a time --------------------------------------------------------------------------------


def offer(monkeypatch: pytest.MonkeyPatch, **objects: object) -> None:
    """Make the plug-ins of every group those objects; an exception is raised by loading."""

    class Offered(EntryPoint):
        def load(self) -> Any:
            found = objects[self.name]
            if isinstance(found, BaseException):
                raise found
            return found

    def found(*, group: str) -> list[EntryPoint]:
        return [Offered(name, f"some.where:{name}", group) for name in objects]

    monkeypatch.setattr(plugins, "entry_points", found)


def network(name: str) -> type[nn.Module]:
    return register_backbone(name, license="MIT")(type(f"Net_{name}", (nn.Identity,), {}))


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ImportError("no such thing"), "ImportError: no such thing"),
        (SystemExit(3), "SystemExit: 3"),
        (lambda channels=3: nn.Identity(), "registers no backbone; decorate it"),
        (json, "registers no backbone"),
        (5, "5 registers no backbone"),
    ],
)
def test_a_failing_backbone_warns_and_the_others_are_there(
    monkeypatch: pytest.MonkeyPatch, wrong: object, message: str
) -> None:
    offer(monkeypatch, a_wrong=wrong, b_right=network("right-net"))
    with pytest.warns(PluginWarning, match=message) as caught:
        names = list_backbones()
    assert {"right-net", "unet"} <= set(names)
    assert len(caught) == 1
    assert "'a_wrong' (some.where:a_wrong)" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.usefixtures("clean")
def test_warnings_come_once_and_as_errors_break_only_the_first_use(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    offer(monkeypatch, wrong=ImportError("gone"))
    with pytest.raises(UnknownNameError, match="unknown backbone 'nothing'"):
        create_backbone("nothing")
    assert [one.category for one in recwarn] == [PluginWarning]
    list_backbones()
    assert len(recwarn) == 1


@pytest.mark.usefixtures("clean")
def test_known_names_load_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: pytest.fail("looked"))
    backbone_info("unet")
    create_scheme("lattice", period=3)
    register_backbone("mine")(lambda channels=3: nn.Identity())
    assert isinstance(create_backbone("mine"), nn.Identity)


@pytest.mark.usefixtures("clean")
def test_a_module_may_stand_for_the_networks_that_it_registers(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    kind = type("Inner", (nn.Identity,), {"__module__": "pack.inner"})
    register_backbone("inner")(kind)
    offer(monkeypatch, pack=ModuleType("pack.plugin"))
    assert "inner" in list_backbones()
    assert not recwarn


@pytest.mark.usefixtures("clean")
def test_a_plugin_may_look_at_the_list_while_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Curious(EntryPoint):
        def load(self) -> Any:
            seen.append(list_backbones())
            return network("curious")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Curious("a", "b:c", group)])
    assert "curious" in list_backbones()
    assert "unet" in seen[0]


@pytest.mark.usefixtures("clean")
def test_damaged_metadata_is_told_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(group: str) -> None:
        raise KeyError("Name")

    monkeypatch.setattr(plugins, "entry_points", fail)
    with pytest.warns(PluginWarning, match=r"masked_denoise\.backbones are left out.*KeyError"):
        assert "unet" in list_backbones()


# -- schemes --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clean")
def test_a_scheme_needs_no_decorator(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(MaskScheme):
        name = "rows"

    offer(monkeypatch, rows=Rows)
    assert isinstance(create_scheme("rows"), Rows)
    with pytest.raises(UnknownNameError, match="did you mean 'rows'"):
        create_scheme("row")


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (type("NoName", (MaskScheme,), {}), "NoName has no name"),
        (type("Other", (MaskScheme,), {"name": "random"}), "'random' is taken by"),
        (MaskScheme(), "is no mask scheme; a subclass"),
        (nn.Identity, "is no mask scheme"),
        (json, "registers no scheme"),
        (OSError("gone"), "OSError: gone"),
    ],
)
def test_a_failing_scheme_warns_and_the_others_are_there(
    monkeypatch: pytest.MonkeyPatch, wrong: object, message: str
) -> None:
    fine = type("Fine", (MaskScheme,), {"name": "fine"})
    offer(monkeypatch, a=wrong, b=fine)
    with pytest.warns(PluginWarning, match=message):
        assert isinstance(create_scheme("fine"), fine)
    assert type(create_scheme("random")) is masked_denoise.RandomPartition


@pytest.mark.usefixtures("clean")
def test_a_registered_scheme_is_stored_by_name(tmp_path: Path) -> None:
    @register_scheme
    class Stripes(MaskScheme):
        name = "stripes-of-mine"

        def label(self, grid: Any, key: Any) -> torch.Tensor:
            return ((grid.sub_row + 0 * grid.sub_col) % 2).to(torch.uint8).expand(grid.shape)

    denoiser = AsymmetricMaskDenoiser(scheme=Stripes())
    denoiser.save_pretrained(tmp_path)
    assert type(AsymmetricMaskDenoiser.from_pretrained(tmp_path).scheme) is Stripes
    register_scheme(Stripes)
    with pytest.raises(SettingError, match="'stripes-of-mine' is taken"):
        register_scheme(type("Stripes2", (MaskScheme,), {"name": "stripes-of-mine"}))


# -- the guide ------------------------------------------------------------------------------------


def contract(module: ModuleType, name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the contract's tests of one backbone, as a run of pytest would make them."""
    for key, function in vars(module).items():
        if not key.startswith("test_") or "name" not in inspect.signature(function).parameters:
            continue
        cases: list[list[dict[str, Any]]] = []
        for mark in function.pytestmark:
            wanted = [one.strip() for one in mark.args[0].split(",")]
            values = [(name,)] if wanted == ["name"] else mark.args[1]
            rows = [one if len(wanted) > 1 or wanted == ["name"] else (one,) for one in values]
            cases.append([dict(zip(wanted, row, strict=True)) for row in rows])
        for case in itertools.product(*cases):
            given = {key: value for part in case for key, value in part.items()}
            yield f"{key}[{given}]", lambda f=function, given=given: f(**given)


@pytest.mark.usefixtures("clean")
def test_the_guide_goes_from_an_empty_file_to_a_green_contract() -> None:
    code = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    exec(compile(code, GUIDE.name, "exec"), {"__name__": "half_net"})
    spec = importlib.util.spec_from_file_location("contract", HERE / "test_contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checks = list(contract(module, "half-net"))
    assert len(checks) > 10
    for label, check in checks:
        print(label)  # pytest shows it with a failure
        check()
