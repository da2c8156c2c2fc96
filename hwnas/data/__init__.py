"""Datasets for training and evaluation. Each name is loaded when first used, because most import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.data.catalog import DATASETS, dataset_names, open_data
from hwnas.lazy import lazily

if TYPE_CHECKING:
    from hwnas.data.augment import Augmentation
    from hwnas.data.base import Data, Split
    from hwnas.data.digits import ClutteredDigits
    from hwnas.data.huggingface import HuggingFace
    from hwnas.data.image_data import ImageData
    from hwnas.data.images import Images
    from hwnas.data.options import DataOptions, Transform
    from hwnas.data.sequences import TokenData

__all__ = [
    "DATASETS",
    "Augmentation",
    "ClutteredDigits",
    "Data",
    "DataOptions",
    "HuggingFace",
    "ImageData",
    "Images",
    "Split",
    "TokenData",
    "Transform",
    "dataset_names",
    "open_data",
]

__getattr__ = lazily(
    __name__,
    {
        "augment": ("Augmentation",),
        "base": ("Data", "Split"),
        "digits": ("ClutteredDigits",),
        "huggingface": ("HuggingFace",),
        "image_data": ("ImageData",),
        "images": ("Images",),
        "options": ("DataOptions", "Transform"),
        "sequences": ("TokenData",),
    },
)
