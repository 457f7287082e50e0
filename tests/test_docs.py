"""README and docs say what is there: their code runs, their commands parse, their links resolve."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image

import masked_denoise
from masked_denoise import AsymmetricMaskDenoiser, backbones, errors
from masked_denoise.backbones import backbone_info, create_backbone, list_backbones, registry
from masked_denoise.cli import app
from masked_denoise.presets import preset

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INSTALL_AND_DENOISE = (
    "python -m venv .venv && .venv/bin/pip install . && .venv/bin/masked-denoise demo -o demo"
)
INSTALL_AND_TEST = (
    'python -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest -q'
)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every masked-denoise command in the shell blocks of a page."""
    for line in "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            if words and Path(words[0]).name == "masked-denoise":
                yield words[1:]


def rows(page: Path) -> list[list[str]]:
    """Return the cells of all table rows of a page."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


# -- the first two commands -----------------------------------------------------------------------


def test_readme_opens_with_a_sentence_and_two_commands() -> None:
    text = README.read_text()
    lines = [
        line
        for line in "\n".join(blocks(README, "bash")[:2]).splitlines()
        if line and not line.startswith("#")
    ]
    assert lines == [INSTALL_AND_DENOISE, INSTALL_AND_TEST]
    assert len(text[: text.index("```")].split()) < 60


def test_what_the_first_commands_name_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert 'masked-denoise = "masked_denoise.cli:main"' in project
    extras = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert {"test", "dev", "docs", "plot"} <= set(re.findall(r"^(\w+) = ", extras, re.MULTILINE))
    written = [path.read_text() for path in (ROOT / "src").rglob("demo.py")]
    assert any('"before_after.png"' in text for text in written)


def test_ci_runs_the_tests_as_the_readme_does() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("python -m pytest -q")
    assert INSTALL_AND_TEST.endswith("python -m pytest -q")


def test_version_is_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {masked_denoise.__version__}" in text
    assert "### Numerics" in text


# -- code -----------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages speak of: photographs, pairs, a model."""
    random = np.random.default_rng(0)
    for folder, files in {
        "photos": ("a.png", "b.jpg"), "dev_noisy": ("a_noisy.png",), "dev_clean": ("a_clean.png",),
    }.items():  # fmt: skip
        (tmp_path / folder).mkdir()
        for file in files:
            noisy = random.normal(120, 20, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / folder / file)
    AsymmetricMaskDenoiser().save_pretrained(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    return tmp_path


@pytest.fixture
def tiny_budget(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Make training take two small steps whatever it is asked for; the list collects what it was.

    That is, `fit`, `distill`, `adapt` and `learn_noise`.
    """
    asked: list[dict[str, Any]] = []

    def smaller(real: Any) -> Any:
        def train(self: AsymmetricMaskDenoiser, data: object, **given: Any) -> Any:
            asked.append(given)
            small = {key: value for key, value in given.items() if key not in ("minutes", "epochs")}
            small |= {"steps": 2, "batch_size": 1, "crop": 32, "progress": False, "device": "cpu"}
            small |= {"mixed_precision": "no", "compile": False}
            small |= {"validation": given.get("validation", False)}
            return real(self, data, **small)

        return train

    for method in ("fit", "distill", "adapt", "learn_noise"):
        real = getattr(AsymmetricMaskDenoiser, method)
        monkeypatch.setattr(AsymmetricMaskDenoiser, method, smaller(real))
    return asked


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: name(page)
)
def test_python_code_runs(
    page: Path, place: Path, tiny_budget: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of a page run one after the other, in one namespace, as a reader would."""
    torch.manual_seed(0)
    space: dict[str, Any] = {"__name__": "docs"}
    for number, code in enumerate(blocks(page, "python")):
        try:
            exec(compile(code, f"{name(page)}, block {number + 1}", "exec"), space)
        except Exception as error:
            raise AssertionError(f"in {name(page)}, Python block {number + 1}:\n{code}") from error
    if "fit(" in page.read_text():
        assert tiny_budget


def test_pages_with_code_are_found() -> None:
    assert sum(len(blocks(page, "python")) for page in PAGES) > 15


# -- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(commands(page))], ids=lambda page: name(page)
)
def test_commands_parse(page: Path) -> None:
    """Every command line is one that the command understands; nothing is run."""
    for words in commands(page):
        if words[0] not in ("--help", "--version"):
            assert words[0] in COMMANDS, words
            if "--help" not in words:
                COMMANDS[words[0]].make_context(words[0], words[1:])


def test_wrong_commands_are_noticed() -> None:
    with pytest.raises(Exception, match="--no-such-option"):
        COMMANDS["denoise"].make_context("denoise", ["a.png", "-o", "b", "--no-such-option"])


def test_command_page_has_every_option() -> None:
    text = (ROOT / "docs/command-line.md").read_text()
    for command, found in COMMANDS.items():
        section = text.split(f"\n## {command}\n")[1].split("\n## ")[0]
        first_cells = re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
        listed = set(re.findall(r"`(--[a-z-]+)`", " ".join(first_cells)))
        shown = [one for one in found.params if not getattr(one, "hidden", False)]
        there = {option for one in shown for option in one.opts if option.startswith("--")}
        assert listed <= there, command
        assert there - {"--help"} <= set(re.findall(r"`(--[a-z-]+)`", section)), command


# -- links ----------------------------------------------------------------------------------------


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as Python-Markdown makes them."""
    text = BLOCK.sub("", page.read_text())
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", head.replace("`", "")).strip().lower() for head in heads]
    return {re.sub(r"[-\s]+", "-", head) for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: name(page))
def test_links_resolve(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)}: {target}"
        if anchor:
            assert anchor in slugs(file), f"{name(page)}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    for page in ROOT.glob("docs/**/*.md"):
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in config.replace(
            "- api", ": api"
        )


def test_pictures_are_small() -> None:
    for picture in ROOT.glob("docs/images/*"):
        assert picture.stat().st_size < 400_000, picture


# -- facts ----------------------------------------------------------------------------------------


def test_table_of_recipes_is_what_the_presets_are() -> None:
    table = {row[0].strip("`"): row[1:] for row in rows(ROOT / "docs/concepts.md") if len(row) == 4}
    for place, recipe in enumerate(map(preset, ("default", "independent", "amsnet"))):
        for setting, value in recipe["denoiser"].items():
            shown = value.settings() if setting == "scheme" else value
            if setting == "scheme":
                told = ", ".join(f"{k}={v!r}" for k, v in shown.items() if v is not None)
                shown = f"{type(value).__name__}({told})"
            assert table[setting][place].strip("`") == str(shown), setting


def test_table_of_backbones_is_what_is_registered() -> None:
    table = {row[0].strip("`"): row[1:] for row in rows(ROOT / "docs/backbones.md")}
    for backbone in list_backbones():
        if backbones.backbone_info(backbone).build.__module__.startswith("masked_denoise."):
            info = backbone_info(backbone)
            size = sum(weight.numel() for weight in create_backbone(backbone).parameters())
            skip = "yes" if info.global_skip else "no"
            facts = [f"{size / 1e6:.2f} M", str(info.size_multiple), skip, info.license]
            assert table[backbone][:4] == facts


def literals(file: Path) -> Iterator[str]:
    """Yield every string of a module, three dots where an f-string has a value."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                getattr(part, "value", "...") if isinstance(part, ast.Constant) else "..."
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_on_the_trouble_page_exist() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    messages = re.findall(r"^\| `(\w+Error): (.*?)` \|", text, re.MULTILINE)
    said = [one for file in (ROOT / "src").rglob("*.py") for one in literals(file)]
    assert len(messages) > 10
    for kind, message in messages:
        assert issubclass(getattr(errors, kind), errors.MaskedDenoiseError)
        pattern = ".*".join(map(re.escape, message.split("...")))
        assert any(re.search(pattern, one, re.DOTALL) for one in said), message


def test_design_page_lists_every_module() -> None:
    text = (ROOT / "docs/design.md").read_text()
    told = set(re.findall(r"`([\w/]+(?:\.py|/))`", text))
    source = ROOT / "src" / "masked_denoise"
    modules = {path.name for path in source.glob("*.py")} - {"__main__.py"}
    folders = {path.parent.name for path in source.glob("*/__init__.py")}
    assert modules <= told
    assert folders <= {one.split("/")[0] for one in told}
    gone = [one for one in told if not (source / one).exists() and not any(source.rglob(one))]
    assert gone in ([], ["examples/"])


def imported(file: Path, source: Path) -> Iterator[str]:
    """Yield the parts of the package that a module imports, but for its type annotations."""
    folder = file.relative_to(source).parts[:-1]
    tree = ast.parse(file.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in for_types:
            module, own = node.module or "", folder[: len(folder) + 1 - node.level]
            if not node.level and module.split(".")[0] == "masked_denoise":
                module, own = module.partition(".")[2], ()
            elif not node.level:
                continue
            names = [module] if module else [alias.name for alias in node.names]
            yield from (".".join((*own, name)).split(".")[0] for name in names)


def test_imports_go_down_the_list_of_files() -> None:
    source = ROOT / "src" / "masked_denoise"
    lines = re.findall(
        r"^\| (`[\w/.`, ]+) \| ", (ROOT / "docs/design.md").read_text(), re.MULTILINE
    )
    rank = {
        name.removesuffix(".py").split("/")[0]: place
        for place, line in enumerate(lines)
        for name in re.findall(r"`([\w/.]+)`", line)
    }
    exceptions = {"__main__.py", "denoiser.py"}
    modules = [file for file in source.rglob("*.py") if file.name not in exceptions]
    upward = [
        f"{file.relative_to(source)} imports {target}"
        for file in modules
        for target in imported(file, source)
        if target != "__version__"
        and rank[target] < rank[file.relative_to(source).parts[0].removesuffix(".py")]
    ]
    assert len(modules) > 30
    assert upward == []


def test_the_page_of_examples_includes_every_script() -> None:
    page = (ROOT / "docs" / "examples.md").read_text()
    included = re.findall(r"^--8<--\n(examples/\S+\.py)\n--8<--$", page, re.MULTILINE)
    scripts = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("examples/0*.py"))
    assert included == scripts
