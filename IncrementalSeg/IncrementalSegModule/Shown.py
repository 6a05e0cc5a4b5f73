"""What the module itself puts into the scene for a review, kept apart and taken out again."""

from __future__ import annotations

from typing import Any

import slicer

from .Views import Views

_OWNER, _FOLDER, _SOURCE = "IncrementalSeg.owner", "IncrementalSeg.folder", "IncrementalSeg.source"


class Shown:
    """Nodes under subject-hierarchy folders, marked with the update they belong to, also in a reloaded scene.

    What the views showed before the first of them comes back when the last is taken away.
    """

    def __init__(self) -> None:
        self._before: Views | None = None

    def add(self, node: Any, folder: str, owner: str, source: str = "", beside: Any = None) -> None:
        """Mark a node, made of ``source``, as shown for the update ``owner`` and put it into a folder.

        The folder lies where the scan ``beside`` lies, so that DICOM export finds its patient and study.
        """
        if self._before is None or not self.nodes():
            self._before = Views()
        node.SetAttribute(_OWNER, owner)
        node.SetAttribute(_FOLDER, folder)
        node.SetAttribute(_SOURCE, source)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        scan = hierarchy.GetItemByDataNode(beside) if beside else 0
        top = hierarchy.GetItemParent(scan) if scan else hierarchy.GetSceneItemID()
        place = hierarchy.GetItemChildWithName(top, folder) or hierarchy.CreateFolderItem(top, folder)
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(place, node)
        hierarchy.SetItemParent(item, place)

    @staticmethod
    def has(node: Any) -> bool:
        """Whether a node is ours."""
        return bool(node.GetAttribute(_OWNER))

    def present(self, scan: Any, segmentations: list[Any]) -> None:
        """Show a scan with these segmentations of ours, and nothing else."""
        if self._before is None:  # the scene was loaded with what is ours
            self._before = Views()
        self._before.show(scan, segmentations, self.nodes())

    def of(self, source: str, owner: str) -> list[Any]:
        """What was made of a source for an update and is still there."""
        return [node for node in self.nodes(owner) if node.GetAttribute(_SOURCE) == source]

    def nodes(self, owner: str = "") -> list[Any]:
        """Every node that was shown and is still there, of one update or of all."""
        scene = slicer.mrmlScene
        every = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
        return [node for node in every if self.has(node) and owner in ("", node.GetAttribute(_OWNER))]

    def clear(self, owner: str) -> None:
        """Take what was shown of an update out of the scene, and its folders where nothing else lies in them."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        nodes = self.nodes(owner)
        folders = {node.GetAttribute(_FOLDER) for node in nodes}
        places = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in nodes}
        for node in nodes:
            slicer.mrmlScene.RemoveNode(node)
        for place in places:
            if hierarchy.GetItemName(place) in folders and not hierarchy.GetNumberOfItemChildren(place):
                hierarchy.RemoveItem(place)
        if self._before and not self.nodes():
            self._before.restore()
            self._before = None

    def keep(self, owner: str) -> None:
        """What was shown of an update is the user's from now on, and the user's own segmentations are shown again."""
        for node in self.nodes(owner):
            for attribute in (_OWNER, _FOLDER, _SOURCE):
                node.RemoveAttribute(attribute)
        if self._before:
            self._before.unhide()
