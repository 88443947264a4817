"""Who may import whom: the rules of the architecture, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGE = "stellar_overlay"

LEAVES = ("error", "address", "identity", "bounded", "config", "metrics")
BELOW_NODE = (*LEAVES, "interfaces", "wire", "session", "gossip", "herder", "store")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "": ("error", "address"),  # the package itself: whatever is heavy is found on first use
    "error": (),
    "address": ("error",),
    "identity": ("", "error", "address"),
    "config": ("error", "address", "identity"),
    "metrics": ("error",),
    "bounded": (),
    "wire": LEAVES,
    "interfaces": (*LEAVES, "wire"),
    "session": (*LEAVES, "wire", "interfaces"),
    "gossip": (*LEAVES, "wire", "interfaces"),
    "herder": (*LEAVES, "wire", "interfaces"),
    "store": LEAVES,
    "node": BELOW_NODE,
    "admin": ("", "log_levels", *BELOW_NODE, "node"),
    "testing": (*BELOW_NODE, "node", "admin"),
    "option_values": ("", *LEAVES),
    "log_levels": ("error",),
    "node_service": ("option_values", *BELOW_NODE, "node", "admin"),
    "tap": ("", "option_values", "log_levels", "node_service", *BELOW_NODE, "node", "admin"),
    "tools": ("", "option_values", "log_levels", *BELOW_NODE, "node", "admin", "testing", "tap"),
    "__main__": ("tools",),
}
"""What each room may import, besides itself. ``config_*.py`` are one room with ``config``."""

PURE = ("wire", "session", "gossip", "herder")
NOT_PURE = ("twisted", "time", "random", "socket", "os", "sqlite3")
"""Time, randomness and the world come in as arguments."""

MAY_USE_TWISTED = (
    "node",
    "store",
    "admin",
    "testing",
    "option_values",
    "log_levels",
    "node_service",
    "tap",
    "tools",
)
MAY_USE_CRYPTOGRAPHY = ("wire", "identity", "tools")
CRYPTOGRAPHY = ("stellar_sdk", "nacl", "cryptography")
MAY_USE_THE_REACTOR = ("node", "node_service", "tap", "tools")
"""And only when called: as a default that is looked up then."""


@dataclass(frozen=True)
class Import:
    """One import: of a module, or of a name in one.

    :ivar is_lazy: whether it happens within a function.
    :ivar is_for_types: whether it happens for the type checker only.
    """

    by: str
    module: str
    name: str | None
    is_lazy: bool
    is_for_types: bool

    def __str__(self) -> str:
        what = self.module if self.name is None else f"{self.module}.{self.name}"
        return f"{self.by} imports {what}"

    @property
    def top(self) -> str:
        """The package that it comes from."""
        return self.module.partition(".")[0]


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the package, parsed, by its dotted name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def room(module: str) -> str:
    """Return the room of a module of ours."""
    first = module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]
    return "config" if first.startswith("config") else first


def imports_of(
    by: str, node: ast.AST, *, is_lazy: bool = False, is_for_types: bool = False
) -> Iterator[Import]:
    """Yield the imports in a syntax tree."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(by, alias.name, None, is_lazy, is_for_types)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{by}: imports are absolute here"
            for alias in child.names:
                module = f"{child.module}.{alias.name}"
                if module in modules():  # from package import module
                    yield Import(by, module, None, is_lazy, is_for_types)
                else:
                    yield Import(by, str(child.module), alias.name, is_lazy, is_for_types)
        else:
            yield from imports_of(
                by,
                child,
                is_lazy=is_lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef),
                is_for_types=is_for_types
                or (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"),
            )


@cache
def all_imports() -> tuple[Import, ...]:
    """Return every import of the package."""
    return tuple(found for by, tree in modules().items() for found in imports_of(by, tree))


class LayerTests(SynchronousTestCase):
    """ARCHITECTURE.md section 2, rules 1 to 6."""

    def assert_none(self, imports: Iterator[Import]) -> None:
        self.assertEqual([str(found) for found in imports], [])

    def test_there_is_something_to_look_at(self) -> None:
        """The walk finds the modules, and every one has a room in the table."""
        self.assertGreater(len(all_imports()), 100)
        self.assertEqual({room(name) for name in modules()} - MAY_IMPORT.keys(), set())

    def test_rooms(self) -> None:
        """No room imports one that it should not know; session and gossip meet in node (2, 3)."""
        self.assert_none(
            found
            for found in all_imports()
            if found.top == PACKAGE
            and room(found.by) != room(found.module)
            and room(found.module) not in MAY_IMPORT[room(found.by)]
            and not (room(found.by) == "" and found.is_for_types)
        )

    def test_pure_rooms(self) -> None:
        """1: no clock, no chance, no socket, no file."""
        self.assert_none(
            found
            for found in all_imports()
            if room(found.by) in PURE and found.top in NOT_PURE and not found.is_for_types
        )

    def test_twisted(self) -> None:
        """Only the shell knows it."""
        self.assert_none(
            found
            for found in all_imports()
            if found.top == "twisted" and room(found.by) not in MAY_USE_TWISTED
        )

    def test_cryptography(self) -> None:
        """4: three rooms may use it; stellar_sdk, which takes a second, only when called."""
        self.assert_none(
            found
            for found in all_imports()
            if found.top in CRYPTOGRAPHY
            and not found.is_for_types
            and (
                room(found.by) not in MAY_USE_CRYPTOGRAPHY
                or (found.top == "stellar_sdk" and not found.is_lazy)
            )
        )

    def test_the_reactor(self) -> None:
        """5: nobody imports the global one but as a default, when called."""
        self.assert_none(
            found
            for found in all_imports()
            if (found.module, found.name) == ("twisted.internet", "reactor")
            or found.module == "twisted.internet.reactor"
            if not (found.is_lazy and room(found.by) in MAY_USE_THE_REACTOR)
        )

    def test_cycles(self) -> None:
        """6: there are none, not even among imports within functions."""
        graph: dict[str, set[str]] = {name: set() for name in modules()}
        for found in all_imports():
            if found.module in graph and not found.is_for_types:
                graph[found.by].add(found.module)
        try:
            list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            self.fail(f"a cycle: {error.args[1]}")

    def test_stars(self) -> None:
        """6: no name comes from nowhere."""
        self.assert_none(found for found in all_imports() if found.name == "*")

    def test_package_inits(self) -> None:
        """6: they hold a docstring; only the package and its test kit have public names."""
        for name, tree in modules().items():
            is_package = (ROOT / Path(*name.split(".")) / "__init__.py").exists()
            if is_package and name not in (PACKAGE, f"{PACKAGE}.testing"):
                self.assertEqual(len(tree.body), 1, name)
                self.assertIsNotNone(ast.get_docstring(tree), name)

    def test_every_module_says_what_it_is(self) -> None:
        """A docstring, whose first line is a sentence."""
        for name, tree in modules().items():
            first = (ast.get_docstring(tree) or "").partition("\n")[0]
            self.assertRegex(first, r"\.$", name)

    def test_importing(self) -> None:
        """Every module can be imported without a reactor, and without stellar_sdk."""
        names = [name for name in modules() if name != f"{PACKAGE}.__main__"]
        program = (
            "import importlib, sys\n"
            f"for name in {names!r}: importlib.import_module(name)\n"
            "print([name for name in ('twisted.internet.reactor', 'stellar_sdk')"
            " if name in sys.modules])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("[]\n", "", 0))
