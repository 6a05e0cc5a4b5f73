"""A module named ``qt`` that behaves as Slicer's does: real Qt 6 (PySide6) under the attribute rules of PythonQt.

What differs between the two, and is made alike here:

* a Qt property is an attribute (``button.text``, ``box.value = 3``), its setter stays callable (``setText``);
* plain Qt objects take no attributes of ours (a misspelt property is an error, not a new attribute);
* a signal is connected by its signature as text, ``button.connect("clicked(bool)", slot)``; the application answers a
  wrong one with False, here it is an error.

The rules hold for QObject and everything below it, so that objects which Qt makes follow them too.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

_FOREIGN = {"Signal", "Slot", "Property", "ClassInfo"}  # PySide6's names for what PythonQt does in another way
_read = QtCore.QObject.__getattribute__
_connect_native = QtCore.QObject.connect
_disconnect_native = QtCore.QObject.disconnect
_find_children = QtCore.QObject.findChildren
_being_read: list[tuple[object, str]] = []


def install() -> types.ModuleType:
    """Make ``import qt`` work and put PythonQt's rules on every Qt class of this process."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    qt = types.ModuleType("qt", __doc__)
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):  # which also has PySide6 create the classes that it creates late
            if not name.startswith("_") and name not in _FOREIGN:
                setattr(qt, name, getattr(module, name))
    qt.Signal = QtCore.Signal
    for cls in {QtCore.QObject, *_below(QtCore.QObject)}:
        cls.__setattr__ = _write
        if cls is QtCore.QObject or "__getattribute__" in vars(cls):
            cls.__getattribute__ = _reader(cls.__getattribute__)
    sys.modules["qt"] = qt
    return qt


def _below(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


def _property_named(obj: Any, name: str) -> str | None:
    """The Qt property that an attribute stands for."""
    if name.startswith("_"):  # ours; may be written before Qt's own constructor ran
        return None
    if name == "name":
        return "objectName"
    return name if _read(obj, "metaObject")().indexOfProperty(name) >= 0 else None


def _reader(original: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Attribute access for a class whose own is ``original``: QFile, QProcess, QMenu and QLibrary have one."""

    def read(self: Any, name: str) -> Any:
        if name.startswith("_"):
            return original(self, name)
        prop = _property_named(self, name)
        if prop and (self, prop) not in _being_read:  # reading sizeHint asks Python for an override: let that through
            _being_read.append((self, prop))
            try:
                return _read(self, "property")(prop)
            finally:
                _being_read.pop()
        if name in _METHODS:  # PySide6 finds its own connect() past whatever the class says
            return types.MethodType(_METHODS[name], self)
        try:
            return original(self, name)
        except AttributeError:
            if name in (bytes(known.data()).decode() for known in _read(self, "dynamicPropertyNames")()):
                return _read(self, "property")(name)
            raise

    return read


def _write(self: Any, name: str, value: Any) -> None:
    prop = _property_named(self, name)
    descriptor = getattr(type(self), name, None)
    if prop:
        if not _read(self, "setProperty")(prop, value):
            raise ValueError(f"{type(self).__name__}.{name} does not take {value!r}")
    elif hasattr(type(descriptor), "__set__"):
        descriptor.__set__(self, value)
    elif type(self).__module__.startswith("PySide6.") and not isinstance(value, QtCore.SignalInstance):
        raise AttributeError(
            f"{type(self).__name__} has no attribute '{name}', and C++ objects take no attributes of ours"
        )
    else:
        _read(self, "__dict__")[name] = value


def _signal(obj: Any, signature: str) -> tuple[QtCore.SignalInstance, str, bool]:
    """A signal by its signature, and whether Qt itself knows it (those that stand-ins write in Python, it does not)."""
    signature = QtCore.QMetaObject.normalizedSignature(signature).data().decode()
    signal = getattr(obj, signature.partition("(")[0], None)
    native = obj.metaObject().indexOfSignal(signature) >= 0
    stand_in = not type(obj).__module__.startswith("PySide6.")
    if not isinstance(signal, QtCore.SignalInstance) or not (native or stand_in):
        raise AttributeError(f"{obj.className()} has no signal {signature}: the application would connect nothing")
    return signal, signature, native


def _connect(self: Any, signature: str, slot: Callable[..., Any], *more: Any) -> bool:
    if more:  # PySide6's own connect(sender, signal, slot), which QTimer.singleShot uses inside
        return bool(_connect_native(signature, slot, *more))
    signal, signature, native = _signal(self, signature)
    return bool(_connect_native(self, QtCore.SIGNAL(signature), slot) if native else signal.connect(slot))


def _disconnect(self: Any, signature: str, slot: Callable[..., Any]) -> bool:
    signal, signature, native = _signal(self, signature)
    return bool(_disconnect_native(self, QtCore.SIGNAL(signature), slot) if native else signal.disconnect(slot))


def _class_name(self: Any) -> str:
    return str(self.metaObject().className())


def _children(self: Any, kind: Any = QtCore.QObject, *more: Any) -> list[Any]:
    if isinstance(kind, str):
        return [child for child in _find_children(self, QtCore.QObject, *more) if child.inherits(kind)]
    return list(_find_children(self, kind, *more))


_METHODS: dict[str, Callable[..., Any]] = {
    "connect": _connect,
    "disconnect": _disconnect,
    "className": _class_name,
    "findChildren": _children,
}
