"""The generator of the structural check: what it writes, and how it reads the XDR language."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from scripts.xdr_check import idl, rules, source
from scripts.xdr_check.module import generate
from stellar_overlay.wire import xdr_check

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "generate_xdr_check.py"


class ModuleTests(SynchronousTestCase):
    """What the generated module is made of."""

    def test_imports(self) -> None:
        """The module needs struct, typing and XdrError, nothing that knows clocks or networks."""
        tree = ast.parse(inspect.getsource(xdr_check))
        imported = {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
        }
        self.assertEqual(
            imported,
            {"__future__", "struct", "typing", "collections.abc", "stellar_overlay.error"},
        )

    def test_nothing_recurses(self) -> None:
        """No function of the module calls itself, be it through others."""
        tree = ast.parse(inspect.getsource(xdr_check))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        names = {
            name: {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in functions}
            for name, node in functions.items()
        }
        tables = {
            node.target.id: {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        for name, node in functions.items():
            if name not in ("check", "_wrong_end"):
                for n in ast.walk(node):
                    if isinstance(n, ast.Name):
                        names[name] |= tables.get(n.id, set()) & functions.keys()

        def visit(name: str, path: tuple[str, ...]) -> None:
            self.assertNotIn(name, path)
            for inner in names[name]:
                visit(inner, (*path, name))

        for name in functions:
            visit(name, ())


class GeneratorTests(SynchronousTestCase):
    """The script that writes the module."""

    def run_script(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it with options of Python and its own."""
        python = [option for option in options if option.startswith("-O")]
        own = [option for option in options if not option.startswith("-O")]
        return subprocess.run(
            [sys.executable, *python, str(SCRIPT), *own],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def test_same_bytes_again(self) -> None:
        """Generating anew gives the committed bytes."""
        if f"from stellar-sdk {source.VERSION};" not in (xdr_check.__doc__ or ""):
            raise SkipTest(f"the module was generated from another sdk than {source.VERSION}")
        result = self.run_script("--check")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))

    def test_without_docstrings(self) -> None:
        """It says in one line that it cannot work without docstrings."""
        result = self.run_script("-OO", "--check")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(
            result.stderr,
            "cannot generate xdr_check.py:"
            " stellar_sdk.xdr has no docstrings with XDR (python -OO strips them)\n",
        )

    def test_missing_type(self) -> None:
        """It says which type it cannot find."""
        error = self.assertRaises(idl.IdlError, source.definition, "Nonsense")
        self.assertEqual(str(error), f"stellar-sdk {source.VERSION} defines no XDR type Nonsense")

    def test_rule_for_nothing(self) -> None:
        """A rule for a path that does not exist, or does not any more, is an error."""
        self.patch(rules, "EXTRA_WORK", {**rules.EXTRA_WORK, "SCVal.nonsense": 1})
        error = self.assertRaises(idl.IdlError, generate)
        self.assertEqual(str(error), "the rules name what does not exist: SCVal.nonsense")

    def test_element_without_price(self) -> None:
        """Elements that are walked one by one, and for which no price is set, are an error."""
        prices = {name: price for name, price in rules.WORK.items() if name != "LedgerKey"}
        self.patch(rules, "WORK", prices)
        error = self.assertRaises(idl.IdlError, generate)
        self.assertEqual(str(error), "rules.WORK sets no price for LedgerKey")


class IdlTests(SynchronousTestCase):
    """The reader of the XDR language."""

    def parse(self, text: str) -> idl.Type:
        """Read a definition with one constant at hand."""
        return idl.Parser(idl.tokenize(text), {"LIMIT": 5, "RED": 0x10}).definition()

    def test_everything(self) -> None:
        """A definition with all there is in the language is read as it is meant."""
        text = """
        struct Everything // a comment; with a semicolon
        {
            unsigned hyper a;
            opaque b[32]; /* another
                             comment */
            opaque c<LIMIT>;
            string d<0x20>;
            Other* e;
            Other f<>;
            Other g[3];
            bool h;
            union switch (Color type)
            {
            case RED:
            case 17:
                void;
            case 18:
                struct { int i; } inner;
            } j;
        };
        """
        other = idl.Name("Other")
        inner = idl.Struct((idl.Field("i", idl.Plain(4)),))
        union = idl.Union(
            "type",
            (
                idl.Arm((16, 17), idl.Field("", idl.Void())),
                idl.Arm((18,), idl.Field("inner", inner)),
            ),
        )
        types: list[idl.Type] = [
            idl.Plain(8),
            idl.Plain(32),
            idl.Blob(5),
            idl.Blob(32),
            idl.Optional(other),
            idl.List(other, None),
            idl.Repeat(other, 3),
            idl.Enum((("FALSE", 0), ("TRUE", 1))),
            union,
        ]
        fields = (idl.Field(n, t) for n, t in zip("abcdefghj", types, strict=True))
        self.assertEqual(self.parse(text), idl.Struct(tuple(fields)))

    def test_definitions(self) -> None:
        """Typedefs and enums are read, negative and hexadecimal numbers included."""
        self.assertEqual(self.parse("typedef opaque Hash[32];"), idl.Plain(32))
        self.assertEqual(self.parse("typedef Other Others<LIMIT>;"), idl.List(idl.Name("Other"), 5))
        enum = idl.Enum((("A", 2**32 - 1), ("B", 256), ("C", 16)))
        self.assertEqual(self.parse("enum E { A = -1, B = 0x100, C = RED };"), enum)

    def test_what_cannot_be_read(self) -> None:
        """What is not XDR, or not supported, is named."""
        for text, message in {
            "struct S { int a }": "expected ';', not '}'",
            "struct S { int a; }; int": "'int' after the end of a definition",
            "typedef opaque O<MANY>;": "'MANY' is no number that we know",
            "typedef opaque O[3];": "O: a fixed opaque with padding is not supported",
            "union U switch (int v) { default: void; };": "expected 'case', not 'default'",
            "struct S { int $; };": "cannot read ' $; };'",
        }.items():
            error = self.assertRaises(idl.IdlError, self.parse, text)
            self.assertEqual(str(error), message)
