"""What fuse_model returns is the model, for everything but the old uses of its result."""

import copy
import gc
import io
import pickle
import warnings
import weakref

import pytest
import torch
from mmengine.model import BaseModel, MMDistributedDataParallel, is_model_wrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.optim.swa_utils import AveragedModel

from mmvanilla import FuseResult, VanillaNet, fuse_model
from mmvanilla.apis.runners import release
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.fuse_result import with_old_uses
from tests.helpers import randomise

TINY = dict(dims=(8, 16), strides=(2,))


@pytest.fixture(autouse=True)
def _no_warning():
    """Only the old uses may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        yield


@pytest.fixture
def net():
    return randomise(VanillaNet(TINY)).eval()


@pytest.fixture
def fused(net):
    return fuse_model(net)


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 48)


def old(what):
    return pytest.warns(FutureWarning, match=f"fuse_model returns the fused model itself; {what}")


class TestOldUses:
    def test_model_and_num_fused(self, fused):
        with old("its .model is deprecated") as seen:
            assert fused.model is fused
        assert seen[0].filename == __file__
        with old("its .num_fused.*count_fusable"):
            assert fused.num_fused == 4

    def test_unpacking(self, net):
        with old("unpacking it") as seen:
            model, num_fused = fuse_model(net)
        assert seen[0].filename == __file__
        assert isinstance(model, VanillaNet) and model.deploy and num_fused == 4

    def test_indexing(self, fused):
        for index, expected in {0: fused, 1: 4, -2: fused, -1: 4}.items():
            with old("indexing it"):
                assert fused[index] is expected or fused[index] == expected
        with old("indexing it"), pytest.raises(IndexError):
            fused[2]

    def test_of_a_model_that_was_changed_in_place(self, net):
        assert fuse_model(net, inplace=True) is net
        with old("its .num_fused"):
            assert net.num_fused == 4

    def test_of_a_model_that_was_fused_twice(self, fused):
        with pytest.warns(UserWarning, match="nothing to fuse"):
            assert fuse_model(fused, inplace=True) is fused
        with old("its .num_fused"):
            assert fused.num_fused == 0

    def test_the_name_of_the_old_result_is_still_there(self, fused):
        assert isinstance(fused, FuseResult)


class TestOwnUses:
    def test_of_containers(self):
        sequence = fuse_model(nn.Sequential(ConvPair(3, 4, 1), nn.ReLU()).eval())
        assert type(sequence[0]) is nn.Conv2d and len(list(sequence)) == 2
        table = fuse_model(nn.ModuleDict(dict(model=ConvPair(3, 4, 1))).eval())
        assert list(table) == ["model"] and type(table["model"]) is nn.Conv2d
        assert type(table.model) is nn.Conv2d

    def test_of_a_model_inside_of_the_model(self):
        class Wrapper(nn.Module):
            num_fused = "mine"

            def __init__(self):
                super().__init__()
                self.model = VanillaNet(TINY)

        wrapper = fuse_model(Wrapper().eval())
        assert isinstance(wrapper.model, VanillaNet) and wrapper.num_fused == "mine"

    def test_attributes_that_are_missing_still_are(self, fused):
        with pytest.raises(AttributeError, match="'VanillaNet' object has no attribute 'neck'"):
            _ = fused.neck

    def test_of_a_class_that_cannot_be_extended(self):
        class Final(nn.Module):
            def __init_subclass__(cls):
                raise TypeError("this class is final")

        class Meta(type):
            def __new__(cls, name, bases, content):
                if bases and nn.Module not in bases:
                    raise TypeError("no subclass")
                return super().__new__(cls, name, bases, content)

        class Closed(nn.Module, metaclass=Meta):
            pass

        assert with_old_uses(Closed(), 1).__class__ is Closed
        with old("its .num_fused"):
            assert with_old_uses(Final(), 3).num_fused == 3


class TestUnaffected:
    def test_names_and_types(self, net, fused):
        assert fused.__class__ is VanillaNet and isinstance(fused, VanillaNet)
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            assert getattr(type(fused), name) == getattr(VanillaNet, name)
        net.switch_to_deploy()
        assert repr(fused) == repr(net) and dir(fused) == dir(net)
        assert list(fused.state_dict()) == list(net.state_dict())
        assert vars(fused).keys() == vars(net).keys()

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_pickles_name_the_original_class(self, fused, images, protocol):
        text = pickle.dumps(fused, protocol)
        assert b"fuse_result" not in text
        again = pickle.loads(text)
        assert type(again) is VanillaNet and isinstance(fused, FuseResult)
        assert torch.equal(again(images)[-1], fused(images)[-1])

    def test_torch_save(self, fused):
        file = io.BytesIO()
        torch.save(fused, file)
        file.seek(0)
        assert type(torch.load(file, weights_only=False)) is VanillaNet

    def test_copies_are_of_the_original_class(self, fused):
        for twin in (copy.deepcopy(fused), copy.copy(fused), AveragedModel(fused).module):
            assert type(twin) is VanillaNet
        with old("its .num_fused"):
            assert fused.num_fused == 4

    def test_a_copy_method_of_the_models_own_is_used(self):
        class Own(nn.Module):
            def __deepcopy__(self, memo):
                return type(self)()

        assert type(copy.deepcopy(with_old_uses(Own(), 1))) is Own

    def test_jit(self, fused, images):
        traced = torch.jit.trace(fused, images)
        torch.testing.assert_close(traced(images)[-1], fused(images)[-1])
        scripted = torch.jit.script(with_old_uses(nn.Conv2d(3, 4, 1), 1))
        assert scripted(images).shape == (2, 4, 32, 48)

    @pytest.mark.filterwarnings("ignore::FutureWarning:torch")
    def test_fx(self, fused, images):
        graph = torch.fx.symbolic_trace(fused)
        assert type(graph).__name__ == "VanillaNet"
        torch.testing.assert_close(graph(images)[-1], fused(images)[-1])
        again = with_old_uses(graph, 1)
        assert torch.equal(copy.deepcopy(again)(images)[-1], graph(images)[-1])

    @torch.no_grad()
    @pytest.mark.filterwarnings("ignore::FutureWarning:torch")
    def test_compile_and_export_find_one_graph(self, fused, images):
        assert torch._dynamo.explain(fused)(images).graph_break_count == 0
        compiled = torch.compile(fused, backend="eager", fullgraph=True)
        assert torch.equal(compiled(images)[-1], fused(images)[-1])
        exported = torch.export.export(fused, (images,))
        run = exported.module() if hasattr(exported, "module") else exported
        torch.testing.assert_close(run(images)[-1], fused(images)[-1])

    @torch.no_grad()
    def test_functional_calls(self, fused, images):
        found = functional_call(fused, dict(fused.named_parameters()), (images,))
        assert torch.equal(found[-1], fused(images)[-1])
        params, _ = stack_module_state([fused, fuse_model(VanillaNet(TINY).eval())])
        assert params["stem.conv.bias"].shape == (2, 8)

    def test_wrappers(self, fused, images, tmp_path):
        parallel = nn.DataParallel(fused)
        assert parallel.module is fused and not is_model_wrapper(fused)
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
        )
        try:
            wrapped = nn.parallel.DistributedDataParallel(fused)
            wrapped(images)[-1].sum().backward()
            assert fused.stem.conv.weight.grad is not None
            assert MMDistributedDataParallel(fused).module is fused
        finally:
            torch.distributed.destroy_process_group()

    def test_an_attribute_of_the_old_names_can_be_set(self):
        class Plain(nn.Module):
            pass

        module = with_old_uses(Plain(), 1)
        module.__class__ = nn.Identity
        assert type(module) is nn.Identity

    def test_nothing_keeps_the_model(self, net):
        fused = fuse_model(net)
        kept = weakref.ref(fused)
        del fused
        gc.collect()
        assert kept() is None


class Trainable(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, mode="tensor"):
        out = self.backbone(inputs)[-1]
        return dict(loss=out.square().mean()) if mode == "loss" else [out]


def test_mmengines_runner_trains_and_saves_it(tmp_path):
    model = fuse_model(Trainable(dict(type="VanillaNet", arch=TINY)).eval())
    before = model.backbone.stem.conv.weight.detach().clone()
    runner = Runner(
        model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=[torch.randn(3, 32, 32) for _ in range(4)],
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=lambda images: dict(inputs=torch.stack(images)),
            batch_size=2,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        custom_hooks=[dict(type="EMAHook")],
        experiment_name="fuse_result",
    )
    runner.train()
    release(runner)
    assert runner.model is model
    assert not torch.equal(model.backbone.stem.conv.weight, before)
    saved = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    assert list(saved["state_dict"]) == list(model.state_dict())
