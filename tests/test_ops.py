"""MMCV's operators without compiling: known answers, and the same as MMCV's own where those are."""

import importlib.machinery
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import mmvanilla.ops  # takes the place of mmcv._ext where that is missing, and nowhere else
from tests.helpers import ROOT, relative_difference

mmcv_ops = pytest.importorskip("mmcv.ops")
EXT = importlib.import_module("mmcv._ext")
MODULES = [
    importlib.import_module(f"mmcv.ops.{name}")
    for name in (
        "deform_conv",
        "focal_loss",
        "modulated_deform_conv",
        "multi_scale_deform_attn",
        "nms",
        "roi_align",
        "roi_pool",
    )
]
compiled = pytest.mark.skipif(
    EXT is mmvanilla.ops or str(EXT.__file__).endswith(".py"),
    reason="compares with MMCV's compiled operators (make env OPS=compiled)",
)


@pytest.fixture
def ours(monkeypatch):
    """Let MMCV's functions call the stand-in, also where MMCV is compiled."""
    for module in MODULES:
        monkeypatch.setattr(module, "ext_module", mmvanilla.ops)


def with_both(monkeypatch, compute):
    """Return the results of a computation with compiled operators, and with the stand-in."""
    theirs = compute()
    for module in MODULES:
        monkeypatch.setattr(module, "ext_module", mmvanilla.ops)
    return theirs, compute()


def random_boxes(number: int, size: float = 100.0, dtype: torch.dtype = torch.float32) -> Tensor:
    corners = torch.rand(number, 2, 2, dtype=dtype) * size
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    return torch.cat([low, high + 1], dim=1)


def random_rois(number: int, images: int, dtype: torch.dtype = torch.float32) -> Tensor:
    index = torch.randint(images, (number, 1)).to(dtype)
    return torch.cat([index, random_boxes(number, 60, dtype) - 3], dim=1)


def outputs_and_gradients(function, *inputs: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    weights = torch.linspace(0.5, 1.5, output.numel()).view_as(output).to(output)
    return [output.detach(), *torch.autograd.grad(output, leaves, weights)]


def overlap(a: list[float], b: list[float], offset: float = 0) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.usefixtures("ours")
class TestKnownAnswers:
    """Against definitions that are written out here."""

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

    def test_nms_match_groups_boxes_with_the_best_one(self):
        boxes = torch.tensor([[0, 0, 4, 4], [9, 9, 9, 9], [0, 0, 4, 3], [20, 0, 24, 4]]).float()
        dets = torch.cat([boxes, torch.tensor([[0.5], [0.4], [0.9], [0.1]])], dim=1)
        groups = [group.tolist() for group in mmcv_ops.nms_match(dets, 0.5)]
        assert groups == [[2, 0], [1], [3]]

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

    def test_roi_pool_takes_the_largest_value_and_gives_it_the_gradient(self):
        image = torch.rand(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
        roi = torch.tensor([[0, 0, 2, 3, 5]], dtype=torch.float64)  # columns 0 to 3, rows 2 to 5
        found = mmcv_ops.roi_pool(image, roi, (2, 2), 1.0)
        cells = image[:, :, 2:6, 0:4]
        torch.testing.assert_close(found, F.max_pool2d(cells, 2))
        (gradient,) = torch.autograd.grad(found.square().sum(), image)
        (expected,) = torch.autograd.grad(F.max_pool2d(cells, 2).square().sum(), image)
        torch.testing.assert_close(gradient, expected)

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
        for ours, expected in zip(*both, strict=True):
            torch.testing.assert_close(ours, expected)

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
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_nothing_in_is_nothing_out(self):
        none, image = torch.zeros(0, 4), torch.rand(1, 3, 4, 4)
        for method in (mmcv_ops.nms, mmcv_ops.soft_nms):
            dets, indices = method(none, torch.zeros(0), 0.5)
            assert dets.shape == (0, 5) and len(indices) == 0
        rois = torch.zeros(0, 5)
        for pool in (mmcv_ops.roi_align, mmcv_ops.roi_pool):
            found = outputs_and_gradients(lambda x, pool=pool: pool(x, rois, 2, 1.0), image)
            assert found[0].shape == (0, 3, 2, 2) and not found[1].any()
        empty = torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)
        assert mmcv_ops.sigmoid_focal_loss(*empty, 2.0, 0.25, None, "sum") == 0


def check(function, *inputs: Tensor) -> None:
    assert torch.autograd.gradcheck(function, [tensor.requires_grad_() for tensor in inputs])


@compiled
class TestAgainstCompiled:
    """Outputs and gradients of MMCV's documented functions, with both kinds of operators."""

    @pytest.mark.parametrize("number", [0, 1, 300])
    @pytest.mark.parametrize("offset", [0, 1])
    def test_nms(self, monkeypatch, number, offset):
        boxes, scores = random_boxes(number), torch.rand(number)
        for threshold in (0.2, 0.5, 0.6):
            theirs, ours = with_both(
                monkeypatch, lambda t=threshold: mmcv_ops.nms(boxes, scores, t, offset)
            )
            assert all(map(torch.equal, theirs, ours))
            monkeypatch.undo()

    @pytest.mark.parametrize("threshold", [0.2, 1 / 3, 0.4, 0.5, 0.6, 0.7])
    def test_nms_where_overlaps_equal_the_threshold_and_scores_each_other(
        self, monkeypatch, threshold
    ):
        low = torch.randint(0, 12, (300, 2))
        boxes = torch.cat([low, low + torch.randint(1, 8, (300, 2))], dim=1).float()
        scores = torch.randint(0, 5, (300,)) / 5
        theirs, ours = with_both(monkeypatch, lambda: mmcv_ops.nms(boxes, scores, threshold))
        assert all(map(torch.equal, theirs, ours))

    def test_nms_of_many_classes(self, monkeypatch):
        boxes, scores, classes = random_boxes(3000), torch.rand(3000), torch.randint(1203, (3000,))
        settings = dict(type="nms", iou_threshold=0.5)
        theirs, ours = with_both(
            monkeypatch, lambda: mmcv_ops.batched_nms(boxes, scores, classes, settings)
        )
        assert all(map(torch.equal, theirs, ours))

    @pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
    @pytest.mark.parametrize("number", [0, 1, 300])
    def test_soft_nms(self, monkeypatch, method, number):
        boxes, scores = random_boxes(number), torch.rand(number)
        theirs, ours = with_both(
            monkeypatch, lambda: mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, 1e-3, method, 1)
        )
        assert torch.equal(theirs[1], ours[1])
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=0)

    @pytest.mark.parametrize("number", [0, 1, 300])
    def test_nms_match(self, monkeypatch, number):
        dets = torch.cat([random_boxes(number), torch.rand(number, 1)], dim=1)
        theirs, ours = with_both(monkeypatch, lambda: mmcv_ops.nms_match(dets, 0.5))
        assert [group.tolist() for group in theirs] == [group.tolist() for group in ours]

    @pytest.mark.parametrize("size", [(1, 1), (17, 13)])
    @pytest.mark.parametrize(
        ("dtype", "limit"), [(torch.float64, 0), (torch.float32, 0), (torch.float16, 1e-2)]
    )
    def test_roi_align(self, monkeypatch, size, dtype, limit):
        image, rois = torch.rand(2, 3, *size).to(dtype), random_rois(20, 2).to(dtype)
        for aligned, ratio in itertools.product((True, False), (0, 2)):
            rest = rois, (7, 5), 0.25, ratio, "avg", aligned
            theirs, ours = with_both(
                monkeypatch,
                lambda rest=rest: outputs_and_gradients(
                    lambda image: mmcv_ops.roi_align(image, *rest), image
                ),
            )
            for ours_one, theirs_one in zip(ours, theirs, strict=True):
                assert relative_difference(ours_one, theirs_one) <= limit
            monkeypatch.undo()

    @pytest.mark.parametrize("modulated", ["without", "with", "with, and a bias"])
    @pytest.mark.parametrize("size", [(3, 3), (9, 8)])
    @pytest.mark.parametrize(
        ("dtype", "limit"), [(torch.float64, 1e-14), (torch.float32, 1e-5), (torch.float16, 0.5)]
    )
    def test_deformable_convolution(self, monkeypatch, modulated, size, dtype, limit):
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

        theirs, ours = with_both(monkeypatch, lambda: outputs_and_gradients(function, *inputs))
        for ours_one, theirs_one in zip(ours, theirs, strict=True):
            assert relative_difference(ours_one, theirs_one) <= limit


@pytest.mark.gpu
@pytest.mark.usefixtures("ours")
class TestOnGpu:
    """The stand-in gives on a GPU what it gives on a CPU."""

    @pytest.mark.parametrize(
        "case", ["nms", "roi_align", "roi_pool", "focal", "deform", "modulated", "attention"]
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
            "roi_pool": (lambda x, r: mmcv_ops.roi_pool(x, r, 7, 0.25), [image], [rois]),
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


class TestRefused:
    def test_a_refused_operator_says_its_name_its_use_and_how_to_compile(self):
        with pytest.raises(NotImplementedError) as raised:
            mmvanilla.ops.nms_rotated(torch.zeros(1, 5))
        text = str(raised.value)
        assert "nms_rotated, an operator of MMCV for rotated boxes" in text
        assert "MMCV_WITH_OPS=1 pip install --no-build-isolation" in text

    def test_every_operator_of_mmcv_is_given_or_has_a_use(self):
        folder = Path(mmcv_ops.__file__).parent
        text = " ".join(path.read_text() for path in folder.glob("*.py"))
        names = set(re.findall(r"ext_module\.(\w+)", text))
        assert len(names) > 90
        for name in names:
            operator = getattr(mmvanilla.ops, name)
            if getattr(operator, "func", None) is mmvanilla.ops._refuse:
                with pytest.raises(NotImplementedError, match="(?!.*other networks)"):
                    operator()

    @pytest.mark.usefixtures("ours")
    def test_roi_align_by_maxima_is_refused(self):
        with pytest.raises(NotImplementedError, match="pool_mode='max'"):
            mmcv_ops.roi_align(torch.rand(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, "max")


@pytest.fixture
def without_ops(tmp_path):
    """Return the folder of an mmcv without compiled operators, and a way to run Python with it."""
    copy = tmp_path / "mmcv"
    copy.mkdir()
    for path in Path(importlib.import_module("mmcv").__file__).parent.iterdir():
        if not path.name.startswith("_ext"):
            (copy / path.name).symlink_to(path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    return copy, run


class TestTakingThePlace:
    def test_only_an_import_of_the_stand_in_does_and_only_where_nothing_is(self, without_ops):
        folder, run = without_ops
        script = """if True:
            import sys
            import mmvanilla
            try:
                import mmcv.ops
            except ModuleNotFoundError as error:
                print(error)
            import mmvanilla.ops
            import mmcv.ops
            print(sys.modules["mmcv._ext"] is mmvanilla.ops, mmcv.ops.get_compiler_version())
        """
        lines = run("-c", script).stdout.splitlines()
        assert lines[-2] == "No module named 'mmcv._ext'"
        assert lines[-1].startswith("True not compiled: torchvision ")

    def test_a_broken_compiled_module_keeps_its_own_error(self, without_ops):
        folder, run = without_ops
        (folder / f"_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library")
        script = """if True:
            import runpy
            import mmvanilla.ops
            try:
                runpy.run_module("mmvanilla.ops", run_name="__main__")
            except SystemExit as error:
                print(error)
            import mmcv.ops
        """
        done = run("-c", script)
        assert done.stdout.startswith("error: MMCV has compiled operators, in ")
        assert done.stderr.splitlines()[-1].startswith("ImportError: ")
        assert "_ext" in done.stderr.splitlines()[-1]

    def test_the_command_serves_programs_that_import_nothing_of_ours(self, without_ops):
        folder, run = without_ops
        done = run("-m", "mmvanilla.ops")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"writing {folder / '_ext.py'}\n"
        script = """if True:
            import sys, torch, mmcv.ops
            print(len(mmcv.ops.nms(torch.tensor([[0., 0, 2, 2]] * 2), torch.rand(2), 0.5)[1]))
            print("mmvanilla" in sys.modules, sys.modules["mmcv._ext"].__file__)
        """
        assert run("-c", script).stdout.splitlines() == ["1", f"False {folder / '_ext.py'}"]
        library = folder / f"_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}"
        library.touch()
        spec = importlib.machinery.PathFinder.find_spec("_ext", [str(folder)])
        assert spec is not None and spec.origin == str(library)
