"""What is shipped, and what becomes of it on a machine that is not ours."""

from __future__ import annotations

import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from atexit import register
from collections.abc import Iterator
from email.message import Message
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay import __version__
from tests.processes import ROOT, Result, environment, run, scratch

RUNTIME = {
    *("twisted", "pynacl", "cryptography", "stellar-sdk", "treq", "prometheus-client"),
    "networkx",
}
EXTRAS = {"test", "rich"}
REGISTRIES = re.compile(
    r"pypi\.org|pythonhosted|npmjs|yarnpkg|index-url|find-links|_authToken|registry\s*=\s*http"
)
MACHINE_PATHS = re.compile("/" + "work/|/tmp/" + "dev|/" + r"root/|/home/\w+/")
GENERATED = (
    *("__pycache__", "*.egg-info", "node_modules", "_trial_temp*", "dropin.cache", ".*_cache"),
    *(".git", ".venv", ".hypothesis", "build", "dist", "PKG-INFO", "*.db"),
)


def tracked() -> list[Path]:
    """Return the files that are in git or about to be, relative to the root; all, without git."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0 and listing.stdout:
        files = [Path(name) for name in listing.stdout.split("\0") if name]
    else:
        files = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
        files = [path for path in files if not is_generated(path)]
    return [path for path in files if (ROOT / path).is_file()]


def is_generated(path: Path) -> bool:
    """Tell whether a tool makes this, or a folder that it is in."""
    return any(fnmatch(part, pattern) for part in path.parts for pattern in GENERATED)


def text_of(name: str | Path) -> str:
    """Return a file of the project."""
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


@cache
def clone() -> Path:
    """Return a folder with what a clean clone has, for commands that leave traces."""
    folder = Path(tempfile.mkdtemp(prefix="stellar-overlay-test-"))
    register(shutil.rmtree, folder, ignore_errors=True)
    for path in tracked():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    return folder


@cache
def build(kind: str) -> Path:
    """Return the ``sdist`` or the ``wheel`` that this project's own settings make."""
    output = clone() / "dist"
    code = f"from setuptools.build_meta import *; print(build_{kind}({str(output)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=clone(),
        env=environment(PYTHONPATH=None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output / done.stdout.splitlines()[-1]


@cache
def wheel_metadata() -> Message:
    """Return the wheel's METADATA."""
    with zipfile.ZipFile(build("wheel")) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def requirements(extra: str = "") -> list[Requirement]:
    """Return what is required always, or with an extra only."""
    found = [Requirement(line) for line in wheel_metadata().get_all("Requires-Dist", [])]
    return [each for each in found if _applies(each, "") == (not extra) and _applies(each, extra)]


def _applies(requirement: Requirement, extra: str) -> bool:
    context = {**default_environment(), "extra": extra}
    return requirement.marker is None or requirement.marker.evaluate(context)  # type: ignore[arg-type]


class WheelTests(SynchronousTestCase):
    def test_content(self) -> None:
        """Every module of the package, its type marker and the plugin, and nothing besides."""
        with zipfile.ZipFile(build("wheel")) as wheel:
            names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        package = {str(path) for path in tracked() if path.parts[0] == "stellar_overlay"}
        self.assertEqual(names, package | {"twisted/plugins/stellar_overlay_plugin.py"})
        self.assertIn("stellar_overlay/py.typed", names)

    def test_license(self) -> None:
        """The text of the licence travels with it."""
        with zipfile.ZipFile(build("wheel")) as wheel:
            (name,) = (n for n in wheel.namelist() if n.endswith("LICENSE"))
            self.assertEqual(wheel.read(name), (ROOT / "LICENSE").read_bytes())
        self.assertIn("Apache License", text_of("LICENSE"))

    def test_metadata(self) -> None:
        """Name, version, licence, the Python it needs, and what it is in the index."""
        found = wheel_metadata()
        self.assertEqual(found["Name"], "stellar-overlay")
        self.assertEqual(found["Version"], __version__)
        self.assertEqual(found["License-Expression"] or found["License"], "Apache-2.0")
        self.assertEqual(found["License-File"], "LICENSE")
        self.assertEqual(found["Requires-Python"], ">=3.11")
        self.assertEqual(found["Description-Content-Type"], "text/x-rst")
        self.assertTrue(found["Summary"])
        self.assertGreater(len(str(found.get_payload())), 500)
        self.assertEqual(set(found.get_all("Provides-Extra", [])), EXTRAS)

    def test_requirements(self) -> None:
        """Exactly the agreed requirements, each with a lower bound and without an upper one."""
        self.assertEqual({each.name for each in requirements()}, RUNTIME)
        for each in (*requirements(), *(r for extra in EXTRAS for r in requirements(extra))):
            self.assertEqual([part.operator for part in each.specifier], [">="], str(each))

    def test_entry_points(self) -> None:
        """One console script."""
        with zipfile.ZipFile(build("wheel")) as wheel:
            (name,) = (n for n in wheel.namelist() if n.endswith("entry_points.txt"))
            parser = configparser.ConfigParser()
            parser.read_string(wheel.read(name).decode())
        self.assertEqual(parser.sections(), ["console_scripts"])
        self.assertEqual(
            dict(parser["console_scripts"]), {"stellar-overlay": "stellar_overlay.tools.cli:main"}
        )


class SourceDistributionTests(SynchronousTestCase):
    def test_content(self) -> None:
        """Whoever has the sdist can do all that whoever has the repository can."""
        with tarfile.open(build("sdist")) as sdist:
            names = {Path(*Path(m.name).parts[1:]) for m in sdist.getmembers() if m.isfile()}
        ours = {path for path in tracked() if path.name != ".gitignore"}
        self.assertEqual(sorted(map(str, ours - names)), [])
        made = {"PKG-INFO", "setup.cfg"}
        extra = {str(path) for path in names - ours if ".egg-info" not in str(path)}
        self.assertLessEqual(extra, made)


class Installed:
    """A fresh virtual environment with our distribution; all else is borrowed from this one."""

    def __init__(self, *what: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stellar-overlay-test-"))
        register(shutil.rmtree, self.folder, ignore_errors=True)
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", self.folder], check=True, timeout=60
        )
        self.python = self.folder / "bin" / "python"
        (site,) = self.folder.glob("lib/python*/site-packages")
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
        self.environment = environment(PYTHONPATH=None, PIP_DISABLE_PIP_VERSION_CHECK="1")
        pip = (sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet")
        offline = ("--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed")
        done = subprocess.run(
            [*pip, *offline, *what],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@cache
def regular() -> Installed:
    """Return an environment with the wheel."""
    return Installed(str(build("wheel")))


@cache
def editable() -> Installed:
    """Return an environment with an editable install of a clone."""
    return Installed("--editable", str(clone()))


WHERE = "import stellar_overlay as s; print(s.__file__)"
PLUGIN = (
    "from twisted.plugin import getPlugins; from twisted.application.service import IServiceMaker;"
    "print(*(p.module for p in getPlugins(IServiceMaker) if p.tapname == 'stellar-overlay'))"
)
TWISTD = "from twisted.scripts.twistd import run; run()"


class InstallTests(SynchronousTestCase):
    """Both ways to install, seen from a folder that has nothing to do with us."""

    def both(self) -> Iterator[Installed]:
        """Yield each of the environments."""
        for make in (regular, editable):
            with self.subTest(install=make.__name__):
                yield make()

    def run_in(self, installed: Installed, *arguments: str | Path) -> Result:
        """Run a command of the environment, which must succeed without complaints."""
        program, *rest = arguments
        path = installed.folder / "bin" / program
        result = run(self, path, *rest, env=installed.environment, cwd=scratch(self))
        self.assertEqual((result.status, result.stderr), (0, ""), result.said)
        return result

    def test_is_what_we_test(self) -> None:
        """What is imported is what was installed, not this checkout."""
        for installed, home in ((regular(), regular().folder), (editable(), clone())):
            where = Path(self.run_in(installed, "python", "-c", WHERE).stdout.strip())
            self.assertTrue(where.resolve().is_relative_to(home.resolve()), where)

    def test_plugin(self) -> None:
        """Twisted finds the plugin, once."""
        for installed in self.both():
            found = self.run_in(installed, "python", "-c", PLUGIN).stdout.split()
            self.assertEqual(found, ["stellar_overlay.tap"])

    def test_twist_and_twistd(self) -> None:
        """``twist stellar-overlay`` and ``twistd stellar-overlay`` are known."""
        line = f"stellar-overlay {__version__}, overlay versions 38..42\n"
        for installed in self.both():
            for command in (("-m", "twisted"), ("-c", TWISTD)):
                result = self.run_in(installed, "python", *command, "stellar-overlay", "--version")
                self.assertEqual(result.stdout, line)

    def test_console_script(self) -> None:
        """The console script is there, and ``python -m stellar_overlay`` is the same."""
        for installed in self.both():
            for arguments in (("--version",), ("--help",), ("probe", "--help")):
                script = self.run_in(installed, "stellar-overlay", *arguments)
                module = self.run_in(installed, "python", "-m", "stellar_overlay", *arguments)
                self.assertEqual(script.stdout, module.stdout)
                self.assertIn("stellar-overlay", script.stdout)


def pins() -> dict[str, str]:
    """Return the versions in constraints.txt by canonical name."""
    lines = [line for line in text_of("constraints.txt").splitlines() if line.strip()]
    found: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)", line)
        assert match, f"constraints.txt: {line!r} is not name==version"
        found[canonicalize_name(match[1])] = match[2]
    assert len(found) == len(lines), "constraints.txt names something twice"
    return found


class ConstraintsTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """All that is required, by whatever is required, is pinned exactly."""
        waiting = [(each, extra) for extra in ("", *EXTRAS) for each in requirements(extra)]
        seen: set[tuple[str, str]] = set()
        missing = set()
        while waiting:
            requirement, _ = waiting.pop()
            name = canonicalize_name(requirement.name)
            if name not in pins():
                missing.add(name)
            for extra in ("", *requirement.extras):
                if (name, extra) in seen:
                    continue
                seen.add((name, extra))
                for line in _requires(name):
                    child = Requirement(line)
                    if _applies(child, extra):
                        waiting.append((child, extra))
        self.assertEqual(missing, set())
        self.assertGreater(len(seen), 30)

    def test_bounds(self) -> None:
        """What is pinned is allowed by our own bounds, and for building, too."""
        for each in (*requirements(), *(r for extra in EXTRAS for r in requirements(extra))):
            self.assertIn(pins()[canonicalize_name(each.name)], each.specifier)
        build_system = text_of("pyproject.toml").partition("[build-system]")[2]
        for name, bound in re.findall(r'"(setuptools|wheel)([><=0-9.]*)"', build_system):
            self.assertIn(pins()[name], SpecifierSet(bound))


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []  # for another platform or Python


class RepositoryTests(SynchronousTestCase):
    def test_ci(self) -> None:
        """.ci/run is ``make test`` in the root of the project, and nothing cleverer."""
        folder = scratch(self)
        make = folder / "make"
        make.write_text('#!/bin/sh\necho "$PWD" "$CI" "$@"\n')
        make.chmod(0o755)
        env = environment(PATH=f"{folder}{os.pathsep}{os.environ['PATH']}", CI=None)
        self.assertEqual(
            run(self, ROOT / ".ci" / "run", env=env), Result(0, f"{ROOT} 1 test\n", "")
        )
        commands = [line for line in text_of(".ci/run").splitlines() if not line.startswith("#")]
        self.assertLessEqual(len(commands), 3)

    def test_make(self) -> None:
        """The two commands are there, explained, and are what they say."""
        for target, words in (
            ("help", ("make demo", "make test")),
            ("--dry-run demo", ("stellar-overlay demo", "--constraint constraints.txt")),
            ("--dry-run test", ("ruff check .", "ruff format --check .", "mypy", "-m pytest")),
        ):
            result = run(self, "make", *target.split(), cwd=clone())
            self.assertEqual(result.status, 0, result.said)
            for word in words:
                self.assertIn(word, result.stdout)

    def test_no_registry(self) -> None:
        """Nobody is told where to get packages from: that is the user's to choose."""
        settings = ("setup.cfg", "pyproject.toml", "Makefile", "constraints.txt", ".ci/run")
        locks = [path for path in tracked() if path.name in ("package-lock.json", ".npmrc")]
        self.assertTrue(locks)
        for path in (*map(Path, settings), *locks):
            for number, line in enumerate(text_of(path).splitlines(), start=1):
                self.assertIsNone(REGISTRIES.search(line), f"{path}:{number}: {line[:200]}")
        for path in locks:
            self.assertNotIn('"resolved": "http', text_of(path))

    def test_no_path_of_a_machine(self) -> None:
        """No file names a folder of the machine that it was written on."""
        found = [
            f"{path}: {match[0]}"
            for path in tracked()
            for match in [MACHINE_PATHS.search(text_of(path))]
            if match
        ]
        self.assertEqual(found, [])

    def test_nothing_generated(self) -> None:
        """Nothing that is made by tools is in git."""
        self.assertEqual([str(path) for path in tracked() if is_generated(path)], [])
        for path in tracked():
            self.assertLess((ROOT / path).stat().st_size, 2_000_000, path)
