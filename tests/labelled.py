"""Datasets whose labels are known without opening an image."""

from typing import Any

import torch
from torch.utils.data import Dataset


class Labelled(Dataset[Any]):
    """Labels known without opening an image; opening one is an error."""

    def __init__(self, targets: Any, name: str = "targets") -> None:
        setattr(self, name, targets)
        self.size = len(targets)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("an image was opened")


def labels_of(counts: list[int]) -> list[int]:
    """counts[k] labels k, in no order."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))].tolist()
