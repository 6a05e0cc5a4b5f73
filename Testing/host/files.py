"""``slicer.app.coreIOManager()``: loads and saves nodes for `slicer.util`, by MRML's own storage nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

_TYPES = {".seg.nrrd": "SegmentationFile", ".mrb": "SceneFile", ".mrml": "SceneFile"}
_VOLUME_FLAGS = ("labelmap", "center", "singleFile", "autoWindowLevel", "discardOrientation")


class CoreIOManager:
    """Volumes, label maps, segmentations and scenes; other file types are refused by name."""

    def fileType(self, path: str) -> str:
        return next((kind for ending, kind in _TYPES.items() if str(path).lower().endswith(ending)), "VolumeFile")

    def fileWriterFileType(self, node: Any) -> str:
        return "NodeFile"

    def loadNodes(self, fileType: str, properties: dict[str, Any], loaded: Any = None, messages: Any = None) -> bool:
        path = Path(str(properties["fileName"]))
        if not path.exists():
            if messages:
                messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"File not found: {path}")
            return False
        if fileType == "SceneFile":
            return self._load_scene(path, bool(properties.get("clear")))
        name = properties.get("name") or path.name.partition(".")[0]
        if fileType == "VolumeFile":
            node = self._load_volume(path, name, properties)
        elif fileType == "SegmentationFile":
            node = slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(path), True, name)
        else:
            raise NotImplementedError(f"the host does not read a {fileType}")
        if node and loaded is not None:
            loaded.AddItem(node)
        return bool(node)

    @staticmethod
    def _load_scene(path: Path, clear: bool) -> bool:
        if path.suffix.lower() == ".mrb":
            return bool(slicer.mrmlScene.ReadFromMRB(str(path), clear))
        slicer.mrmlScene.SetURL(str(path))
        return bool(slicer.mrmlScene.Connect() if clear else slicer.mrmlScene.Import())

    @staticmethod
    def _load_volume(path: Path, name: str, properties: dict[str, Any]) -> Any:
        flags = sum(
            1 << bit for bit, flag in enumerate(_VOLUME_FLAGS) if properties.get(flag, flag == "autoWindowLevel")
        )
        node = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), name, flags)
        if node and properties.get("show", True):
            slicer.util.setSliceViewerLayers(background=node, fit=True)
        return node

    def saveNodes(self, fileType: str, properties: dict[str, Any], messages: Any = None) -> bool:
        path = Path(str(properties["fileName"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        if fileType == "SceneFile":
            if path.suffix.lower() == ".mrb":
                return bool(slicer.mrmlScene.WriteToMRB(str(path)))
            slicer.mrmlScene.SetURL(str(path))
            return bool(slicer.mrmlScene.Commit())
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if not node.GetStorageNode():
            node.AddDefaultStorageNode(str(path))
        node.GetStorageNode().SetFileName(str(path))
        return bool(node.GetStorageNode().WriteData(node))
