"""Parts talk by Ray calls: nobody opens a socket, and nobody unpickles what came from elsewhere.

import-linter and ruff refuse the imports that they can see; this looks at the calls, and that their lists are whole.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("protocol", "judge", "actors", "learners", "cluster")
CALLS = {"create_server", "create_connection", "create_unix_server", "create_unix_connection", "start_server"} | {
    "open_connection",
    "loads of pickle",
    "load of pickle",
    "Unpickler",
}
MODULES = {"socket", "socketserver", "zmq", "grpc", "aiohttp"}
DOTTED = {"asyncio.open_connection", "asyncio.start_server", "asyncio.streams", "multiprocessing.connection"} | {
    "pickle.loads"
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(call: ast.Call) -> str:
    """What is called: `create_server`; or `loads of pickle`, where the name alone says nothing."""
    function = call.func
    if isinstance(function, ast.Attribute):
        owner = function.value.id if isinstance(function.value, ast.Name) else ""
        pickling = owner in ("pickle", "cloudpickle", "dill")
        return f"{function.attr} of pickle" if pickling and function.attr != "Unpickler" else function.attr
    return function.id if isinstance(function, ast.Name) else ""


def side_channels(source: str) -> Iterator[str]:
    """Calls and imports that open one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and name_of(node) in CALLS:
            yield f"line {node.lineno}: {name_of(node)}"
        elif isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
            yield from (f"line {node.lineno}: {name}" for name in imported if is_banned(name))
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imported = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            yield from (f"line {node.lineno}: {name}" for name in imported if is_banned(name))


def is_banned(module: str) -> bool:
    return module.split(".")[0] in MODULES or module in DOTTED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nobody_opens_a_side_channel(path: Path) -> None:
    assert list(side_channels(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "from socketserver import TCPServer",
        "import zmq.asyncio",
        "from multiprocessing import connection",
        "from multiprocessing.connection import Client",
        "from asyncio import start_server",
        "from pickle import loads",
        "loop.create_server(f)",
        "asyncio.open_connection('x', 1)",
        "pickle.loads(b'')",
        "pickle.Unpickler(f)",
    ],
)
def test_a_side_channel_would_be_seen(source: str) -> None:
    assert list(side_channels(source))


@pytest.mark.parametrize("source", ["json.loads(x)", "import multiprocessing", "pickle.dumps(x)", "import asyncio"])
def test_what_is_none_is_let_be(source: str) -> None:
    assert not list(side_channels(source))


def test_the_linters_refuse_the_same() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = [c for c in tools["importlinter"]["contracts"] if c["name"].startswith("no side channel")]
    assert set(contract["forbidden_modules"]) == MODULES and set(contract["source_modules"]) == set(PACKAGES)
    assert tools["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"].keys() >= DOTTED
    assert "TID251" in tools["ruff"]["lint"]["select"]
