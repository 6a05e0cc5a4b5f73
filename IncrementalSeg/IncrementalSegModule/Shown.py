"""What the module itself puts into the scene for a review, kept apart and taken out again."""

from __future__ import annotations

from typing import Any

import slicer

_OWNER, _FOLDER = "IncrementalSeg.owner", "IncrementalSeg.folder"


class Shown:
    """Nodes under subject-hierarchy folders, marked with the update they belong to, also in a reloaded scene."""

    def add(self, node: Any, folder: str, owner: str) -> None:
        """Mark a node as shown for the update ``owner`` and put it into a folder of this name."""
        node.SetAttribute(_OWNER, owner)
        node.SetAttribute(_FOLDER, folder)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        top = hierarchy.GetSceneItemID()
        place = hierarchy.GetItemChildWithName(top, folder) or hierarchy.CreateFolderItem(top, folder)
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(place, node)
        hierarchy.SetItemParent(item, place)

    @staticmethod
    def has(node: Any) -> bool:
        """Whether a node is ours."""
        return bool(node.GetAttribute(_OWNER))

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
        for node in nodes:
            slicer.mrmlScene.RemoveNode(node)
        for folder in folders:
            item = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), folder)
            if item and not hierarchy.GetNumberOfItemChildren(item):
                hierarchy.RemoveItem(item)

    def keep(self, owner: str) -> None:
        """What was shown of an update is the user's from now on."""
        for node in self.nodes(owner):
            node.RemoveAttribute(_OWNER)
            node.RemoveAttribute(_FOLDER)
