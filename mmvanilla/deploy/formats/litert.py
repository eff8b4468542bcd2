"""LiteRT (TensorFlow Lite), for Android and microcontrollers; int8 by AI Edge Quantizer."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmvanilla.deploy.exporting import Format, Job, QuantizeJob
from mmvanilla.deploy.runner_runtimes import open_litert


def write_litert(job: Job, path: Path) -> None:
    """Write a ``.tflite`` file."""
    import litert_torch

    litert_torch.convert(job.exportable.module, (job.example[:1],)).export(str(path))


def quantize_litert(job: QuantizeJob, path: Path) -> None:
    """Make an int8 file; ``keep_float`` must be empty."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import Quantizer, calibrator, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    job.check_layers()  # none can be chosen
    steps = recipe.static_wi8_ai8()
    for step in steps if not job.per_channel else ():
        step["op_config"]["weight_tensor_config"]["granularity"] = "TENSORWISE"
    for kind in ("INPUT", "OUTPUT", "SOFTMAX"):  # scores of int8 would be steps of 1/256
        steps.append(dict(regex=".*", operation=kind, algorithm_key="no_quantize"))
    ((signature, ends),) = Interpreter(str(job.model)).get_signature_list().items()
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(steps)
    # Its Quantizer would take a moving average, in which the last images count most.
    ranges = calibrator.Calibrator(str(job.model), qsv_update_func=qsv_utils.min_max_update)
    ranges.calibrate({signature: [{ends["inputs"][0]: image} for image in job.images]}, manager)
    options = dict(enable_progress_bar=False, enable_progress_report=False)
    Quantizer(str(job.model), steps).quantize(ranges.get_model_qsvs(), str(path), **options)
    shutil.copy(f"{job.model}.json", f"{path}.json")


LITERT = Format(
    "litert",
    ".tflite",
    "LiteRT",
    ("litert_torch", "ai_edge_litert"),
    write_litert,
    open_litert,
    companions=(".tflite.json",),
    has_open_size=False,
    has_open_batch=False,
    quantize=quantize_litert,
    quantize_packages=("ai_edge_litert", "ai_edge_quantizer"),
)
