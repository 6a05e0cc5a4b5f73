"""A language that nobody speaks: what is not in it on the screen was never translated."""

from __future__ import annotations

import re

import qt
from test_accessibility import below

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
STRANGE = "åƀçđéƒğĥîĵķļɱñöþɋŕšţûṽŵẋýžÅƁÇĐÉƑĞĤÎĴĶĻṀÑÖÞɊŔŠŢÛṼŴẊÝŽ"
KEPT = re.compile(r"\{[^}]*\}|<[^>]+>|&\w+;")  # fields, tags and entities of a text


def pseudo(text: str) -> str:
    """The text in a language that nobody speaks."""
    parts, end = [], 0
    for kept in KEPT.finditer(text):
        parts += [text[end : kept.start()].translate(str.maketrans(LETTERS, STRANGE)), kept.group()]
        end = kept.end()
    return f"«{''.join(parts)}{text[end:].translate(str.maketrans(LETTERS, STRANGE))}»" if text.strip() else text


class Translator(qt.QTranslator):
    """Knows every text."""

    def translate(self, context, text, note=None, count=-1):
        return pseudo(text.decode() if isinstance(text, bytes) else text)


def texts(top) -> list[tuple[str, str]]:
    """Name of the widget and text, for everything below ``top`` that is or can be shown."""
    found = []
    for widget in below(top):
        if _inNodeSelector(widget, top):
            continue
        kind = widget.className()
        shown = [widget.toolTip, widget.accessibleName, widget.accessibleDescription, *_own(widget, kind)]
        found += [(widget.objectName or kind, text) for text in shown if text]
    return found


def _inNodeSelector(widget, top) -> bool:
    """Whether a widget is part of the application's selector of nodes, which translates itself."""
    while widget is not top and (widget := widget.parent()) is not top:
        if widget.className() == "qMRMLNodeComboBox":
            return True
    return False


def _own(widget, kind: str) -> list[str]:
    if kind in ("QLabel", "QPushButton", "QToolButton", "QCheckBox", "ctkCollapsibleButton"):
        return [widget.text]
    if kind == "QLineEdit":
        return [widget.placeholderText]
    if kind in ("QSpinBox", "QDoubleSpinBox"):
        return [widget.specialValueText, widget.prefix, widget.suffix]
    if kind == "QComboBox":
        every = range(widget.count)
        return [widget.itemText(n) for n in every] + [widget.itemData(n, qt.Qt.ToolTipRole) or "" for n in every]
    if kind == "QListWidget":
        return _items([widget.item(n) for n in range(widget.count)])
    if kind == "QTableWidget":
        columns = range(widget.columnCount)
        cells = [widget.item(row, column) for row in range(widget.rowCount) for column in columns]
        return _items([*cells, *(widget.horizontalHeaderItem(column) for column in columns)])
    return []


def _items(items) -> list[str]:
    return [text for item in items if item for text in (item.text(), item.toolTip())]
