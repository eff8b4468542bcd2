"""A choice looks at other images than the training and the table."""

import pytest
from mmengine.config import Config

from mmvanilla.analysis.held_out import require_held_out
from mmvanilla.datasets.shapes import make_shapes
from tests.idx_images import tiny_config, write_idx_images

pytestmark = pytest.mark.toolbox("mmpretrain")
HELD_OUT = dict(split="train", test_mode=False, indices=-20)


@pytest.fixture
def table(tmp_path):
    data = write_idx_images(tmp_path / "data", num_train=40, num_test=20)
    (tmp_path / "tiny.py").write_text(tiny_config(data))
    return Config.fromfile(tmp_path / "tiny.py")


def choice(table, **options):
    cfg = table.copy()
    cfg.merge_from_dict({f"val_dataloader.dataset.{key}": v for key, v in options.items()})
    return cfg


def test_other_training_images_are_taken(table):
    require_held_out(table, choice(table, **HELD_OUT))
    # One image of twenty is trained on, too.
    require_held_out(table, choice(table, **{**HELD_OUT, "indices": [19, *range(20, 39)]}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(), "chosen on the data whose results are reported; let --choose-on"),
        (dict(indices=20), "20 of the 20 images .* are also validated on for the table"),
        # MMPretrain would read the test images here: test_mode decides.
        (dict(split="train", indices=-20), "20 of the 20 images .* are also validated on"),
        (dict(HELD_OUT, indices=-30), "10 of the 30 images .* are also trained on; let"),
        (dict(HELD_OUT, indices=None), "20 of the 40 images .* are also trained on"),
    ],
)
def test_common_images_are_refused(table, options, message):
    with pytest.raises(ValueError, match=f"tiny.py: .*{message}"):
        require_held_out(table, choice(table, **options))


def test_images_in_files_are_known_by_their_path(tmp_path):
    make_shapes(tmp_path / "data", layouts=["imagenet"], num_train=12, num_val=6, image_size=48)
    cfg = Config.fromfile(f"{__import__('mmvanilla').config_path('shapes/vanillanet_shapes.py')}")
    for name, split in (("train", "train"), ("val", "val")):
        cfg[f"{name}_dataloader"].dataset.data_root = str(tmp_path / "data" / "imagenet" / split)
    with pytest.raises(ValueError, match="12 of the 12 images .* are also trained on"):
        require_held_out(cfg, choice(cfg, data_root=cfg.train_dataloader.dataset.data_root))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        require_held_out(cfg, choice(cfg, data_root=str(tmp_path / "nowhere")))
