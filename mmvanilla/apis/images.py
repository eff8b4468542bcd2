"""Image files and how a model reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor, nn

from mmvanilla.apis.config import tested_dataset, use_scope


class ImageReader:
    """Turns image files into the input of a model, as the test pipeline of its config does.

    Raises:
        ValueError: The config has no test pipeline.
    """

    def __init__(self, model: nn.Module, cfg: Config) -> None:
        self.model: Any = model
        self.cfg = cfg
        dataset = tested_dataset(cfg)
        if "pipeline" not in dataset:
            raise ValueError(
                f"{cfg.filename or 'the config'} has no test_dataloader.dataset.pipeline, which "
                "loads the images; add one"
            )
        self.steps = [s for s in dataset["pipeline"] if "Annotations" not in str(s["type"])]

    def batch(self, path: str | Path) -> tuple[Tensor, list[Any]]:
        """Load an image as the network's input, (1, C, H, W), and the toolbox's data samples.

        Raises:
            ValueError: The file cannot be read as an image.
        """
        use_scope(self.cfg)
        try:
            sample = Compose(self.steps)(dict(img_path=str(path), img_id=0, img=None))
        # The toolboxes go on without a picture and fail somewhere behind.
        except (AssertionError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as an image: {error}") from error
        batch = self.model.data_preprocessor(pseudo_collate([sample]), False)
        return batch["inputs"], batch["data_samples"]


def describe_preprocessing(model: nn.Module) -> dict[str, Any]:
    """Describe for JSON how the model's data preprocessor makes the network's input of an image.

    ``mean`` and ``std`` of each channel are None without normalisation.
    """
    preprocessor = getattr(model, "data_preprocessor", None)
    mean, std = getattr(preprocessor, "mean", None), getattr(preprocessor, "std", None)
    swaps = getattr(preprocessor, "to_rgb", getattr(preprocessor, "_channel_conversion", False))
    return {
        "inside_graph": False,
        # OpenMMLab reads images as BGR; the preprocessor converts them if the network needs RGB.
        "channel_order": "RGB" if swaps else "BGR",
        "mean": None if mean is None else [float(value) for value in mean.flatten()],
        "std": None if std is None else [float(value) for value in std.flatten()],
        "not_described": "steps of the test pipeline, which may normalise, too",
        "formula": "(pixel - mean) / std, pixels from 0 to 255, then (N, C, H, W) float32",
    }
