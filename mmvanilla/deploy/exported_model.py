"""Let a Runner test an exported model as if it were the config's own model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import PixelData

from mmvanilla.deploy.runner import Predictor
from mmvanilla.deploy.runner_runtimes import RUNTIMES


def is_exported(path: str) -> bool:
    """Tell by its suffix whether a file is an exported model."""
    return Path(path).suffix in RUNTIMES


def options_to_test(path: str) -> dict[str, Any]:
    """Return the options that put an exported file in the place of a config's model."""
    return {"model": dict(_delete_=True, type="ExportedModel", path=path), "load_from": None}


@MODELS.register_module()
class ExportedModel(BaseModel):
    """An exported model that predicts, behind the interface of the toolboxes' models.

    It reads each image from its file and prepares it by the settings in the exported file, as
    ``mmvanilla predict`` does; the inputs that the config's pipeline made are not used.

    Args:
        path: Path of the exported file.
        data_preprocessor: Ignored: the file's own settings count.
    """

    def __init__(self, path: str, data_preprocessor: Any = None) -> None:
        super().__init__()
        self.predictor = Predictor.load(path)

    def forward(self, inputs: Any, data_samples: Sequence[Any] = (), mode: str = "predict") -> Any:
        """Predict on the images that data samples name, and add the predictions to these."""
        if mode != "predict" or not all("img_path" in sample for sample in data_samples):
            raise ValueError("an exported model only predicts, and only on files (img_path)")
        for sample in data_samples:
            result = self.predictor(self.predictor.read(sample.img_path))
            ADD_RESULT[self.predictor.settings["task"]](sample, result)
        return list(data_samples)


def _classify(sample: Any, result: dict[str, Any]) -> None:
    sample.set_pred_score(torch.from_numpy(result["pred_scores"]))
    sample.set_pred_label(result["pred_label"])


def _segment(sample: Any, result: dict[str, Any]) -> None:
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(result["labels"])[None])


#: For each task the function that adds a prediction to a data sample.
ADD_RESULT: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "classification": _classify,
    "segmentation": _segment,
}
