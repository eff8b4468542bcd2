"""Small trained models and odd images, on which the runner is compared with the toolboxes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn import functional

CLASSES = ("blue circle", "green square", "red square")
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
BACKBONE = dict(type="VanillaNet", arch=dict(dims=(8, 16, 24, 32), strides=(2, 2, 2)), act_num=1)
META = dict(classes=list(CLASSES), palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]])


def draw_sample(rng, height=64, width=64):
    """An image of one of three things on noise, (H, W, 3) BGR; its class and its mask."""
    image = rng.integers(60, 140, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    label = int(rng.integers(3))
    side = int(min(height, width) * rng.uniform(0.3, 0.45))
    x = int(rng.integers(side // 2 + 1, width - side // 2))
    y = int(rng.integers(side // 2 + 1, height - side // 2))
    if label == 0:
        cv2.circle(mask, (x, y), side // 2, 1, -1)
    else:
        mask[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2] = 1
    colour = rng.integers(20, 60, 3)
    colour[label] += 160
    image[mask > 0] = colour
    return image, label, mask


def write_images(folder, count, seed=0):
    """Images of many sizes and kinds of files, some of them sideways by EXIF; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        height, width = (int(side) for side in rng.integers(64, 150, 2))
        image = draw_sample(rng, height, width)[0]
        path = folder / f"{index:03d}{('.png', '.jpg', '.bmp')[index % 3]}"
        if index % 6 == 4:  # the sixth orientation: turned by 90 degrees
            from PIL import Image

            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(image).save(path.with_suffix(".jpg"), exif=exif)
        else:
            cv2.imwrite(str(path), image)
        paths.append(path)
    return paths


def learn(model: nn.Module, dense: bool, steps: int) -> None:
    """Train a classifier or segmenter until it is sure of what it sees."""
    rng = np.random.default_rng(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    model.train()
    for _ in range(steps):
        images, labels, masks = zip(*(draw_sample(rng) for _ in range(8)), strict=True)
        # From BGR to the RGB that the data preprocessor makes.
        pixels = torch.from_numpy(np.stack(images)[..., ::-1].copy()).permute(0, 3, 1, 2).float()
        logits = model((pixels - mean) / std)
        target = torch.tensor(labels)
        if dense:
            logits = functional.interpolate(logits, size=(64, 64), mode="bilinear")
            # Class 0 is the background here, 1 what is round, 2 the rest.
            kinds = torch.tensor([1, 2, 2])[target][:, None, None]
            target = torch.from_numpy(np.stack(masks)).long() * kinds
        loss = functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def classifier_config(steps, **preprocessor):
    return Config(
        dict(
            default_scope="mmpretrain",
            custom_imports=dict(imports=["mmvanilla", "mmvanilla.cls_head"]),
            data_preprocessor=dict(mean=MEAN, std=STD, to_rgb=True, **preprocessor),
            model=dict(
                type="ImageClassifier",
                backbone=dict(BACKBONE, out_indices=(3,)),
                head=dict(type="VanillaNetClsHead", in_channels=32, num_classes=3),
            ),
            test_dataloader=dict(
                dataset=dict(
                    type="CustomDataset",
                    pipeline=[dict(type="LoadImageFromFile"), *steps, dict(type="PackInputs")],
                )
            ),
        )
    )


def segmenter_config(steps, test_cfg=None, align_corners=False, **preprocessor):
    return Config(
        dict(
            default_scope="mmseg",
            custom_imports=dict(imports=["mmvanilla"]),
            visualizer=dict(type="SegLocalVisualizer"),
            model=dict(
                type="EncoderDecoder",
                data_preprocessor=dict(
                    type="SegDataPreProcessor", mean=MEAN, std=STD, bgr_to_rgb=True, **preprocessor
                ),
                backbone=dict(BACKBONE),
                decode_head=dict(
                    type="FCNHead",
                    in_channels=[8, 16, 24, 32],
                    in_index=[0, 1, 2, 3],
                    input_transform="resize_concat",
                    channels=16,
                    num_convs=1,
                    num_classes=3,
                    norm_cfg=dict(type="BN"),
                    align_corners=align_corners,
                    loss_decode=dict(type="CrossEntropyLoss"),
                ),
                test_cfg=test_cfg or dict(mode="whole"),
            ),
            test_dataloader=dict(
                dataset=dict(
                    type="BaseSegDataset",
                    pipeline=[
                        dict(type="LoadImageFromFile"),
                        *steps,
                        dict(type="LoadAnnotations"),
                        dict(type="PackSegInputs"),
                    ],
                )
            ),
        )
    )


def build(cfg, seed=0):
    """The model of a config with its data preprocessor, untrained."""
    import mmvanilla.cls_head  # noqa: F401

    init_default_scope(cfg.default_scope)
    torch.manual_seed(seed)
    model_cfg = cfg.model.copy()
    if "data_preprocessor" in cfg:
        model_cfg["data_preprocessor"] = cfg.data_preprocessor
    return MODELS.build(model_cfg).eval()


def save(cfg, model, folder: Path):
    """Write a config and a checkpoint as a training leaves them; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(str(folder / "config.py"))
    weights = dict(meta=dict(dataset_meta=META), state_dict=model.state_dict())
    torch.save(weights, folder / "weights.pth")
    return folder / "config.py", folder / "weights.pth"
