"""MMCV's operators from torchvision, for an MMCV that was installed without compiling.

MMCV finds its compiled operators by name in one module, ``mmcv._ext``. Where there is none,
importing this module takes its place, and detectors run. A compiled ``mmcv._ext`` is never
replaced, and a broken one keeps its own error. An operator that is not here is refused when it is
called. ``python -m mmvanilla.ops`` copies this file to where the module is missing, for programs
that import nothing of ours before a toolbox; so it imports nothing of ours, either.

MMCV passes tensors by position, those that take the results among them, and settings by name. Here
an operator is a function of its inputs, and a row of positions.
"""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the kept boxes by falling score; sides are longer by the offset."""
    # Sorted as MMCV does, for the same order of equal scores; the threshold in single precision.
    order = scores.sort(descending=True).indices
    boxes = _wide(boxes[order]) + boxes.new_tensor([0, 0, offset, offset])
    ranks = torch.arange(len(order), 0, -1, device=boxes.device).to(boxes.dtype)
    return order[torchvision.ops.nms(boxes, ranks, float(torch.tensor(iou_threshold)))]


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, **settings: Any) -> Tensor:
    """Fill ``dets`` with the kept boxes and their lowered scores; return their indices."""
    longer = boxes + boxes.new_tensor([0, 0, settings["offset"], settings["offset"]])
    scores, left, kept = scores.clone(), torch.arange(len(boxes)), torch.arange(0)
    while len(left):
        best = left[scores[left].argmax(dim=0, keepdim=True)]
        dets[len(kept)] = torch.cat([boxes[best[0]], scores[best]])
        kept, left = torch.cat([kept, best]), left[left != best]
        overlap = torchvision.ops.box_iou(longer[best], longer[left])[0]
        if settings["method"] == 2:
            scores[left] *= torch.exp(-overlap.square() / settings["sigma"])
        else:
            near = overlap >= settings["iou_threshold"]
            scores[left] *= torch.where(near, (1 - overlap) * settings["method"], 1.0)
        left = left[scores[left] >= settings["min_score"]]
    return kept


def _roi_align(input: Tensor, rois: Tensor, **settings: Any) -> Tensor:
    if settings["pool_mode"] == 0:
        _refuse("roi_align with pool_mode='max'")
    cells = (settings[name] for name in ("spatial_scale", "aligned_height", "aligned_width"))
    samples = settings["sampling_ratio"], settings["aligned"]
    return torch.ops.torchvision.roi_align(input, rois, *cells, *samples)


def _focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    # A target beyond the classes is background: no class is right.
    right = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    away = torch.where(right, -logits, logits).clamp(min=-80)  # sure enough: all is finite there
    share = 1 - alpha + (2 * alpha - 1) * right.to(logits)
    loss = share * away.sigmoid() ** gamma * torch.nn.functional.softplus(away)
    return loss * weight[target, None] if len(weight) else loss


def _deform_conv(
    input: Tensor, offset: Tensor, weight: Tensor, *more: Tensor, **settings: int
) -> Tensor:
    if more:  # modulated
        names = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w")
    else:
        names = ("dH", "dW", "padH", "padW", "dilationH", "dilationW")
    sizes = [settings[name] for name in names]
    mask, bias = more or (None, None)
    bias = bias if settings.get("with_bias") else None
    pairs = sizes[:2], sizes[2:4], sizes[4:]
    return torchvision.ops.deform_conv2d(input, offset, weight, bias, *pairs, mask)


def _attend(
    value: Tensor, places: Tensor, weights: Tensor, shapes: Tensor, im2col_step: int
) -> Tensor:
    # MMCV has this one in PyTorch, too, and takes it on CPUs.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, places, weights)


def ms_deform_attn_forward(*tensors: Tensor, im2col_step: int) -> Tensor:
    """Add up the values at a few places of each level, by weights."""
    value, shapes, _, places, weights = tensors
    return _attend(value, places, weights, shapes, im2col_step)


def get_compiler_version() -> str:
    """Say in a report on the environment what stands in for MMCV's operators."""
    return f"not compiled: torchvision {torchvision.__version__}"


get_compiling_cuda_version = get_compiler_version

# An operator's function, the positions of its inputs, and that of its output.
_FORWARD: dict[str, Any] = {
    "roi_align_forward": (_roi_align, (0, 1), 2),
    "sigmoid_focal_loss_forward": (_focal_loss, (0, 1, 2), 3),
    "deform_conv_forward": (_deform_conv, (0, 2, 1), 3),
    "modulated_deform_conv_forward": (_deform_conv, (0, 4, 1, 5, 2), 6),
}
# The same, but for the output's gradient, and for each input that has one the position of its own.
# Where MMCV does not pass an input, its gradient does not depend on the values, but on the shape.
_BACKWARD: dict[str, Any] = {
    "roi_align_backward": (_roi_align, (4, 1), 0, {0: 4}),
    "sigmoid_focal_loss_backward": (_focal_loss, (0, 1, 2), None, {0: 3}),
    "deform_conv_backward_input": (_deform_conv, (0, 1, 5), 2, {0: 3, 1: 4}),
    "deform_conv_backward_parameters": (_deform_conv, (0, 1, 3), 2, {2: 3}),
    "modulated_deform_conv_backward": (
        *(_deform_conv, (0, 4, 1, 5, 2), 12),
        {0: 7, 1: 10, 2: 8, 3: 11, 4: 9},
    ),
    "ms_deform_attn_backward": (_attend, (0, 3, 4, 1), 5, {0: 6, 1: 7, 2: 8}),
}
# What the refused operators are for, and how their names begin.
_REFUSED = {
    "PISA": "nms_match",
    "rotated boxes": "active_ box_iou convex diff min_area nms_ points_in_p ri roi_align_r rotated",
    "3D": "assign ball chamf dyn furth gather group hard iou3d knn points_in_b roia roip sta three",
    "sparse convolution": "fused_ind get_ind ind",
    "text or lanes": "bezier contour line pixel",
    "images that are generated": "bias filtered fused_bias upfirdn",
    "videos": "corr tin",
    "guided anchoring": "masked",
    "border, deformable or precise pooling, or RoIPool": "border deform_roi prroi roi_pool",
    "FPN_CARAFE": "carafe",
    "PSANet": "psa",
    "what PyTorch does, too": "bbox softmax sync",
}


def _wide(tensor: Tensor) -> Tensor:
    """Return a tensor in single precision for half: CPUs have not all of these in half."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _run(name: str, *tensors: Tensor, **settings: Any) -> None:
    function, inputs, output = _FORWARD[name]
    tensors[output].copy_(function(*(_wide(tensors[index]) for index in inputs), **settings))


def _derive(name: str, *tensors: Tensor, **settings: Any) -> None:
    function, inputs, grad, results = _BACKWARD[name]
    values = [_wide(tensors[index]).detach() for index in inputs]
    leaves = [values[index].requires_grad_() for index in results]
    with torch.enable_grad():
        output = function(*values, **settings)
    scale = torch.ones_like(output) if grad is None else tensors[grad].to(output.dtype)
    found = torch.autograd.grad(output, leaves, scale, allow_unused=True)
    for index, gradient in zip(results.values(), found, strict=True):
        if gradient is not None:  # without a bias, MMCV passes an empty one
            tensors[index].copy_(gradient)


def _refuse(name: str, *_: object, **settings: object) -> None:
    uses = (use for use, starts in _REFUSED.items() if name.startswith(tuple(starts.split())))
    before = ""
    try:
        package = f"onedl-mmcv=={metadata.version('onedl-mmcv')}"
    except metadata.PackageNotFoundError:
        before, package = "pip uninstall -y mmcv-lite && ", "mmcv==2.1.0"
    raise NotImplementedError(
        f"{name}, an operator of MMCV for {next(uses, 'other networks')}, is not in torchvision. "
        f"With a C++ compiler, MMCV can be compiled: {before}pip install 'setuptools<81' wheel "
        "ninja psutil && MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --no-cache-dir "
        f"--force-reinstall {package}"
    )


def __getattr__(name: str) -> Callable[..., Any]:
    """Return an operator of the tables, or one that refuses: MMCV asks for all when imported."""
    if name.startswith("__"):
        raise AttributeError(name)
    run = _run if name in _FORWARD else _derive if name in _BACKWARD else _refuse
    return partial(run, name)


if __name__ == "mmvanilla.ops" and util.find_spec("mmcv._ext") is None:
    sys.modules["mmcv._ext"] = sys.modules[__name__]
elif __name__ == "__main__":
    found, mmcv = util.find_spec("mmcv._ext"), util.find_spec("mmcv")
    target = Path(str(mmcv and mmcv.origin)).with_name("_ext.py")
    if found is not None and found.origin != str(target):
        sys.exit(f"error: MMCV has compiled operators, in {found.origin}")
    print(f"writing {shutil.copyfile(__file__, target)}")
