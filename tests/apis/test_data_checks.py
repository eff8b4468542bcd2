"""Data that is missing or does not fit is found before the model is built."""

import json
import re
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from mmvanilla.apis.data_checks import require_data
from mmvanilla.datasets.shapes import make_shapes
from tests.helpers import CONFIGS

WRAPPERS = {
    "none": lambda dataset: dataset,
    "repeat": lambda dataset: dict(type="RepeatDataset", times=2, dataset=dataset),
    "concat": lambda dataset: dict(type="ConcatDataset", datasets=[dataset]),
    "balanced": lambda dataset: dict(
        type="ClassBalancedDataset",
        oversample_thr=0.1,
        dataset=dict(type="RepeatDataset", times=1, dataset=dataset),
    ),
    "folds": lambda dataset: dict(type="KFoldDataset", num_splits=3, dataset=dataset),
    "list": lambda dataset: [dataset],
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    make_shapes(root, num_train=6, num_val=6, image_size=32)
    return root


@pytest.fixture
def data(drawn, tmp_path, monkeypatch) -> Path:
    """The shapes, where the configs expect them and where a test may spoil them."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(drawn, tmp_path / "data" / "shapes"))


def check(name: str, change=lambda cfg: None) -> None:
    cfg = Config.fromfile(CONFIGS / "shapes" / name)
    change(cfg)
    require_data(cfg, "train_dataloader", "val_dataloader", "test_dataloader")


COCO, SEG, CLS = (
    pytest.param(name, marks=pytest.mark.toolbox(toolbox))
    for name, toolbox in (
        ("maskrcnn_vanillanet_shapes.py", "mmdet"),
        ("upernet_vanillanet_shapes.py", "mmseg"),
        ("vanillanet_shapes.py", "mmpretrain"),
    )
)


@pytest.mark.parametrize("name", [COCO, SEG, CLS])
def test_what_fits_passes(data, name):
    check(name)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_missing_data_is_found_through_every_wrapper(wrapper, several):
    dataset = WRAPPERS[wrapper](dict(type="Unknown", data_root="data/coco/", indices=3))
    loader = dict(batch_size=1, dataset=dataset)
    cfg = Config(dict(train_dataloader=[loader] if several else loader))
    with pytest.raises(FileNotFoundError, match=r"train_dataloader: data/coco/ is not there .*Put"):
        require_data(cfg, "train_dataloader")


@pytest.mark.parametrize("name", ["shapes", "garments"])
def test_missing_drawn_data_comes_with_the_command_that_makes_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("config.py").touch()
    dataset = dict(type="CocoDataset", data_root=f"data/somewhere/{name}/coco/")
    cfg = Config(dict(val_dataloader=dict(dataset=dataset)), filename="config.py")
    message = rf"config\.py, val_dat.*: mmvanilla make_{name} data/somewhere/{name}$"
    with pytest.raises(FileNotFoundError, match=message):
        require_data(cfg, "val_dataloader")


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("root", [None, "", "data"])
def test_paths_are_joined_as_mmengine_does(tmp_path, monkeypatch, root, absolute):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / (root or "")
    (folder / "images").mkdir(parents=True)
    ann_file = str(folder / "train.json") if absolute else "train.json"
    prefix = str(folder / "images") if absolute else "images"
    dataset = dict(type="Unknown", ann_file=ann_file, data_prefix=dict(img=prefix))
    cfg = Config(dict(a=dict(dataset=dataset if root is None else dict(dataset, data_root=root))))
    with pytest.raises(FileNotFoundError, match=r"train\.json is not there \(its ann_file\).*imag"):
        require_data(cfg, "a", "not_in_the_config")
    (folder / "train.json").write_text("{}")
    require_data(cfg, "a")
    (folder / "images").rmdir()
    with pytest.raises(FileNotFoundError, match=r"its data_prefix\['img'\]\); found in .*train\."):
        require_data(cfg, "a")


@pytest.mark.parametrize(
    "dataset",
    [
        dict(data_root="s3://bucket/coco/", ann_file="a.json", data_prefix=dict(img="train/")),
        dict(ann_file="https://host/a.json", data_prefix="petrel://images"),
    ],
)
def test_data_behind_an_address_is_not_looked_for(dataset):
    assert require_data(Config(dict(a=dict(dataset=dict(type="Unknown", **dataset)))), "a") is None


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize("download", [True, False])
def test_data_sets_that_download_themselves_need_no_folder(tmp_path, monkeypatch, download):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(CONFIGS / "small" / "vanillanet6_cifar100.py")
    if download:
        require_data(cfg, "train_dataloader", "val_dataloader")
        return
    cfg.train_dataloader.dataset.download = False
    with pytest.raises(FileNotFoundError, match="data/cifar100 is not there"):
        require_data(cfg, "train_dataloader")


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        pytest.param(*COCO.values, "img", "training/", r"\['img'\]\); found in .*: .*train/, val/"),
        pytest.param(*SEG.values, "img_path", "train", r"\['img_path'\]\); found in"),
        pytest.param(*SEG.values, "seg_map_path", "maps", r"\['seg_map_path'\]\); found in"),
    ],
)
def test_a_wrong_prefix_is_named_with_what_is_there(data, name, key, value, message):
    toolbox = "mmdet" if "rcnn" in name else "mmseg"
    pytest.importorskip(toolbox)

    def change(cfg):
        cfg.train_dataloader.dataset.data_prefix[key] = value

    with pytest.raises(FileNotFoundError, match=message):
        check(name, change)


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize("prefix", ["train/red", dict(img_path="train/red")])
def test_a_wrong_prefix_of_a_classifier(data, prefix):
    def change(cfg):
        cfg.train_dataloader.dataset.update(data_root="data/shapes/imagenet", data_prefix=prefix)

    with pytest.raises(FileNotFoundError, match=r"train/red is not there .*circle/, cross/"):
        check("vanillanet_shapes.py", change)


@pytest.mark.toolbox("mmpretrain")
class TestClassFolders:
    @pytest.mark.parametrize("split", ["train", "val"])
    def test_one_is_missing(self, data, split):
        shutil.rmtree(data / "imagenet" / split / "ring")
        with pytest.raises(ValueError, match="5 class folders|no ring; add or remove"):
            check("vanillanet_shapes.py")

    def test_one_is_missing_everywhere(self, data):
        for split in ("train", "val"):
            shutil.rmtree(data / "imagenet" / split / "ring")
        message = r"has 5 class folders \(circle, cross, .*\), but model\.head\.num_classes is 6"
        with pytest.raises(ValueError, match=message):
            check("vanillanet_shapes.py")

    def test_classes_given_in_the_config(self, data):
        def change(cfg):
            cfg.train_dataloader.dataset.metainfo = dict(classes=["a", "b", "c"])

        with pytest.raises(ValueError, match="the classes of CustomDataset are 3"):
            check("vanillanet_shapes.py", change)

    def test_imagenet_reads_the_folder_of_its_split(self, data):
        loader = dict(dataset=dict(type="ImageNet", data_root=str(data), split="train"))
        cfg = Config(dict(default_scope="mmpretrain", a=loader))
        with pytest.raises(FileNotFoundError, match=r"shapes/train is not there"):
            require_data(cfg, "a")
        loader["dataset"]["data_root"] = str(data / "imagenet")
        with pytest.raises(ValueError, match="but the classes of ImageNet are 1000"):
            require_data(Config(dict(default_scope="mmpretrain", a=loader)), "a")


@pytest.mark.toolbox("mmdet")
class TestCoco:
    NAME = "maskrcnn_vanillanet_shapes.py"

    def rewrite(self, data, change, **options):
        path = data / "coco" / "annotations" / "instances_train.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content, **options))

    def test_a_class_that_the_file_does_not_have(self, data):
        def change(cfg):
            cfg.train_dataloader.dataset.metainfo.classes = ("circle", "square", "cat")

        message = r"instances_train\.json has no category cat; its categories are circle, squ"
        with pytest.raises(ValueError, match=message):
            check(self.NAME, change)

    def test_classes_in_another_order_would_get_wrong_names(self, data):
        def change(cfg):
            cfg.train_dataloader.dataset.metainfo.classes = ("square", "circle", "triangle")

        with pytest.raises(ValueError, match="another order .*order of the file"):
            check(self.NAME, change)

    def test_fewer_classes_than_categories_are_a_choice(self, data):
        def change(cfg):
            cfg.train_dataloader.dataset.metainfo.classes = ("circle", "triangle")

        check(self.NAME, change)

    @pytest.mark.parametrize("options", [{}, dict(indent=1), dict(ensure_ascii=False)], ids=str)
    def test_categories_are_found_wherever_they_stand(self, data, options):
        def change(content):
            content["info"]["categories"] = "none"
            content["categories"] = [
                dict(id=index, name=f"{name}é", description="x" * 100_000)
                for index, name in enumerate(("circle", "square", "triangle"))
            ]
            if options:
                content["images"] = content.pop("images")  # behind the categories

        self.rewrite(data, change, **options)
        with pytest.raises(ValueError, match="no category circle, .* are circleé, squareé"):
            check(self.NAME)

    def test_images_that_are_not_in_the_folder(self, data):
        self.rewrite(data, lambda content: content["images"][0].update(file_name='a "b".png'))
        with pytest.raises(ValueError, match=r'names the image a "b"\.png, which is not in data'):
            check(self.NAME)

    @pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '{"categories": [1]}', "no json"])
    def test_a_file_of_another_kind(self, data, content):
        (data / "coco" / "annotations" / "instances_train.json").write_text(content)
        with pytest.raises(ValueError, match=r"instances_train\.json is (empty|not a COCO)"):
            check(self.NAME)


@pytest.mark.toolbox("mmseg")
class TestSegmentation:
    NAME = "upernet_vanillanet_shapes.py"

    def test_another_suffix(self, data):
        def change(cfg):
            cfg.train_dataloader.dataset.img_suffix = ".jpg"

        with pytest.raises(ValueError, match=r"ends with '\.jpg' \(found 00000\d\.png, for e"):
            check(self.NAME, change)

    def test_a_label_map_is_missing(self, data):
        (data / "ade20k" / "annotations" / "training" / "000000.png").unlink()
        with pytest.raises(ValueError, match=re.escape("000000.png has no label map data/shapes")):
            check(self.NAME)

    def test_testing_without_label_maps_needs_none(self, data):
        shutil.rmtree(data / "ade20k" / "annotations" / "validation")

        def change(cfg):
            cfg.val_dataloader = None
            cfg.test_dataloader.dataset.pipeline = [dict(type="LoadImageFromFile")]

        check(self.NAME, change)

    def test_classes_that_the_data_set_does_not_know(self, data):
        dataset = dict(
            type="ADE20KDataset", data_root=str(data / "ade20k"), metainfo=dict(classes=["cat"])
        )
        Path("config.py").touch()
        cfg = Config(dict(default_scope="mmseg", a=dict(dataset=dataset)), filename="config.py")
        with pytest.raises(ValueError, match=r"config\.py, a: its ADE20KDataset cannot be built: "):
            require_data(cfg, "a")
