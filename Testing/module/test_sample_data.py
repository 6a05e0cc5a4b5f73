"""Scans to try the module on, in Slicer's Sample Data module and without it."""

from __future__ import annotations

import importlib.util
import struct
import sys
import unittest
from pathlib import Path
from unittest import mock

import slicer
from panel_testing import PanelTest

IN_THE_HOST = importlib.util.find_spec("PySide6") is not None


class SampleDataTest(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        from IncrementalSegModule import SampleScans

        self.ours = SampleScans
        if IN_THE_HOST and not slicer.modules.sampleDataSources:
            slicer.app.startupCompleted.emit()  # the application says so when it has loaded all modules
        self.sources = {each.sampleName: each for each in slicer.modules.sampleDataSources[SampleScans.CATEGORY]}

    def volumes(self) -> list[str]:
        return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]

    def shown(self) -> list[str]:
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [node.GetName() for node in nodes if node.GetDisplayNode().GetVisibility()]

    def test_a_real_ct_and_phantoms_are_offered_once_the_application_has_started(self) -> None:
        self.assertEqual(set(self.sources), {self.ours.CT, self.ours.PHANTOMS})

    def test_registering_again_adds_nothing(self) -> None:
        before = {name: len(every) for name, every in slicer.modules.sampleDataSources.items()}
        slicer.modules.IncrementalSegInstance.registerSampleData()
        self.assertEqual({name: len(every) for name, every in slicer.modules.sampleDataSources.items()}, before)

    def test_the_real_ct_comes_from_slicers_own_server_and_is_checked(self) -> None:
        source = self.sources[self.ours.CT]
        (uri,), (checksum,) = source.uris, source.checksums
        self.assertTrue(uri.startswith(slicer.util.TESTING_DATA_URL), uri)
        self.assertEqual(slicer.util.extractAlgoAndDigest(checksum)[1], uri.rpartition("/")[2])
        self.assertIsNone(source.customDownloader)
        self.assertEqual(source.nodeNames, ["CTLiver"])

    @unittest.skipIf(IN_THE_HOST, "the host offers no scans of its own")
    def test_the_real_ct_is_the_one_that_the_application_offers(self) -> None:
        import SampleData

        theirs = SampleData.SampleDataLogic().sourceForSampleName("CTLiver")
        ours = self.sources[self.ours.CT]
        self.assertEqual((ours.uris, ours.checksums), (theirs.uris, theirs.checksums))

    def test_the_thumbnail_has_the_size_that_sample_data_wants(self) -> None:
        header = Path(self.sources[self.ours.PHANTOMS].thumbnailFileName).read_bytes()[:24]
        self.assertEqual(struct.unpack(">II", header[16:]), (260, 280))

    def test_a_click_loads_four_patients_with_an_annotation_of_an_organ_that_the_starter_does_not_know(self) -> None:
        source, before = self.sources[self.ours.PHANTOMS], "torch" in sys.modules
        source.customDownloader(source)
        self.assertEqual(self.errors, [])
        self.assertEqual(self.volumes(), [f"Phantom {number}" for number in (1, 2, 3, 4)])
        self.assertEqual(self.shown(), ["Phantom 1: annotation"])
        self.session.chooseModel("starter")
        self.chooseOrgan("pancreas")
        for name in self.volumes():
            self.session.addCase(slicer.util.getNode(name), slicer.util.getNode(f"{name}: annotation"))
        states = [self.panel.cases.ui.caseTable.item(row, 2).text() for row in range(4)]
        self.assertEqual(states, ["Ready."] * 4)
        self.assertTrue(self.panel.update.ui.startButton.enabled, self.panel.update.ui.problemLabel.text)
        self.assertEqual("torch" in sys.modules, before)

    def test_a_phantom_is_where_its_annotation_is_and_looks_like_ct(self) -> None:
        ((volume, segmentation),) = self.ours.loadPhantoms(1)
        voxels = slicer.util.arrayFromVolume(volume)
        self.assertEqual(volume.GetSpacing(), (3.0, 3.0, 3.0))
        self.assertLess(voxels.min(), -900)
        inside = slicer.util.arrayFromSegmentBinaryLabelmap(
            segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), volume
        )
        self.assertGreater(inside.sum() * 0.027, 40, "mL")
        self.assertTrue(60 < voxels[inside > 0].mean() < 140, "the pancreas is enhanced soft tissue")

    def test_phantoms_that_are_loaded_again_get_names_of_their_own(self) -> None:
        self.ours.loadPhantoms(1)
        self.ours.loadPhantoms(1)
        self.assertEqual(len(set(self.volumes())), 2)

    def test_a_missing_package_is_named(self) -> None:
        from IncrementalSegModule import Dependencies

        with mock.patch.object(Dependencies, "missing", lambda: ["scipy"]):
            self.ours.onPhantoms()
        self.assertEqual(self.volumes(), [])
        self.assertIn("scipy", self.errors[0])
        self.assertIn("Install", self.errors[0])

    def test_an_application_without_sample_data_is_left_alone(self) -> None:
        with (
            mock.patch.dict(sys.modules, {"SampleData": None}),
            mock.patch.object(slicer.modules, "sampleDataSources", {}),
        ):
            slicer.modules.IncrementalSegInstance.registerSampleData()
            self.assertEqual(slicer.modules.sampleDataSources, {})


if __name__ == "__main__":
    unittest.main()
