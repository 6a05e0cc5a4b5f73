"""What the application punishes and the host cannot see: rules over the module's syntax; what importing it costs."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

MODULE = Path(__file__).resolve().parents[2] / "IncrementalSeg"
ALLOWED = {"slicer", "qt", "ctk", "vtk", "numpy", "SimpleITK", "IncrementalSegLib", "IncrementalSegModule"}
SHELL = {"IncrementalSeg.py", "Paths.py", "__init__.py"}  # imported before the library is found


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(MODULE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


class RulesTest(unittest.TestCase):
    def test_nothing_is_imported_that_slicer_does_not_bring(self) -> None:
        for path, tree in sources():
            for node in tree.body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
                for top in (name.partition(".")[0] for name in names):
                    self.assertIn(top, ALLOWED | set(sys.stdlib_module_names), f"{path.name} imports {top}")
                    if path.name in SHELL:
                        self.assertNotEqual(top, "IncrementalSegLib", f"{path.name}: before the library is found")

    def test_no_code_runs_when_a_file_is_imported(self) -> None:
        told = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.Assign, ast.AnnAssign)
        for path, tree in sources():
            for node in tree.body:
                text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                self.assertTrue(text or isinstance(node, told), f"{path.name}:{node.lineno}: {ast.unparse(node)[:60]}")
                if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                    self.assertNotIn("pip_install", ast.unparse(node), path.name)

    def test_pythonqt_takes_no_keywords_in_constructors_and_knows_exact_classes_only(self) -> None:
        for path, tree in sources():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    place = f"{path.name}:{node.lineno}"
                    name = called(node)
                    if re.match(r"(qt|ctk)\.[A-Z]\w*$", name):
                        self.assertFalse(node.keywords, f"{place}: keyword in {name}()")
                    if name == "isinstance":
                        self.assertNotRegex(ast.unparse(node.args[1]), r"\b(qt|ctk)\.", place)
                    self.assertFalse(name.endswith(".emit"), f"{place}: emits a widget's own signal")
                    if name.startswith("super()"):
                        self.assertEqual(name, "super().__init__", place)
                    self.assertNotIn(name, ("print", "qt.QRegExp", "qt.QTextCodec", "qt.QSignalBlocker"), place)

    def test_dialogs_come_from_slicer_util_or_can_be_answered_by_a_test(self) -> None:
        for path, tree in sources():
            if path.name != "Gui.py":
                for node in ast.walk(tree):
                    if isinstance(node, ast.Attribute):
                        text = ast.unparse(node)
                        self.assertNotRegex(text, r"^qt\.(QMessageBox|QFileDialog|QInputDialog)", path.name)

    def test_what_people_read_goes_through_translation(self) -> None:
        shown = re.compile(r"\.(text|setText|setToolTip|windowTitle|placeholderText)$")
        for path, tree in sources():
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign) and any(shown.search(ast.unparse(target)) for target in node.targets):
                    fixed = isinstance(node.value, ast.Constant) and str(node.value.value).strip()
                    self.assertFalse(fixed, f"{path.name}:{node.lineno}: not translated")

    def test_files_are_short_and_the_module_file_is_thin(self) -> None:
        for path, _tree in sources():
            lines = len(path.read_text(encoding="utf-8").splitlines())
            self.assertLessEqual(lines, 150 if path.parent == MODULE else 300, path.name)

    def test_every_widget_that_the_code_names_is_in_its_ui_file_and_the_other_way_round(self) -> None:
        panels = {"Model": "ModelPanel", "Organ": "OrganPanel", "Cases": "CasesPanel", "Update": "UpdatePanel"}
        panels |= {"Review": "ReviewPanel", "Predict": "PredictPanel"}
        for ui, panel in panels.items():
            tree = ET.parse(MODULE / "Resources" / "UI" / f"{ui}.ui")
            named = {widget.get("name"): widget.get("class") for widget in tree.iter("widget")}
            text = (MODULE / "IncrementalSegModule" / f"{panel}.py").read_text(encoding="utf-8")
            used = set(re.findall(r"\bui\.([a-z]\w+)", text)) - {"widget"}
            self.assertLessEqual(used, set(named), f"{panel} uses what {ui}.ui does not have")
            buttons = {name for name, kind in named.items() if kind == "QPushButton"}
            self.assertLessEqual(buttons, used, f"a button of {ui}.ui does nothing")

    @unittest.skipUnless(importlib.util.find_spec("PySide6"), "needs the host, which is not the application")
    def test_opening_the_module_loads_nothing_that_slicer_does_not_bring(self) -> None:
        code = (
            f"import sys; sys.path[:0] = [{str(MODULE.parent / 'Testing')!r}]\n"
            "import host, pathlib; app = host.start()\n"
            f"app.loadScriptedModule(pathlib.Path({str(MODULE / 'IncrementalSeg.py')!r}))\n"
            "import slicer; slicer.util.getModuleWidget('IncrementalSeg')\n"
            "print(sorted({'torch', 'monai', 'matplotlib', 'scipy', 'nibabel', 'skimage'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        self.assertEqual(done.stdout.strip(), "[]", done.stderr)


if __name__ == "__main__":
    unittest.main()
