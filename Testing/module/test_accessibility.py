"""The panel by keyboard, for a screen reader, on a dark ground, and for those who do not tell colours apart."""

from __future__ import annotations

import unittest
from itertools import combinations, pairwise
from types import SimpleNamespace

import qt
import slicer
from panel_testing import PanelTest

INTERACTIVE = {
    *("QPushButton", "QToolButton", "QCheckBox", "QComboBox", "QLineEdit", "QSpinBox", "QDoubleSpinBox"),
    *("QListWidget", "QTableWidget", "QPlainTextEdit", "qMRMLNodeComboBox"),
}
WITH_TEXT = {"QPushButton", "QToolButton", "QCheckBox"}
TEXT, LINE = 4.5, 3.0  # the least contrasts of WCAG 2, AA
SECTIONS = ("model", "organ", "cases", "update", "review", "predict")


def below(widget) -> list:
    """Widgets of the same window, each before what it holds."""
    children = [child for child in widget.children() if child.isWidgetType() and not child.isWindow()]
    return [found for child in children for found in (child, *below(child))]


def luminance(color) -> float:
    """Relative luminance of WCAG 2."""
    parts = [part / 255 for part in (color.red(), color.green(), color.blue())]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def grounds() -> list:
    """Stand-ins for widgets: a light palette and a dark one, as Slicer's two styles have them, rows alternating."""
    made = []
    for base, other, text in (("#ffffff", "#f0f0f0", "#000000"), ("#2d2d2d", "#424242", "#ffffff")):
        palette = qt.QPalette()
        palette.setColor(qt.QPalette.Base, qt.QColor(base))
        palette.setColor(qt.QPalette.AlternateBase, qt.QColor(other))
        palette.setColor(qt.QPalette.Text, qt.QColor(text))
        made.append(SimpleNamespace(palette=palette))
    return made


class WidgetsTest(PanelTest):
    def widgets(self) -> list:
        """Every widget of our .ui files."""
        steps = [self.panel.ui, *(step.ui for step in self.panel.steps)]
        named = [(name, widget) for ui in steps for name, widget in vars(ui).items()]
        return [widget for name, widget in named if name != "widget" and not name.startswith("qt_")]

    def interactive(self) -> list:
        return [widget for widget in self.widgets() if widget.className() in INTERACTIVE]

    def test_every_widget_that_people_act_on_explains_itself(self) -> None:
        self.assertGreater(len(self.interactive()), 40)
        for widget in self.interactive():
            self.assertTrue(widget.toolTip, widget.objectName)

    def test_a_screen_reader_has_a_name_for_every_widget(self) -> None:
        labels = {label.buddy().objectName: label.text for label in self.widgets() if _buddy(label)}
        for widget in self.interactive():
            text = widget.text if widget.className() in WITH_TEXT else labels.get(widget.objectName)
            self.assertTrue(text or widget.accessibleName, widget.objectName)
        for name in ("progressBar", "chartLabel"):
            self.assertTrue(getattr(self.panel.update.ui, name).accessibleName, name)

    def test_a_label_leads_to_the_widget_at_its_right(self) -> None:
        pairs = [(label, label.buddy()) for label in self.widgets() if _buddy(label)]
        self.assertGreater(len(pairs), 10)
        for label, widget in pairs:
            self.assertIs(label.parent(), widget.parent(), label.objectName)
            self.assertTrue(label.text.endswith(":"), label.text)


def _buddy(widget) -> object:
    return widget.className() == "QLabel" and widget.buddy()


class KeyboardTest(PanelTest):
    """The Tab key, in a panel that shows everything."""

    def setUp(self) -> None:
        super().setUp()
        self.prepare(["anna", "bert"])
        self.top = self.panel.widget
        for widget in below(self.top):
            if widget.className() == "ctkCollapsibleButton":
                widget.collapsed = False
            widget.enabled = True
        everything = [widget for step in self.panel.steps for widget in below(step.ui.widget)]
        for widget in everything:
            if widget.parent().className() in ("QWidget", "qMRMLWidget", "ctkCollapsibleButton"):
                widget.visible = True
        self.addCleanup(self.panel.refresh)
        window = self.top.window()
        hidden = not window.visible
        window.resize(480, 6000)
        window.show()
        if hidden:
            self.addCleanup(window.hide)
        for _pass in range(5):
            slicer.app.processEvents()

    def chain(self) -> list:
        """What the Tab key goes through, from the top."""
        found, widget = [], self.top
        while True:
            widget = widget.nextInFocusChain()
            if widget is self.top or widget in found:
                return found
            reachable = widget.isVisible() and int(widget.focusPolicy) & int(qt.Qt.TabFocus)
            if reachable and self.top.isAncestorOf(widget):
                found.append(widget)

    def box(self, widget) -> tuple[int, int, int, int]:
        corner = widget.mapTo(self.top, qt.QPoint(0, 0))
        return corner.x(), corner.y(), corner.x() + widget.width, corner.y() + widget.height

    def test_the_tab_key_goes_from_left_to_right_and_from_top_to_bottom(self) -> None:
        chain = self.chain()
        self.assertGreater(len(chain), 50)
        for before, after in pairwise(chain):
            left, top, _right, bottom = self.box(before)
            x, y, _x, end = self.box(after)
            inside = top <= y and end <= bottom and before.isAncestorOf(after)
            beside = y < bottom and end > top and x >= left
            where = f"{_name(before)} {self.box(before)} → {_name(after)} {self.box(after)}"
            self.assertTrue(inside or beside or y >= bottom, where)

    def test_the_tab_key_reaches_every_widget_that_people_act_on(self) -> None:
        reached = {_name(widget) for widget in self.chain()}
        for step in self.panel.steps:
            for name, widget in vars(step.ui).items():
                if widget.className() in INTERACTIVE - {"qMRMLNodeComboBox"} and not name.startswith("qt_"):
                    self.assertIn(name, reached)


def _name(widget) -> str:
    while not widget.objectName:
        widget = widget.parent()
    return widget.objectName


class ColourTest(PanelTest):
    def test_what_needs_attention_is_legible_on_light_and_dark_grounds(self) -> None:
        from IncrementalSegModule.Gui import alarm

        for ground in grounds():
            for role in (qt.QPalette.Base, qt.QPalette.AlternateBase):
                self.assertGreaterEqual(contrast(alarm(ground), ground.palette.color(role)), TEXT)

    def test_red_is_never_alone_in_saying_that_something_is_wrong(self) -> None:
        from IncrementalSegModule.Review import rows

        organ = {"role": "old", "code": "1", "volume_ml": 90.0, "dsc_before": None, "dsc_after": None}
        report = {"organs": [{**organ, "name": "Liver", "agreement": 0.5}], "cases": {"heldout": 1}}
        (row,) = rows(report)
        self.assertTrue(row.bad)
        self.assertIn("lost", row.result)
        self.assertIn("lost", row.sentence)

    def test_the_curves_of_the_chart_differ_in_dashes_and_marks_and_stand_out_from_the_ground(self) -> None:
        from IncrementalSegModule.LossChart import styles

        looks = list(styles(["seg", "kd", "total", "proto"]).values())
        for one, other in combinations(looks, 2):
            self.assertNotEqual(one.dashes, other.dashes)
            self.assertNotEqual(one.mark, other.mark)
        self.assertEqual(list(styles(["seg", "total"])), ["seg"], "the same curve twice")
        light, dark = (ground.palette.color(qt.QPalette.Base) for ground in grounds())
        for look in looks:
            self.assertTrue(hasattr(qt.Qt, look.dashes))
            self.assertGreaterEqual(contrast(qt.QColor(look.onLight), light), LINE)
            self.assertGreaterEqual(contrast(qt.QColor(look.onDark), dark), LINE)

    def test_the_chart_is_drawn_in_the_grounds_colours_and_said_in_words(self) -> None:
        from IncrementalSegModule.LossChart import lossChart, lossText

        losses = [(step, {"seg": 2.0 / step, "kd": 0.5, "total": 2.0 / step + 0.5}) for step in range(1, 200)]
        for ground in grounds():
            picture = lossChart(losses, ground).toImage()
            corner = qt.QColor(picture.pixel(1, picture.height() - 1))
            self.assertEqual(corner.name(), ground.palette.color(qt.QPalette.Base).name())
            colours = {picture.pixel(x, y) for x in range(picture.width()) for y in range(picture.height())}
            self.assertGreater(len(colours), 20, "nothing was drawn")
        self.assertEqual(
            lossText(losses), "Error at step 199, lower is better: old organs 0.50, annotations 0.01, both 0.51."
        )

    def test_before_and_after_are_told_apart_by_those_who_see_no_red_or_no_green(self) -> None:
        from IncrementalSegModule import Review

        before, after = (qt.QColor(*color) for color in (Review.BEFORE, Review.AFTER))
        self.assertGreater(abs(before.blue() - after.blue()), 100)


class FigureTest(PanelTest):
    def test_a_figure_never_looks_better_than_the_verdict_on_it(self) -> None:
        from IncrementalSegModule.Review import rows

        from IncrementalSegLib.report import score

        self.assertEqual(
            [score(value) for value in (0.947, 0.9496, 0.95, 1.0, None)], ["0.947", "0.949", "0.950", "1.000", "—"]
        )
        organ = {"role": "old", "code": "1", "volume_ml": 90.0, "dsc_before": None, "dsc_after": None, "name": "Liver"}
        for agreement, result in ((0.9496, "lost"), (0.95, "kept")):
            (row,) = rows({"organs": [{**organ, "agreement": agreement}], "cases": {"heldout": 1}})
            self.assertEqual((row.result, float(row.agreement) >= 0.95), (result, result == "kept"))
            self.assertIn(row.agreement, row.sentence)


if __name__ == "__main__":
    unittest.main()
