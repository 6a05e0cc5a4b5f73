"""``slicer.parameterNodeWrapper`` for the types this project uses, as strict as the application's.

bool, int, float, str, Enum and MRML nodes; a value of another type is refused when it is written. Wrapping a node
writes the defaults into it, and a value is kept until the node says that it was modified, both as there. GUI connection
by the dynamic property ``SlicerParameterName``: a widget of the wrong class, a combo box without choices or a slider
without range are refused, as there. No lists, packs or unions.
"""

from __future__ import annotations

import enum
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import vtk

_PROPERTY = "SlicerParameterName"


@dataclass(frozen=True)
class Default:
    """A parameter's value where none was set."""

    value: Any


@dataclass(frozen=True)
class WithinRange:
    """Bounds of a number, both included."""

    minimum: float
    maximum: float


@dataclass(frozen=True)
class Choice:
    """What a parameter may be."""

    choices: list[Any]


@dataclass(frozen=True)
class _Parameter:
    name: str
    kind: type
    default: Any
    limits: tuple[Any, ...]

    @property
    def is_node(self) -> bool:
        return issubclass(self.kind, slicer.vtkMRMLNode)

    def read(self, node: Any) -> Any:
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if issubclass(self.kind, enum.Enum):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, node: Any, value: Any) -> None:
        self._require(value)
        if self.is_node:
            node.SetParameter(self.name, "")  # None is a value too
            node.SetNodeReferenceID(self.name, value.GetID() if value else None)
        else:
            node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))

    def _require(self, value: Any) -> None:
        if self.is_node and value is None:
            return
        fits = value.IsA(self.kind.__name__) if self.is_node else type(value) is self.kind
        if not fits and not (self.kind is float and type(value) is int):
            raise TypeError(f"parameter {self.name} is a {self.kind.__name__}, not {value!r}")
        for limit in self.limits:
            if isinstance(limit, WithinRange) and not limit.minimum <= value <= limit.maximum:
                raise ValueError(f"parameter {self.name} must lie in {limit.minimum} … {limit.maximum}, not {value}")
            if isinstance(limit, Choice) and value not in limit.choices:
                raise ValueError(f"parameter {self.name} must be one of {limit.choices}, not {value!r}")


def parameterNodeWrapper(cls: type) -> type:
    """Class decorator: annotated members become parameters of a MRML node."""
    members: dict[str, Any] = {"__doc__": cls.__doc__, "allParameters": {}}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        extras = getattr(hint, "__metadata__", ())
        kind = hint.__origin__ if extras else hint
        stated = next((extra.value for extra in extras if isinstance(extra, Default)), _empty(kind))
        parameter = _Parameter(name, kind, vars(cls).get(name, stated), extras)
        members["allParameters"][name] = parameter
        members[name] = _as_property(parameter)
    return type(cls.__name__, (_Wrapper,), members)


def _empty(kind: type) -> Any:
    if issubclass(kind, enum.Enum):
        return next(iter(kind))
    return None if issubclass(kind, slicer.vtkMRMLNode) else kind()


def _as_property(parameter: _Parameter) -> property:
    return property(
        lambda self: self._values[parameter.name],
        lambda self, value: self._write(parameter, value),
    )


class _Wrapper:
    allParameters: typing.ClassVar[dict[str, _Parameter]] = {}

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode, self._links, self._showing = parameterNode, [], False
        self._values: dict[str, Any] = {}
        self._read()
        this = weakref.ref(self)
        parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: this() and this()._read())

    def _read(self) -> None:
        """Look at the node anew; what is not in it is written into it."""
        for name, parameter in self.allParameters.items():
            self._values[name] = parameter.read(self.parameterNode)

    def _write(self, parameter: _Parameter, value: Any) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            parameter.write(self.parameterNode, value)
            self._values[parameter.name] = parameter.read(self.parameterNode)

    def connectGui(self, gui: Any) -> None:
        """Bind widgets whose property names a parameter; gives no tag, as the application's does not."""
        named = {widget.property(_PROPERTY): widget for widget in vars(gui).values()}
        self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Bind widgets to parameters by name, and give a tag for `disconnectGui`."""
        tag = len(self._links)
        self._links.append([])
        for name, widget in mapping.items():
            parameter = self.allParameters[name]
            read, write, signal = _connector(widget, parameter)
            self._links[tag].append((parameter, write))
            signal.connect(lambda *_, p=parameter, read=read: self._from_gui(tag, p, read))
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._to_gui())
        self._to_gui()
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        """Stop what `connectParametersToGui` began; without its tag nothing stops."""
        if tag is not None:
            self._links[tag].clear()

    def _from_gui(self, tag: int, parameter: _Parameter, read: Callable[[], Any]) -> None:
        if not self._showing and self._links[tag]:
            self._write(parameter, read())

    def _to_gui(self) -> None:
        if self._showing:
            return
        self._showing = True
        try:
            for parameter, write in (link for links in self._links for link in links):
                write(self._values[parameter.name])
        finally:
            self._showing = False

    def __getattr__(self, name: str) -> Any:
        if name in ("StartModify", "EndModify", "AddObserver", "RemoveObserver", "Modified"):
            return getattr(self.parameterNode, name)
        raise AttributeError(f"a parameter node wrapper has no '{name}'")


def _connector(widget: Any, parameter: _Parameter) -> tuple[Callable[[], Any], Callable[[Any], None], Any]:
    """How this widget's value is read and written, and the signal of its change."""
    what = (widget.className(), parameter.kind)
    limits = [limit for limit in parameter.limits if isinstance(limit, WithinRange)]
    choices = next((limit.choices for limit in parameter.limits if isinstance(limit, Choice)), None)
    if what == ("QCheckBox", bool):
        return lambda: widget.checked, widget.setChecked, widget.toggled
    if what == ("QLineEdit", str):
        return lambda: widget.text, widget.setText, widget.textChanged
    if what in (("QSpinBox", int), ("QDoubleSpinBox", float), ("ctkSliderWidget", float)):
        if limits:
            widget.minimum, widget.maximum = limits[0].minimum, limits[0].maximum
        elif what[0] == "ctkSliderWidget":
            raise RuntimeError(f"{parameter.name}: a ctkSliderWidget takes a number WithinRange only")
        return lambda: widget.value, widget.setValue, widget.valueChanged
    if what[0] == "QComboBox" and (choices or issubclass(parameter.kind, enum.Enum)):
        values = choices or list(parameter.kind)
        widget.clear()
        widget.addItems([value.label() if hasattr(value, "label") else str(value) for value in values])
        return (
            lambda: values[widget.currentIndex],
            lambda value: widget.setCurrentIndex(values.index(value)),
            widget.currentIndexChanged,
        )
    if what[0] == "qMRMLNodeComboBox" and parameter.is_node:
        return widget.currentNode, widget.setCurrentNode, widget.currentNodeIDChanged
    raise RuntimeError(f"{what[0]} cannot show parameter {parameter.name}, a {parameter.kind.__name__}")
