"""A model trained by nnU-Net itself: its planner, preprocessing and trainer on a tiny dataset. Run as a program, since
nnU-Net reads its folders from the environment and starts processes of its own:

    python nnunet_training.py FOLDER      (prints the folder of the trained configuration)
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from IncrementalSegLib.phantom import PhantomConfig, make_phantom

ORGANS = {"background": 0, "spleen": 1, "kidney_right": 2, "kidney_left": 3}
DATASET = "Dataset001_Phantom"


def write_dataset(folder: Path, cases: int = 5) -> None:
    """Phantoms as nnU-Net wants them; organs beyond the first three are background."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(cases):
        config = PhantomConfig(size=(60, 52, 40), spacing=(6.0, 6.0, 8.0))
        ct, label_map = make_phantom(np.random.default_rng(number), config)
        few = sitk.Mask(sitk.Cast(label_map, sitk.sitkUInt8), sitk.Cast(label_map < len(ORGANS), sitk.sitkUInt8))
        sitk.WriteImage(ct, folder / f"imagesTr/p{number}_0000.nii.gz")
        sitk.WriteImage(few, folder / f"labelsTr/p{number}.nii.gz")
    content = {"channel_names": {"0": "CT"}, "labels": ORGANS, "numTraining": cases, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))


def train(epochs: int, iterations: int) -> Path:
    """Plan, preprocess and train fold 0; the folder of the trained configuration."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from nnunetv2.run.run_training import get_trainer_from_args

    planning.extract_fingerprints([1], num_processes=1)
    planning.plan_experiments([1], gpu_memory_target_in_gb=1)
    planning.preprocess([1], configurations=["3d_fullres"], num_processes=[1])
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # its planner wants one, its loader none
    trainer = get_trainer_from_args(DATASET, "3d_fullres", 0, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = epochs, iterations, 1
    trainer.run_training()
    return Path(trainer.output_folder).parent


if __name__ == "__main__":
    root = Path(sys.argv[1])
    os.environ |= {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    write_dataset(root / "raw" / DATASET)
    print(train(epochs=1, iterations=4))
