"""Small models with their configs, and odd images, on which the runner meets the toolboxes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from mmvanilla.apis.config import load_config
from mmvanilla.apis.images import ImageReader
from mmvanilla.apis.model import build_model
from tests.helpers import CONFIGS, randomise

BACKBONE = dict(type="VanillaNet", arch=dict(dims=(8, 16, 24, 32), strides=(2, 2, 2)), act_num=1)
META = dict(classes=list("abcdef"), palette=[[40 * index, 0, 255] for index in range(6)])
EDGE = dict(type="ResizeEdge", scale=72, edge="short", backend="pillow", interpolation="bicubic")
STEPS = [EDGE, dict(type="CenterCrop", crop_size=64)]
#: What a file may hold besides: its name, shape and type.
ODD = {
    "gray": ((90, 100), np.uint8),
    "alpha": ((90, 100, 4), np.uint8),
    "deep": ((90, 100, 3), np.uint16),
    "deep gray": ((90, 100), np.uint16),
}


def write_images(folder, count, seed=0):
    """Images of many sizes and kinds of files, some of them sideways by EXIF; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        small = rng.integers(0, 256, (*rng.integers(3, 8, 2), 3), dtype=np.uint8)
        image = cv2.resize(small, tuple(int(side) for side in rng.integers(64, 150, 2)))
        path = folder / f"{index:03d}{('.png', '.jpg', '.bmp')[index % 3]}"
        if index % 6 == 4:  # the sixth orientation: turned by 90 degrees
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(image).save(path.with_suffix(".jpg"), exif=exif)
        else:
            cv2.imwrite(str(path), image)
        paths.append(path)
    return paths


def write_odd_images(folder):
    """One image of each entry of ODD; their paths by name."""
    rng = np.random.default_rng(0)
    paths = {name: folder / f"{name}.png" for name in ODD}
    for name, (shape, kind) in ODD.items():
        cv2.imwrite(str(paths[name]), rng.integers(0, np.iinfo(kind).max, shape).astype(kind))
    return paths


def classifier_config(steps, **preprocessor):
    """The small classifier of shapes with other steps in its test pipeline."""
    cfg = load_config(str(CONFIGS / "shapes" / "vanillanet_shapes.py"))
    pipeline = [dict(type="LoadImageFromFile"), *map(dict, steps), dict(type="PackInputs")]
    cfg.test_dataloader.dataset.pipeline = pipeline
    cfg.data_preprocessor.update(preprocessor)
    cfg.model.backbone = dict(BACKBONE, out_indices=(3,))
    cfg.model.head.in_channels = 32
    return cfg


def segmenter_config(size, test_cfg=None, align_corners=False):
    """The small segmenter of shapes with a simpler head and another size."""
    cfg = load_config(str(CONFIGS / "shapes" / "upernet_vanillanet_shapes.py"))
    resize = dict(type="Resize", scale=size, keep_ratio=True)
    steps = [dict(type="LoadImageFromFile"), resize, dict(type="LoadAnnotations")]
    cfg.test_dataloader.dataset.pipeline = [*steps, dict(type="PackSegInputs")]
    cfg.model.update(auxiliary_head=None, test_cfg=test_cfg or dict(mode="whole"))
    cfg.model.backbone = BACKBONE  # update() would merge them
    head = dict(type="FCNHead", channels=16, num_convs=1, num_classes=4, norm_cfg=dict(type="BN"))
    head.update(in_channels=[8, 16, 24, 32], in_index=[0, 1, 2, 3], align_corners=align_corners)
    cfg.model.decode_head = dict(head, input_transform="resize_concat")
    return cfg


def save(cfg, folder: Path):
    """Write a config and a checkpoint as a training leaves them; their paths, and the model.

    The weights are random, but no class is preferred.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.py"
    cfg.dump(str(path))
    cfg = Config.fromfile(path)
    model = randomise(build_model(cfg)).eval()
    with torch.no_grad():
        reader = ImageReader(model, cfg)
        inputs = [reader.batch(image)[0] for image in write_images(folder / "images", 6)]
        logits = [model(each).transpose(0, 1).flatten(1) for each in inputs]
        head = model.head if hasattr(model, "head") else model.decode_head.conv_seg
        last = [each for each in head.modules() if getattr(each, "bias", None) is not None]
        last[-1].bias -= torch.cat(logits, dim=1).mean(dim=1)
    weights = dict(meta=dict(dataset_meta=META), state_dict=model.state_dict())
    torch.save(weights, folder / "weights.pth")
    return path, folder / "weights.pth", model
