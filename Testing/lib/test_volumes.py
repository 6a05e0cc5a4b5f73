"""CT and label map files: every format, what is refused, and writing whole or not at all."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scans import DIRECTIONS, OBLIQUE, RAS, SIZE, ct, label_map, placed, write_dicom

from IncrementalSegLib import volumes
from IncrementalSegLib.errors import InputError, StorageError
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.volumes import read_ct, read_label_map, read_volume, same_geometry, to_array, write_volume

WRITABLE = [".nii.gz", ".nii", ".nrrd", ".mha"]
REPOSITORY = Path(volumes.__file__).parents[1]
HU = np.random.default_rng(2).integers(-1000, 1500, (16, 14, 6)).astype(np.int16)


class TestReading:
    @pytest.mark.parametrize("extension", [*WRITABLE, ".mhd"])
    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
    def test_every_format_keeps_values_and_place(
        self, tmp_path: Path, extension: str, direction: tuple[float, ...]
    ) -> None:
        image = ct(direction=direction)
        sitk.WriteImage(image, str(tmp_path / f"scan{extension}"))
        again = read_ct(tmp_path / f"scan{extension}")
        assert np.array_equal(to_array(again), to_array(image))
        assert same_geometry(again, image)

    def test_a_dicom_series_is_read_in_hu_and_in_the_order_of_the_slices(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "series", HU)
        image = read_ct(tmp_path / "series")
        assert np.array_equal(to_array(image), HU)
        assert image.GetOrigin() == pytest.approx((-10, -20, 30))
        assert image.GetSpacing() == pytest.approx((0.8, 0.9, 2.5))

    def test_stored_dicom_values_are_not_hu_themselves(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "series", HU)
        stored = b"".join(file.read_bytes() for file in (tmp_path / "series").iterdir())
        assert (HU[:, :, 5].T + 1024).astype("<i2").tobytes() in stored
        assert HU[:, :, 5].T.astype("<i2").tobytes() not in stored

    def test_refuses_several_series_in_one_folder(self, tmp_path: Path) -> None:
        for series in ("1.2.3.1", "1.2.3.2"):
            write_dicom(tmp_path / "study", HU, series)
        with pytest.raises(InputError, match=r"study holds 2 DICOM series: give a folder with exactly one"):
            read_volume(tmp_path / "study")

    def test_refuses_a_folder_without_dicom(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("nothing here")
        with pytest.raises(InputError, match="holds no DICOM series"):
            read_volume(tmp_path)

    @pytest.mark.parametrize(
        "damage",
        [{"leave_out": [3]}, {"phases": 2}, {"step": (0.0, 0.9, 2.5)}],
        ids=["a slice is missing", "two phases", "tilted gantry"],
    )
    def test_refuses_dicom_slices_that_are_no_even_stack(self, tmp_path: Path, damage: dict[str, Any]) -> None:
        write_dicom(tmp_path / "series", HU, **damage)
        with pytest.raises(InputError, match=r"series holds slices that do not make one even stack"):
            read_volume(tmp_path / "series")

    def test_refuses_a_single_dicom_slice(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "series", HU[:, :, :1])
        with pytest.raises(InputError, match="single slice"):
            read_volume(tmp_path / "series")

    def test_refuses_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"scan\.nii\.gz does not exist"):
            read_volume(tmp_path / "scan.nii.gz")

    @pytest.mark.parametrize("extension", WRITABLE)
    def test_refuses_a_file_that_is_no_image(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"scan{extension}"
        path.write_bytes(b"this is a letter, not a scan")
        with pytest.raises(InputError, match=r"scan\S+ cannot be read as an image"):
            read_volume(path)

    @pytest.mark.parametrize("extension", WRITABLE)
    @pytest.mark.parametrize("share", [0.5, 0.95])
    def test_refuses_a_file_that_was_cut_short(self, tmp_path: Path, extension: str, share: float) -> None:
        path = tmp_path / f"scan{extension}"
        sitk.WriteImage(ct((40, 40, 20)), str(path))
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=r"scan\S+ (is damaged or cut short|cannot be read)"):
            read_volume(path)

    @pytest.mark.parametrize("extension", [".nrrd", ".mha", ".png"])
    def test_refuses_a_2d_image(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"slice{extension}"
        sitk.WriteImage(sitk.Image([6, 5], sitk.sitkUInt8), str(path))
        with pytest.raises(InputError, match=r"slice\S+ is a 2D image"):
            read_volume(path)

    @pytest.mark.parametrize("size", [(6, 5, 1), (1, 6, 5)])
    def test_refuses_a_single_slice(self, tmp_path: Path, size: tuple[int, ...]) -> None:
        sitk.WriteImage(ct(size), str(tmp_path / "slice.nrrd"))
        with pytest.raises(InputError, match=r"slice\.nrrd has a single slice"):
            read_volume(tmp_path / "slice.nrrd")

    @pytest.mark.parametrize("extension", WRITABLE)
    def test_refuses_a_4d_series(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"perfusion{extension}"
        sitk.WriteImage(sitk.JoinSeries([ct(), ct()]), str(path))
        with pytest.raises(InputError, match=r"perfusion\S+ is a 4D image: export one 3D volume"):
            read_volume(path)

    @pytest.mark.parametrize("extension", WRITABLE)
    def test_a_4d_file_of_one_phase_is_a_volume(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"scan{extension}"
        sitk.WriteImage(sitk.JoinSeries([ct(direction=RAS)]), str(path))
        image = read_volume(path)
        assert same_geometry(image, ct(direction=RAS))
        assert np.array_equal(to_array(image), to_array(ct()))

    def test_refuses_colours_and_overlapping_layers(self, tmp_path: Path) -> None:
        sitk.WriteImage(sitk.Image([6, 5, 4], sitk.sitkVectorUInt8, 3), str(tmp_path / "photo.nrrd"))
        with pytest.raises(InputError, match=r"photo\.nrrd is an image of several values per voxel"):
            read_volume(tmp_path / "photo.nrrd")


class TestHounsfieldUnits:
    @pytest.mark.parametrize(
        "values",
        [
            HU.clip(0, 255).astype(np.uint8),
            (HU + 1024).astype(np.uint16),
            np.where(HU.max() == HU, -2000, HU + 1024).astype(np.int16),
            (HU.clip(0) / 1500).astype(np.float32),
            (HU / 1000).astype(np.float32),
            np.full(HU.shape, -1000, np.int16),
            HU.astype(np.int32) * 1000,
        ],
        ids=["0..255", "0..4095", "0..4095 with padding", "0..1", "-1..1", "air only", "too large"],
    )
    def test_refuses_a_ct_that_is_not_in_hu(self, tmp_path: Path, values: np.ndarray) -> None:
        sitk.WriteImage(placed(values), str(tmp_path / "scan.mha"))
        with pytest.raises(
            InputError, match=r"scan\.mha is not in Hounsfield units \(values .* to .*\).*rescale slope"
        ):
            read_ct(tmp_path / "scan.mha")

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_refuses_a_ct_with_values_that_are_not_numbers(self, tmp_path: Path, bad: float) -> None:
        values = HU.astype(np.float32)
        values[3, 2, 1] = bad
        sitk.WriteImage(placed(values), str(tmp_path / "scan.nrrd"))
        with pytest.raises(InputError, match=r"scan\.nrrd contains NaN or infinite values"):
            read_ct(tmp_path / "scan.nrrd")

    @pytest.mark.parametrize(
        "values",
        [HU.clip(-125, 275), np.where(HU < -900, -3024, HU), HU.astype(np.float32)],
        ids=["clipped", "padded", "float"],
    )
    def test_accepts_clipped_padded_and_floating_point_hu(self, tmp_path: Path, values: np.ndarray) -> None:
        sitk.WriteImage(placed(values), str(tmp_path / "scan.nrrd"))
        assert np.array_equal(to_array(read_ct(tmp_path / "scan.nrrd")), values)


class TestLabelMaps:
    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32, np.float32, np.float64])
    def test_whole_numbers_of_any_type_are_label_values(self, tmp_path: Path, kind: type) -> None:
        values = np.arange(np.prod(SIZE)).reshape(SIZE) % 100
        sitk.WriteImage(placed(values.astype(kind)), str(tmp_path / "seg.nrrd"))
        labels = read_label_map(tmp_path / "seg.nrrd")
        assert labels.GetPixelID() == sitk.sitkUInt16
        assert np.array_equal(to_array(labels), values)

    @pytest.mark.parametrize("bad", [0.5, -1.0, math.nan, 70000.0, math.inf])
    def test_refuses_values_that_are_no_labels(self, tmp_path: Path, bad: float) -> None:
        values = np.zeros(SIZE, np.float32)
        values[1, 1, 1] = bad
        sitk.WriteImage(placed(values), str(tmp_path / "seg.nrrd"))
        with pytest.raises(InputError, match=r"seg\.nrrd is not a label map"):
            read_label_map(tmp_path / "seg.nrrd")


class TestPreprocessing:
    def test_the_window_becomes_minus_one_to_one(self) -> None:
        values = Preprocessing(window=(-100, 300)).normalise(np.array([-1000, -100, 100, 300, 3000], np.int16))
        assert values.dtype == np.float32
        assert values.tolist() == [-1, -1, 0, 1, 1]

    @pytest.mark.parametrize("window", [(100.0, 100.0), (275.0, -125.0), (math.nan, 100.0)])
    def test_refuses_an_empty_window(self, window: tuple[float, float]) -> None:
        with pytest.raises(InputError, match="window"):
            Preprocessing(window=window)

    @pytest.mark.parametrize("step", [0.0, -1.0, math.nan])
    def test_refuses_a_spacing_that_cannot_be(self, step: float) -> None:
        with pytest.raises(InputError, match="spacings above 0"):
            Preprocessing(spacing=(step, 3.0, 3.0))


# A process that may write files of `limit` bytes at most, as on a disk with so much space left.
NO_SPACE = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import SimpleITK as sitk
from IncrementalSegLib.errors import StorageError
from IncrementalSegLib.volumes import write_volume
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
noise = np.random.default_rng(0).integers(-1000, 1000, (30, 40, 50)).astype(np.int16)
try:
    write_volume(sitk.GetImageFromArray(noise), Path(sys.argv[1]))
except StorageError as error:
    print(error)
"""


class TestWriting:
    @pytest.mark.parametrize("extension", WRITABLE)
    def test_what_was_written_is_read_again_and_nothing_else_is_left(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / "new" / "folder" / f"scan{extension}"
        write_volume(ct(direction=OBLIQUE), path)
        again = read_volume(path)
        assert np.array_equal(to_array(again), to_array(ct()))
        assert same_geometry(again, ct(direction=OBLIQUE))
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert path.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("name", ["scan", "scan.png", "scan.mhd", "scan.nii.zip", "scan.dcm"])
    def test_refuses_a_name_of_no_volume_format(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match="choose a name that ends in"):
            write_volume(ct(), tmp_path / name)
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(sys.platform == "win32", reason="no file size limits on Windows")
    @pytest.mark.parametrize("extension", WRITABLE)
    def test_a_full_disk_leaves_the_old_file_and_no_other(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"scan{extension}"
        write_volume(ct(), path)
        before = path.read_bytes()
        command = [sys.executable, "-c", NO_SPACE, str(path)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"{path} could not be written (")
        assert "free space" in done.stdout
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("failure", [RuntimeError("ITK gave up"), OSError(28, "No space left on device")])
    def test_a_writer_that_fails_leaves_the_old_file_and_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        write_volume(ct(), tmp_path / "scan.nrrd")
        before = (tmp_path / "scan.nrrd").read_bytes()

        def half(image: sitk.Image, name: str, **options: bool) -> None:
            Path(name).write_bytes(b"half")
            raise failure

        monkeypatch.setattr(volumes.sitk, "WriteImage", half)
        with pytest.raises(StorageError, match=r"scan\.nrrd could not be written \(.*disk full|No space left"):
            write_volume(label_map(), tmp_path / "scan.nrrd")
        assert (tmp_path / "scan.nrrd").read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["scan.nrrd"]

    def test_a_file_that_does_not_read_back_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = sitk.WriteImage
        monkeypatch.setattr(volumes.sitk, "WriteImage", lambda image, name, **options: write(image * 0, name))
        with pytest.raises(StorageError, match="does not read back"):
            write_volume(ct(), tmp_path / "scan.nrrd")
        assert not list(tmp_path.iterdir())

    def test_refuses_to_write_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="could not be written"):
            write_volume(ct(), tmp_path / "file" / "scan.nrrd")
