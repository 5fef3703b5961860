from __future__ import annotations

import builtins
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest

import invert


def test_every_public_name_is_found():
    for name in invert.__all__:
        assert getattr(invert, name) is not None


def test_a_public_name_is_always_the_same_object():
    for name, home in invert._HOME.items():
        first = getattr(invert, name)
        assert first is getattr(importlib.import_module(home), name)
        assert first is getattr(invert, name)


def test_no_public_name_is_a_modules_too():
    modules = {module.name for module in pkgutil.iter_modules(invert.__path__)}
    assert not modules & set(invert.__all__), "importing the module would take the name's place"


def test_the_errors_that_public_docstrings_name_are_public():
    for name in invert.__all__:
        found = getattr(invert, name)
        for member in (found, *(vars(found).values() if inspect.isclass(found) else ())):
            raises = (inspect.getdoc(member) or "").partition("Raises:\n")[2].split("\n\n")[0]
            errors = set(re.findall(r"^    (\w+):", raises, re.MULTILINE)) - set(dir(builtins))
            assert errors <= set(invert.__all__), f"{name}: {errors - set(invert.__all__)}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'inverrt'"):
        invert.inverrt  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, invert; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_foreign_package_of_the_same_name_is_noticed(tmp_path, repository):
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders/__init__.py").touch()
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(repository)!r}]; import invert"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "needs its own package 'encoders'" in result.stderr
