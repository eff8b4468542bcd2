"""Export whole detectors to ONNX, with MMDeploy.

MMDeploy rewrites the parts that an exporter cannot trace (proposals, NMS, RoI align); for two-stage
detectors ``detector_rewriters.py`` replaces those of its rewriters that give other results than
PyTorch. Its last release was written for older versions of torch and Python; while it runs, this
module restores what newer ones changed.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.images import ImageReader, describe_preprocessing
from mmvanilla.apis.model import load_model
from mmvanilla.checkpoints.writing import appearing_together, check_writable
from mmvanilla.deploy.exporting import DEFAULT_TOLERANCE, require_packages
from mmvanilla.deploy.runner_metadata import refusal
from mmvanilla.deploy.runner_runtimes import open_onnx
from mmvanilla.models.fusion import fuse_model
from mmvanilla.version import __version__
from projects.mmdeploy.detector_rewriters import exact_two_stage, require_plain_nms
from projects.mmdeploy.detector_runner import describe_detector
from projects.mmdeploy.mmdeploy_recipe import FILE, make_recipe, nms_of

# MMDeploy's other requirements are installed already, or pinned to releases that conflict with
# ours.
INSTALL = "pip install --no-deps mmdeploy==1.3.1 aenum dill multiprocess"
#: This share of the confident detections of both sides must have an equal one on the other side.
#: Not all: where two boxes overlap by just the threshold of NMS, rounding decides which one stays.
REQUIRED_AGREEMENT = 0.95
DEFAULT_SCORE = 0.3


@dataclass(frozen=True)
class DetectorReport:
    """The result of :func:`export_detector`.

    Attributes:
        path: Path of the file that was written.
        output_names: Names of the graph's outputs.
        exact: Number of confident detections of both sides with an equal detection on the other
            side, within tolerance.
        compared: Number of confident detections of both sides.
        size_bytes: Size of the file in bytes.
        tolerance: Difference up to which detections are equal.
        runner_refuses: Why ``detector_runner`` will refuse the file; None if it serves
            it.
    """

    path: Path
    output_names: tuple[str, ...]
    exact: int
    compared: int
    size_bytes: int
    tolerance: float
    runner_refuses: str | None


def export_detector(
    cfg: Config,
    checkpoint: str,
    out: str | Path,
    images: Sequence[Path],
    *,
    score: float = DEFAULT_SCORE,
    tolerance: float = DEFAULT_TOLERANCE,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> DetectorReport:
    """Fuse a detector, export it with its post-processing, and write it if it gives equal results.

    The graph takes normalised images, (1, 3, H, W) with any H and W, and gives ``dets`` (1, N, 5:
    box and score), ``labels`` (1, N) and, of an instance segmenter, ``masks`` (1, N, 28, 28 or
    what its head has). An entry whose score is 0 only fills up. Boxes end at the border of the
    input, padding included, since a graph does not know where the image ends in it.

    Args:
        cfg: Config of the detector.
        checkpoint: Path or address of the detector's weights.
        out: Path of the ``.onnx`` file to write.
        images: Paths of images to compare on; at least one of them must show an object.
        score: Score above which detections are compared.
        tolerance: Largest difference of scores, and of boxes relative to the image's size.
        overwrite: Whether to replace existing files. Default: False.
        progress: Function that is called with the name of each step.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
        ImportError: MMDeploy, onnx or onnxruntime is not installed.
        ValueError: The config is not a detector's, its NMS is not the plain one, or ``out`` is an
            input.
        RuntimeError: ONNX Runtime disagrees with PyTorch, or nothing was detected.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise ValueError(f"whole detectors are written as .onnx, found {out}")
    check_writable([out], overwrite, (checkpoint, *images))
    if cfg.get("default_scope") != "mmdet":
        raise ValueError(
            f"default_scope is {cfg.get('default_scope')!r}, expected 'mmdet'; give the config of "
            "a detector"
        )
    for where, test_cfg in nms_of(cfg):
        require_plain_nms(test_cfg, where)
    require_packages("onnx", "onnxruntime")
    require_mmdeploy()
    progress("fusing")
    model, meta = load_model(cfg, checkpoint)
    fused = fuse_model(model)
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, "fused.pth")
        torch.save(dict(meta=meta, state_dict=fused.state_dict()), weights)
        progress("exporting, by MMDeploy")
        has_masks = getattr(getattr(fused, "roi_head", None), "mask_head", None) is not None
        recipe = make_recipe(cfg, has_masks)
        fused_cfg = deploy_config(cfg)
        fused_cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline  # where MMDeploy looks
        _run_mmdeploy(str(images[0]), folder, recipe, fused_cfg, weights)
        path = os.path.join(folder, FILE)
        progress("comparing")
        exact, total = compare_detections(path, fused, cfg, images, score, tolerance)
        if total == 0:
            raise RuntimeError(
                f"nothing was detected above {score:g} in {len(images)} images, so nothing could "
                "be compared and nothing was written; give images with objects"
            )
        if exact < REQUIRED_AGREEMENT * total:
            raise RuntimeError(
                f"only {exact} of {total} detections above {score:g} are equal in PyTorch and ONNX "
                f"Runtime within {tolerance:g}, fewer than {REQUIRED_AGREEMENT:.0%}; "
                "nothing was written"
            )
        described = describe_detector(fused, cfg, meta)
        names = tuple(recipe["onnx_config"]["output_names"])
        with appearing_together([out], overwrite) as aside:
            _copy_with_metadata(path, aside[0], fused, names, described)
    size = out.stat().st_size
    return DetectorReport(out, names, exact, total, size, tolerance, refusal(described))


def _copy_with_metadata(
    path: str, out: Path, model: nn.Module, names: Sequence[str], described: dict[str, str]
) -> None:
    import onnx

    graph = onnx.load(path)
    entries = {
        "mmvanilla_version": __version__,
        "part": "detector",
        "outputs": ",".join(names),
        "input_size": "any",
        "preprocessing": json.dumps(describe_preprocessing(model)),
        **described,
    }
    onnx.helper.set_model_props(graph, entries)
    onnx.save(graph, str(out))


def require_mmdeploy() -> None:
    """Check that MMDeploy is installed.

    Raises:
        ImportError: MMDeploy, or something it needs, is not installed.
    """
    if sys.version_info >= (3, 13):
        raise ImportError("MMDeploy 1.3.1 cannot export on Python 3.13; take 3.10 to 3.12")
    try:
        importlib.import_module("mmdeploy.apis")
    except ImportError as error:
        raise ImportError(
            f"whole detectors are exported by MMDeploy, and {error.name} is not installed; run "
            f"`{INSTALL}`, or export the backbone alone"
        ) from error


@contextmanager
def _torch_as_mmdeploy_knows_it() -> Iterator[None]:
    original = torch.onnx.export
    opset9 = importlib.import_module("torch.onnx.symbolic_opset9")
    lacks_cast = not hasattr(opset9, "_cast_Long")
    if "dynamo" in inspect.signature(original).parameters:
        # MMDeploy passes dynamic_axes, which only the TorchScript exporter understands.
        torch.onnx.export = functools.partial(original, dynamo=False)
    if lacks_cast:
        int64 = 7  # in ONNX's list of types
        opset9._cast_Long = lambda g, x, non_blocking=False: g.op("Cast", x, to_i=int64)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.export = original
        if lacks_cast:
            del opset9._cast_Long


def _run_mmdeploy(image: str, folder: str, recipe: Config, cfg: Config, weights: str) -> None:
    torch2onnx = importlib.import_module("mmdeploy.apis").torch2onnx
    with warnings.catch_warnings(), _torch_as_mmdeploy_knows_it(), exact_two_stage():
        warnings.simplefilter("ignore")
        torch2onnx(image, folder, FILE, recipe, cfg, weights, device="cpu")


def compare_detections(
    path: str | Path,
    model: nn.Module,
    cfg: Config,
    images: Sequence[Path],
    score: float,
    tolerance: float,
) -> tuple[int, int]:
    """Look for a partner on the other side for each confident detection of either side.

    Args:
        path: Path of the ``.onnx`` file.
        model: Detector in eval mode.
        cfg: Config of the detector, for its test pipeline.
        images: Paths of images to detect in.
        score: Score above which a detection is confident; a partner may have any score.
        tolerance: Largest difference of a partner's score, and of its box relative to the image's
            size.

    Returns:
        Two numbers of confident detections: those with a partner of the same class within
        tolerance, and all. Masks are not compared.
    """
    run, _ = open_onnx(Path(path))
    reader = ImageReader(model, cfg)
    exact, total = 0, 0
    for image in images:
        inputs, samples = reader.batch(image)
        # The graph sees no more than its input, so it clips boxes to that, padding included.
        samples[0].set_metainfo(dict(img_shape=tuple(inputs.shape[-2:])))
        with torch.no_grad():
            found = model(inputs, samples, mode="predict")[0].pred_instances
        dets, labels = run(inputs.numpy())[:2]
        # MMDetection's boxes are in pixels of the file, the graph's in pixels of the network's
        # input.
        scale = np.array(tuple(samples[0].metainfo.get("scale_factor", (1.0, 1.0))) * 2)
        size = max(inputs.shape[-2:])
        columns = [found.bboxes.numpy() * scale / size, found.scores.numpy()[:, None]]
        ours = np.concatenate([*columns, found.labels.numpy()[:, None]], axis=1)
        columns = [dets[0, :, :4] / size, dets[0, :, 4:], labels[0][:, None]]
        theirs = np.concatenate(columns, axis=1)
        for these, others in ((ours, theirs), (theirs, ours)):
            confident = these[these[:, 4] > score]
            total += len(confident)
            # The indices of two classes differ by at least 1, which is above any tolerance.
            within = np.abs(confident[:, None] - others[None]).max(axis=2) <= tolerance
            exact += int(within.any(axis=1).sum())
    return exact, total
