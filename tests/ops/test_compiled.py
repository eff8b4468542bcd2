"""MMCV's functions and detectors, with its compiled operators and with the stand-in."""

import itertools

import mmcv.ops as mmcv_ops
import pytest
import torch
from torch import Tensor

from tests.helpers import relative_difference
from tests.ops.common import (
    needs_compiled,
    outputs_and_gradients,
    random_boxes,
    random_rois,
    with_both,
)

pytestmark = needs_compiled


class TestEach:
    """Outputs and gradients of MMCV's documented functions, with both kinds of operators."""

    @pytest.mark.parametrize("threshold", [0.2, 1 / 3, 0.4, 0.5, 0.6, 0.7])
    def test_nms_where_overlaps_equal_the_threshold_and_scores_each_other(self, threshold):
        low = torch.randint(0, 12, (300, 2))
        boxes = torch.cat([low, low + torch.randint(1, 8, (300, 2))], dim=1).float()
        scores = torch.randint(0, 5, (300,)) / 5
        theirs, ours = with_both(lambda: mmcv_ops.nms(boxes, scores, threshold))
        assert all(map(torch.equal, theirs, ours))

    def test_nms_of_many_classes(self):
        boxes, scores, classes = random_boxes(3000), torch.rand(3000), torch.randint(1203, (3000,))
        settings = dict(type="nms", iou_threshold=0.5)
        theirs, ours = with_both(lambda: mmcv_ops.batched_nms(boxes, scores, classes, settings))
        assert all(map(torch.equal, theirs, ours))

    @pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
    @pytest.mark.parametrize("number", [0, 1, 300])
    def test_soft_nms(self, method, number):
        boxes, scores = random_boxes(number), torch.rand(number)
        theirs, ours = with_both(
            lambda: mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, 1e-3, method, 1)
        )
        assert torch.equal(theirs[1], ours[1])
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=0)

    @pytest.mark.parametrize("size", [(1, 1), (17, 13)])
    @pytest.mark.parametrize(
        ("dtype", "limit"), [(torch.float64, 0), (torch.float32, 0), (torch.float16, 1e-2)]
    )
    def test_roi_align(self, size, dtype, limit):
        image, rois = torch.rand(2, 3, *size).to(dtype), random_rois(20, 2).to(dtype)
        for aligned, ratio in itertools.product((True, False), (0, 2)):
            rest = rois, (7, 5), 0.25, ratio, "avg", aligned
            theirs, ours = with_both(
                lambda rest=rest: outputs_and_gradients(
                    lambda image: mmcv_ops.roi_align(image, *rest), image
                ),
            )
            for ours_one, theirs_one in zip(ours, theirs, strict=True):
                assert relative_difference(ours_one.double(), theirs_one.double()) <= limit

    @pytest.mark.parametrize("modulated", ["without", "with", "with, and a bias"])
    @pytest.mark.parametrize("size", [(3, 3), (9, 8)])
    @pytest.mark.parametrize(
        ("dtype", "limit"), [(torch.float64, 1e-14), (torch.float32, 1e-5), (torch.float16, 2e-3)]
    )
    def test_deformable_convolution(self, modulated, size, dtype, limit):
        image, weight = torch.rand(2, 4, *size), torch.randn(6, 2, 3, 3)
        sizes = (2, 1, 1, 2, 2)
        rows, columns = ((side - 1) // 2 + 1 for side in size)
        inputs = [image, torch.randn(2, 2 * 2 * 9, rows, columns) * 2]
        if modulated != "without":
            inputs.append(torch.rand(2, 2 * 9, rows, columns))
        inputs.append(weight)
        if modulated == "with, and a bias":
            inputs.append(torch.randn(6))
        inputs = [tensor.to(dtype) for tensor in inputs]

        def function(*inputs: Tensor) -> Tensor:
            if modulated == "without":
                return mmcv_ops.deform_conv2d(*inputs, *sizes)
            bias = [None] if modulated == "with" else []
            return mmcv_ops.modulated_deform_conv2d(*inputs, *bias, *sizes)

        theirs, ours = with_both(lambda: outputs_and_gradients(function, *inputs))
        if dtype == torch.float16:  # MMCV adds up in half precision, and is off by a tenth
            theirs = outputs_and_gradients(function, *(tensor.double() for tensor in inputs))
        for ours_one, theirs_one in zip(ours, theirs, strict=True):
            assert relative_difference(ours_one.double(), theirs_one.double()) <= limit
