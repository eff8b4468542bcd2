"""The stand-in for MMCV's compiled operators against definitions that are written out here."""

import mmcv.ops as mmcv_ops
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.ops.common import MODULES, ours, outputs_and_gradients, random_boxes, random_rois

pytestmark = pytest.mark.usefixtures(ours.__name__)


def overlap(a: list[float], b: list[float], offset: float = 0) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


class TestKnownAnswers:
    @pytest.mark.parametrize("offset", [0, 1])
    def test_nms_keeps_what_no_better_kept_box_overlaps(self, offset):
        boxes, scores = random_boxes(60, 30), torch.rand(60)
        kept: list[int] = []
        for index in scores.argsort(descending=True).tolist():
            box = boxes[index].tolist()
            if all(overlap(box, boxes[other].tolist(), offset) <= 0.4 for other in kept):
                kept.append(index)
        dets, found = mmcv_ops.nms(boxes, scores, 0.4, offset)
        assert found.tolist() == kept
        assert 1 < len(kept) < 60
        torch.testing.assert_close(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept])

    @pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
    def test_soft_nms_lowers_the_scores_of_what_overlaps(self, method):
        boxes, scores = random_boxes(40, 30), torch.rand(40)
        left, expected = dict(enumerate(scores.double().tolist())), []
        while left:
            best = max(left, key=lambda index: left[index])
            expected.append((best, left.pop(best)))
            for index in list(left):
                shared = overlap(boxes[best].tolist(), boxes[index].tolist(), 1)
                if method == "gaussian":
                    left[index] *= torch.tensor(-(shared**2) / 0.5).exp().item()
                elif shared >= 0.3:
                    left[index] *= 0 if method == "naive" else 1 - shared
                if left[index] < 0.05:
                    del left[index]
        dets, found = mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, 1)
        assert found.tolist() == [index for index, _ in expected]
        torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in expected]))
        torch.testing.assert_close(dets[:, :4], boxes[found])

    @pytest.mark.parametrize("aligned", [True, False])
    @pytest.mark.parametrize("ratio", [0, 2])
    def test_roi_align_of_a_plane_has_its_values_at_the_middles(self, aligned, ratio):
        rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
        plane = (3 * columns - 2 * rows + 1).double()[None, None]
        roi = torch.tensor([[0, 8, 16, 32, 40]], dtype=torch.float64)  # 6 x 6 on the map
        found = mmcv_ops.roi_align(plane, roi, (2, 3), 0.25, ratio, "avg", aligned)
        shift = 0.5 if aligned else 0
        middles_x = 2 - shift + 6 / 3 * (torch.arange(3) + 0.5)
        middles_y = 4 - shift + 6 / 2 * (torch.arange(2) + 0.5)
        expected = 3 * middles_x[None, :] - 2 * middles_y[:, None] + 1
        torch.testing.assert_close(found[0, 0], expected.double())

    @pytest.mark.parametrize("weighted", [False, True])
    def test_sigmoid_focal_loss_is_its_formula(self, weighted):
        logits = torch.randn(50, 7, dtype=torch.float64) * 4
        target = torch.randint(8 - weighted, (50,))  # 7 is background
        weight = torch.rand(7, dtype=torch.float64) if weighted else None
        right = F.one_hot(target, 8)[:, :7].bool()

        def formula(logits: Tensor) -> Tensor:
            share = torch.where(right, logits, -logits).sigmoid()  # of what is right
            loss = -torch.where(right, 0.3, 0.7) * (1 - share) ** 1.5 * share.log()
            return loss * (weight[target, None] if weighted else 1)

        def found(logits: Tensor) -> Tensor:
            return mmcv_ops.sigmoid_focal_loss(logits, target, 1.5, 0.3, weight, "none")

        both = [outputs_and_gradients(function, logits) for function in (found, formula)]
        for one, expected in zip(*both, strict=True):
            torch.testing.assert_close(one, expected)

    def test_sigmoid_focal_loss_of_sure_predictions_is_finite(self):
        logits, target = torch.tensor([[20.0, 120.0], [-120.0, -20.0]]), torch.tensor([0, 1])
        loss = lambda x: mmcv_ops.sigmoid_focal_loss(x, target, 0.5, 0.25, None, "none")  # noqa: E731
        assert all(each.isfinite().all() for each in outputs_and_gradients(loss, logits))

    def test_deformable_convolution_without_shifts_is_a_convolution(self):
        image, weight = torch.randn(2, 4, 9, 8).double(), torch.randn(6, 2, 3, 3).double()
        expected = F.conv2d(image, weight, None, (2, 1), (1, 0), (1, 2), 2)
        rows, columns = expected.shape[-2:]
        still = torch.zeros(2, 2 * 18, rows, columns).double()
        found = mmcv_ops.deform_conv2d(image, still, weight, (2, 1), (1, 0), (1, 2), 2, 2)
        torch.testing.assert_close(found, expected)
        half, bias = torch.full((2, 18, rows, columns), 0.5).double(), torch.randn(6).double()
        sizes = ((2, 1), (1, 0), (1, 2), 2, 2)
        found = mmcv_ops.modulated_deform_conv2d(image, still, half, weight, bias, *sizes)
        torch.testing.assert_close(found, expected / 2 + bias[:, None, None])

    def test_deformable_convolution_reads_row_shifts_before_column_shifts(self):
        image, weight = torch.randn(1, 1, 6, 6), torch.ones(1, 1, 1, 1)
        shift = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 6, 6).contiguous()
        found = mmcv_ops.deform_conv2d(image, shift, weight)
        torch.testing.assert_close(found[..., :5, :4], image[..., 1:, 2:])
        assert not found[..., 5, :].any() and not found[..., 4:].any()

    def test_gradients_are_those_of_the_outputs(self):
        torch.manual_seed(1)
        image = torch.randn(1, 2, 5, 5).double()
        offset, mask = torch.rand(1, 8, 5, 5).double() * 0.8 + 0.1, torch.rand(1, 4, 5, 5).double()
        weight, bias = torch.randn(2, 2, 2, 2).double(), torch.randn(2).double()
        offset, mask = offset[..., :4, :4], mask[..., :4, :4]
        check(lambda *inputs: mmcv_ops.deform_conv2d(*inputs), image, offset, weight)
        check(mmcv_ops.modulated_deform_conv2d, image, offset, mask, weight, bias)
        check(mmcv_ops.modulated_deform_conv2d, image, offset, mask, weight)
        rois = torch.tensor([[0, 0.3, 0.4, 4.1, 3.7]]).double()
        check(lambda image: mmcv_ops.roi_align(image, rois, 2, 1.0, 2), image)

    def test_attention_is_that_of_mmcv_in_pytorch(self):
        module = MODULES[3]
        shapes = torch.tensor([[4, 3], [2, 2]])
        values = torch.randn(2, 16, 2, 4).double()
        places, weights = torch.rand(2, 5, 2, 2, 3, 2).double(), torch.rand(2, 5, 2, 2, 3).double()
        starts = torch.tensor([0, 12])
        apply = module.MultiScaleDeformableAttnFunction.apply
        found = outputs_and_gradients(
            lambda v, p, w: apply(v, shapes, starts, p, w, 64), values, places, weights
        )
        expected = outputs_and_gradients(
            lambda v, p, w: module.multi_scale_deformable_attn_pytorch(v, shapes, p, w),
            *(values, places, weights),
        )
        for one, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(one, wanted)

    def test_nothing_in_is_nothing_out(self):
        none, image = torch.zeros(0, 4), torch.rand(1, 3, 4, 4)
        for method in (mmcv_ops.nms, mmcv_ops.soft_nms):
            dets, indices = method(none, torch.zeros(0), 0.5)
            assert dets.shape == (0, 5) and len(indices) == 0
        rois = torch.zeros(0, 5)
        found = outputs_and_gradients(lambda x: mmcv_ops.roi_align(x, rois, 2, 1.0), image)
        assert found[0].shape == (0, 3, 2, 2) and not found[1].any()
        empty = torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)
        assert mmcv_ops.sigmoid_focal_loss(*empty, 2.0, 0.25, None, "sum") == 0


def check(function, *inputs: Tensor) -> None:
    assert torch.autograd.gradcheck(function, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.gpu
class TestOnGpu:
    """The stand-in gives on a GPU what it gives on a CPU."""

    @pytest.mark.parametrize(
        "case", ["nms", "roi_align", "focal", "deform", "modulated", "attention"]
    )
    def test_same_as_on_a_cpu(self, case):
        shapes, starts = torch.tensor([[4, 3], [2, 2]]), torch.tensor([0, 12])
        attend = MODULES[3].MultiScaleDeformableAttnFunction.apply
        image, rois, boxes = torch.rand(2, 4, 9, 8), random_rois(20, 2), random_boxes(200)
        scores, target = torch.rand(200), torch.randint(8, (50,))
        shift, mask = torch.randn(2, 18, 9, 8), torch.rand(2, 9, 9, 8)
        weight = torch.randn(6, 4, 3, 3)
        function, inputs, fixed = {
            "nms": (lambda boxes, scores: mmcv_ops.nms(boxes, scores, 0.5)[0], [boxes, scores], []),
            "roi_align": (lambda x, r: mmcv_ops.roi_align(x, r, 7, 0.25), [image], [rois]),
            "focal": (mmcv_ops.sigmoid_focal_loss, [torch.randn(50, 7)], [target]),
            "deform": (lambda *x: mmcv_ops.deform_conv2d(*x, 1, 1), [image, shift, weight], []),
            "modulated": (
                lambda *x: mmcv_ops.modulated_deform_conv2d(*x, None, 1, 1),
                [image, shift, mask, weight],
                [],
            ),
            "attention": (
                lambda v, p, w, s, i: attend(v, s, i, p, w, 64),
                [torch.rand(2, 16, 2, 4), torch.rand(2, 5, 2, 2, 3, 2), torch.rand(2, 5, 2, 2, 3)],
                [shapes, starts],
            ),
        }[case]
        results = [
            outputs_and_gradients(
                lambda *x, device=device: function(*x, *(one.to(device) for one in fixed)),
                *(tensor.to(device) for tensor in inputs),
            )
            for device in ("cpu", "cuda")
        ]
        for on_cpu, on_gpu in zip(*results, strict=True):
            torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-5)
