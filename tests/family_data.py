"""Tiny made-up data in the layouts that the configs of configs/family/ read."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = 96  # height and width of each image in pixels


def _image(seed: int, corners: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
    cv2.fillPoly(noise, [corners.round().astype(np.int32)], (40, 200, 90 + 30 * seed))
    return noise


def _turned_box(seed: int) -> np.ndarray:
    """Return the corners of a turned rectangle, (4, 2)."""
    centre = (SIZE * (0.4 + 0.05 * seed), SIZE * 0.5)
    return cv2.boxPoints((centre, (48.0, 24.0), 25.0 + 30 * seed))


def draw_dota(folder: Path, count: int = 4) -> None:
    """Write images and a text file of corners for each, as DOTA's tiles are."""
    images, texts = folder / "trainval" / "images", folder / "trainval" / "annfiles"
    images.mkdir(parents=True)
    texts.mkdir()
    for seed in range(count):
        corners = _turned_box(seed)
        cv2.imwrite(str(images / f"tile{seed}.png"), _image(seed, corners))
        numbers = " ".join(f"{value:.1f}" for value in corners.flatten())
        (texts / f"tile{seed}.txt").write_text(f"{numbers} {('plane', 'ship')[seed % 2]} 0\n")


def draw_coco(folder: Path, count: int = 4) -> None:
    """Write a set of images with a box, and 17 keypoints for each person, in COCO's layout."""
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).mkdir()
        images, people = [], []
        for seed in range(count):
            corners = _turned_box(seed)
            name = f"{seed:012d}.jpg"
            cv2.imwrite(str(folder / split / name), _image(seed, corners))
            images.append(dict(id=seed, file_name=name, width=SIZE, height=SIZE))
            (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
            along = np.linspace(corners[0], corners[2], 17)
            keypoints = np.concatenate([along, np.full((17, 1), 2)], axis=1)
            width, height = float(right - left), float(bottom - top)
            people.append(
                dict(
                    id=seed,
                    image_id=seed,
                    category_id=1,
                    bbox=[float(left), float(top), width, height],
                    area=width * height,
                    iscrowd=0,
                    keypoints=[float(value) for value in keypoints.flatten()],
                    num_keypoints=17,
                )
            )
        category = dict(id=1, name="person", keypoints=[], skeleton=[])
        content = json.dumps(dict(images=images, annotations=people, categories=[category]))
        for kind in ("person_keypoints", "instances"):
            (folder / "annotations" / f"{kind}_{split}.json").write_text(content)
