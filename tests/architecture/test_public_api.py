"""What `import hyperfleet` offers, and that it costs nothing until it is used."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hyperfleet

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(ROOT / 'platform')!r}]\n{code}"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_imports_nothing_else() -> None:
    code = """
before = set(sys.modules)
import hyperfleet
assert set(hyperfleet.__all__) < set(dir(hyperfleet))
print(*{name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
"""
    assert run_python(code).split() == ["hyperfleet"]


def test_every_public_name_resolves_to_what_is_called_so() -> None:
    code = """
import hyperfleet, json
from hyperfleet import *
values = {name: getattr(hyperfleet, name) for name in hyperfleet.__all__}
assert all(globals()[name] is value for name, value in values.items())
print(json.dumps({name: getattr(value, "__name__", None) for name, value in values.items()}))
"""
    names = json.loads(run_python(code))
    constants = {name for name in names if name.isupper()}
    assert constants == {"SCENARIOS", "POLICIES", "PHONE", "OLD_PHONE", "CAMERA", "PATIENT"}
    assert {name: names[name] for name in names if name not in constants} == {
        name: name for name in names if name not in constants
    }


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(hyperfleet.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"{module}.{name}" for name, module in hyperfleet._MODULE_OF.items()}
    assert list(hyperfleet.__all__) == sorted(seen)


def test_other_names_are_refused_and_submodules_found() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Scenaro'; it offers .*\bScenario\b"):
        hyperfleet.Scenaro  # noqa: B018
    assert run_python("from hyperfleet import errors\nprint(errors.__name__)").split() == [
        "hyperfleet.errors"
    ]
