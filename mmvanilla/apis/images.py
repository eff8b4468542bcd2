"""Image files and how a model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import load_model

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def find_images(source: str | Path, limit: int | None = None) -> list[Path]:
    """The image itself, or the images of a folder by name.

    Args:
        source: An image or a folder.
        limit: Take so many at most.

    Raises:
        FileNotFoundError: There is nothing, or no image in the folder.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"no image or folder at {source}")
    images = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise FileNotFoundError(f"no image ({', '.join(IMAGE_SUFFIXES)}) in {source}")
    return images[:limit]


@dataclass
class Viewer:
    """A trained model with what turns an image file into its input.

    Attributes:
        name: Of its config.
        model: In eval mode.
        cfg: Its config.
        classes: Names of the classes; empty if the checkpoint has none.
    """

    name: str
    model: nn.Module
    cfg: Config
    classes: Sequence[str]

    @classmethod
    def load(cls, config: str, checkpoint: str, device: str = "cpu") -> Viewer:
        """Build the model and load the checkpoint strictly.

        Raises:
            FileNotFoundError: One of the files is not there.
            ValueError: The file is no checkpoint.
            RuntimeError: The weights do not fit.
        """
        cfg = load_config(config)
        model, meta = load_model(cfg, checkpoint, device)
        classes = (meta.get("dataset_meta") or {}).get("classes") or ()
        return cls(Path(config).stem, model, cfg, classes)

    def batch(self, path: str | Path) -> tuple[Tensor, list[Any]]:
        """Load an image as the config's test pipeline does, as a batch of one.

        Args:
            path: Of the image.

        Returns:
            The network's input, (1, 3, H, W), and the toolbox's data samples.

        Raises:
            ValueError: The config has no test pipeline, or the file is no image.
        """
        init_default_scope(self.cfg.get("default_scope", "mmengine"))
        dataset = self.cfg.get("test_dataloader", {}).get("dataset", {})
        while "dataset" in dataset:
            dataset = dataset["dataset"]
        if "pipeline" not in dataset:
            raise ValueError(
                f"{self.name} has no test_dataloader.dataset.pipeline to load images by"
            )
        steps = [step for step in dataset["pipeline"] if "LoadAnnotations" not in step["type"]]
        try:
            sample = Compose(steps)(dict(img_path=str(path), img_id=0, img=None))
        except (AssertionError, AttributeError, ValueError) as error:  # as the toolbox has it
            raise ValueError(f"{path} cannot be read as an image: {error}") from error
        batch = self.model.data_preprocessor(pseudo_collate([sample]), False)  # type: ignore[operator]
        return batch["inputs"], batch["data_samples"]

    def read(self, path: str | Path) -> tuple[Tensor, np.ndarray]:
        """Load an image as the config's test pipeline does.

        Args:
            path: Of the image.

        Returns:
            The network's input, (1, 3, H, W), and the same pixels as RGB, (H, W, 3) uint8.

        Raises:
            ValueError: The config has no test pipeline, or the file is no image.
        """
        inputs, _ = self.batch(path)
        preprocessing = describe_preprocessing(self.model)
        pixels = inputs[0].permute(1, 2, 0).cpu().numpy()
        if preprocessing["mean"] is not None:
            pixels = pixels * np.array(preprocessing["std"]) + np.array(preprocessing["mean"])
        if preprocessing["channel_order"] == "BGR":
            pixels = pixels[..., ::-1]
        return inputs, np.ascontiguousarray(pixels.round().clip(0, 255).astype(np.uint8))


def describe_preprocessing(model: nn.Module) -> dict[str, Any]:
    """What has to be done to an image before the graph sees it, as the model's config says."""
    preprocessor = getattr(model, "data_preprocessor", None)
    mean, std = getattr(preprocessor, "mean", None), getattr(preprocessor, "std", None)
    swaps = getattr(preprocessor, "to_rgb", getattr(preprocessor, "_channel_conversion", False))
    return {
        "inside_graph": False,
        # OpenMMLab reads images as BGR; the preprocessor swaps where the network wants RGB.
        "channel_order": "RGB" if swaps else "BGR",
        "mean": None if mean is None else [float(value) for value in mean.flatten()],
        "std": None if std is None else [float(value) for value in std.flatten()],
        "formula": "(pixel - mean) / std, pixels from 0 to 255, then (N, C, H, W) float32",
    }
