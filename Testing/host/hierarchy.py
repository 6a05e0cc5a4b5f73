"""The subject hierarchy's items, which Qt plugins make in the application: one for every node that shows data."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

_TAKEN = [  # by the application's plugins
    f"vtkMRML{kind}Node" for kind in ("Volume", "Segmentation", "Model", "Transform", "Markups", "Table", "Text")
]


class SubjectHierarchy:
    """Follows a scene: an item when a node comes, none when it goes; after an import for those that have none yet."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        scene.AddObserver(scene.NodeAddedEvent, _with_node(self._added))
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _with_node(self._leaving))
        scene.AddObserver(scene.EndImportEvent, lambda *_: self._imported())
        scene.AddObserver(scene.EndCloseEvent, lambda *_: self._tree())

    def _tree(self) -> Any:
        """The scene's one hierarchy, which is made here where there is none."""
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)

    def _added(self, node: Any) -> None:
        excluded = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
        taken = any(map(node.IsA, _TAKEN)) and not node.GetHideFromEditors() and not node.GetAttribute(excluded)
        if taken and not self._scene.IsImporting() and not self._tree().GetItemByDataNode(node):
            self._tree().CreateItem(self._tree().GetSceneItemID(), node)

    def _leaving(self, node: Any) -> None:
        if node.IsA("vtkMRMLSubjectHierarchyNode") or self._scene.IsClosing():
            return
        if item := self._tree().GetItemByDataNode(node):
            self._tree().RemoveItem(item, False, False)

    def _imported(self) -> None:
        for number in range(self._scene.GetNumberOfNodes()):
            self._added(self._scene.GetNthNode(number))


def _with_node(act: Any) -> Any:
    """An observer that is given the node which an event of the scene is about."""

    def observer(caller: Any, event: str, node: Any) -> None:
        act(node)

    observer.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    return observer
