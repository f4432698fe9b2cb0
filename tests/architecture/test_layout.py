"""Rules for the places, names and sizes of source files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    ROOT / "platform" / "hyperfleet",
    ROOT / "actors",
    ROOT / "pipelines",
    ROOT / "serve_apps",
)
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


def _python_files() -> Iterator[Path]:
    for folder in (*PACKAGES, ROOT / "tests", ROOT / "benchmarks"):
        yield from sorted(folder.rglob("*.py"))


def test_platform_is_a_source_root_and_no_package() -> None:
    assert not list((ROOT / "platform").glob("*.py")), "see docs/decisions/0001"
    assert not list((ROOT / "tests").rglob("__init__.py")), "tests run in importlib mode without packages"


def test_the_standard_library_keeps_its_platform_module() -> None:
    code = "import platform; assert platform.system(); import hyperfleet; print(platform.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert Path(done.stdout.strip()).name == "platform.py"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_package_folder_has_an_init(package: Path) -> None:
    folders = {path.parent for path in package.rglob("*.py")} | {package}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_no_file_without_a_reason_to_stop_growing() -> None:
    refused = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    assert [str(path.relative_to(ROOT)) for path in _python_files() if path.name in refused] == []


def test_files_stay_readable() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _python_files()}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


@pytest.mark.heavy
def test_functions_stay_readable() -> None:
    too_long = {}
    for path in _python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    too_long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert too_long == {}


def test_sources_are_ascii() -> None:
    assert [str(path.relative_to(ROOT)) for path in _python_files() if not path.read_text().isascii()] == []


def _imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


@pytest.mark.heavy
def test_nothing_is_imported_from_a_test_module() -> None:
    imports = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _python_files()
        for name in _imported_modules(path)
        if any(part.startswith("test_") or part == "conftest" for part in name.split("."))
    ]
    assert imports == [], "tests share what is in tests/worlds"
