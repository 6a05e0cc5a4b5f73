"""Sample Data as far as other modules meet it: they register sources, people press a source's button."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget


class SampleDataSource:
    """What can be had, where from; stricter than the application's, which finds the faults when a button is pressed."""

    def __init__(
        self,
        sampleName: str,
        uris: str | list[str],
        fileNames: str | list[str],
        nodeNames: str | list[str],
        checksums: str | list[str] | None,
        customDownloader: Callable[[SampleDataSource], Any] | None,
        thumbnailFileName: str | None,
    ) -> None:
        lists = [[part] if isinstance(part, str) or part is None else part for part in (uris, fileNames, nodeNames)]
        self.uris, self.fileNames, self.nodeNames = lists
        self.checksums = checksums if isinstance(checksums, list) else [checksums] * len(self.uris)
        if len({len(self.uris), len(self.fileNames), len(self.nodeNames), len(self.checksums)}) != 1:
            raise ValueError(f"{sampleName}: all fields of a source must have the same length")
        for uri, digest in zip(self.uris, self.checksums, strict=True):
            secure = re.match(r"https://", uri) and re.fullmatch(r"SHA256:[0-9a-f]{64}", digest or "")
            if not secure and customDownloader is None:
                raise ValueError(f"{sampleName}: {uri} is no secure address, or has no checksum")
        if thumbnailFileName and not Path(thumbnailFileName).is_file():
            raise ValueError(f"{sampleName}: there is no thumbnail {thumbnailFileName}")
        if customDownloader is not None and not thumbnailFileName:
            raise ValueError(f"{sampleName}: a source of one's own needs a thumbnail")
        self.sampleName, self.thumbnailFileName = sampleName, thumbnailFileName
        self.customDownloader = customDownloader

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class SampleDataLogic:
    """The registry, which is a dictionary of the application: lists of sources by category."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileType: Any = "VolumeFile",
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
    ) -> None:
        if sampleName is None or uris is None or fileNames is None or nodeNames is None:
            raise TypeError("a source needs a name, addresses, and names of files and nodes")
        source = SampleDataSource(
            sampleName, uris, fileNames, nodeNames, checksums, customDownloader, thumbnailFileName
        )
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        if source not in sources:
            sources.append(source)

    def downloadFromSource(self, source: SampleDataSource) -> list[Any]:
        raise NotImplementedError(f"the host does not download {source.sampleName}")


class SampleData(ScriptedLoadableModule):
    """The module."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        slicer.modules.sampleDataSources = {}


class SampleDataWidget(ScriptedLoadableModuleWidget):
    """A box for every category with a button for every source that was registered before the panel was opened."""

    def setup(self) -> None:
        super().setup()
        self.logic = SampleDataLogic()
        for category, sources in slicer.modules.sampleDataSources.items():
            box = qt.QGroupBox(category)
            row = qt.QHBoxLayout(box)
            self.layout.addWidget(box)
            for source in sources:
                row.addWidget(self._button(source))
        self.layout.addStretch(1)

    def _button(self, source: SampleDataSource) -> Any:
        button = qt.QToolButton()
        button.setText(source.sampleName)
        button.name = f"{source.sampleName}PushButton"
        button.setToolButtonStyle(qt.Qt.ToolButtonTextUnderIcon)
        button.setIconSize(qt.QSize(144, 120))
        if source.thumbnailFileName:
            button.setIcon(qt.QIcon(source.thumbnailFileName))
        load = source.customDownloader or self.logic.downloadFromSource
        button.connect("clicked(bool)", lambda checked=False: load(source))
        return button

    def enter(self) -> None:
        pass

    exit = enter
