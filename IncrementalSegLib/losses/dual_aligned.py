"""DAPD: prototypes of a batch are held at the stored ones and at the old model's (Zhu et al. 2025, stated).

The two alignments are the paper's (arXiv 2511.07749, abstract); the distance is our formulation (method §4). With the
first alone it has the form of SDR's prototype matching (Michieli and Zanuttigh 2021, §4.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DualAlignment(nn.Module):
    """``1/|C_b| Σ_c [ α d(p̂_c, P_c) + β d(p̂_c, p̂_c^old) ]`` with ``d = 1 - cos`` over the classes in the batch.

    Args:
        to_global: α, weight of the distance to the stored prototypes.
        to_old_local: β, weight of the distance to the old model's prototypes of the same voxels.
    """

    def __init__(self, to_global: float = 1.0, to_old_local: float = 1.0) -> None:
        super().__init__()
        self.to_global, self.to_old_local = to_global, to_old_local

    def forward(self, local: Tensor, old_local: Tensor, stored: Tensor, present: Tensor, known: Tensor) -> Tensor:
        """The loss of the student's prototypes (C, F).

        Args:
            local: of the student in this batch.
            old_local: of the old model in the same voxels.
            stored: the global ones.
            present: bool (C,), classes that the batch shows; no class gives 0.
            known: bool (C,), classes that have a global one.

        Raises:
            ValueError: shapes that do not belong together.
        """
        if not local.shape == old_local.shape == stored.shape or not present.shape == known.shape == local.shape[:1]:
            raise ValueError(
                f"prototypes {tuple(local.shape)}, {tuple(old_local.shape)} and {tuple(stored.shape)}, "
                f"classes {tuple(present.shape)} and {tuple(known.shape)}"
            )
        cosine = nn.functional.cosine_similarity
        to_global = (1 - cosine(local, stored)) * known  #                                                          C
        to_old_local = 1 - cosine(local, old_local)  #                                                              C
        distance = self.to_global * to_global + self.to_old_local * to_old_local
        return torch.where(present, distance, 0).sum() / present.sum().clamp(min=1)
