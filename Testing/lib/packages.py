"""A small model for tests of packages."""

from __future__ import annotations

import torch

from IncrementalSegLib.models.networks import NetworkSpec, build_network
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.organs import Organ, OrganTable
from IncrementalSegLib.preprocessing import Preprocessing

UNET = {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 0, "norm": "batch"}
SPEC = NetworkSpec("UNet", UNET, 4)


def small_model(seed: int = 0) -> Model:
    """Three organs, one inside another, label values up to 300, with memory and a history of one step."""
    torch.manual_seed(seed)
    organs = OrganTable.from_names(["Liver", "Right kidney"])
    organs = organs.extended([Organ("Tumour", 300, parent=organs.keys[0])])
    memory = {"prototypes": {"mean": torch.rand(4, 4), "count": [1, 2]}, "statistics": torch.rand(2, 4)}
    history = ({"step": 0, "organs": organs.keys, "parent": "", "metrics": {"dsc": 0.5}},)
    network = build_network(SPEC, len(organs) + 1).eval()
    return Model(network, SPEC, organs, Preprocessing((2.0, 2.0, 3.0), (-100.0, 250.0)), (32, 32, 16), history, memory)
