"""What the module itself puts into the scene for a review, kept apart and taken out again."""

from __future__ import annotations

from typing import Any

import slicer

_MARK = "IncrementalSeg.shown"


class Shown:
    """Nodes under subject-hierarchy folders of ours, marked so that a reloaded scene still knows them."""

    def add(self, node: Any, folder: str) -> None:
        """Mark a node and put it into a folder of this name."""
        node.SetAttribute(_MARK, folder)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        top = hierarchy.GetSceneItemID()
        place = hierarchy.GetItemChildWithName(top, folder) or hierarchy.CreateFolderItem(top, folder)
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(place, node)
        hierarchy.SetItemParent(item, place)

    @staticmethod
    def has(node: Any) -> bool:
        """Whether a node is ours."""
        return bool(node.GetAttribute(_MARK))

    def nodes(self) -> list[Any]:
        """Every node that was shown and is still there."""
        scene = slicer.mrmlScene
        every = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
        return [node for node in every if self.has(node)]

    def clear(self) -> None:
        """Take all of it out of the scene, with the folders."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        folders = {node.GetAttribute(_MARK) for node in self.nodes()}
        for node in self.nodes():
            slicer.mrmlScene.RemoveNode(node)
        for folder in folders:
            item = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), folder)
            if item:
                hierarchy.RemoveItem(item)
