import hashlib
import math

import numpy as np
import pytest

from mmvanilla.datasets import shapes_drawing
from mmvanilla.datasets.scenes import Scene, coco_annotations, label_map
from mmvanilla.datasets.shapes_drawing import (
    CLASSES,
    PALETTE,
    SCENE_CLASSES,
    draw_portrait,
    draw_scene,
)

# Areas for a circumscribed radius of 1, as the stencil table has them.
AREAS = {
    "circle": math.pi * 0.9**2,
    "square": 1.5**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 10 * 0.5 * 0.45 * math.sin(math.pi / 5),
    "cross": 2 * 1.8 * 0.6 - 0.6**2,
    "ring": math.pi * (0.95**2 - 0.55**2),
}


def scenes(count: int = 30, size: int = 128) -> list[Scene]:
    return [draw_scene(np.random.default_rng(seed), size) for seed in range(count)]


def test_every_class_has_a_known_area_and_a_colour_of_its_own():
    assert set(CLASSES) == set(AREAS)
    assert len(set(PALETTE)) == len(PALETTE) == len(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_stencil_covers_the_area_of_its_shape(name):
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, 1201), np.linspace(-1.2, 1.2, 1201))
    inside = shapes_drawing._STENCILS[name](x, y)
    assert np.mean(inside) * 2.4**2 == pytest.approx(AREAS[name], rel=0.01)
    assert not inside[np.hypot(x, y) > 1.07].any()


def test_stencil_is_turned_and_put_at_its_centre():
    stencil = shapes_drawing._stencil(np.random.default_rng(0), "square", 100, 20.0, (30.0, 60.0))
    ys, xs = np.nonzero(stencil)
    assert xs.mean() + 0.5 == pytest.approx(30.0, abs=0.2)
    assert ys.mean() + 0.5 == pytest.approx(60.0, abs=0.2)
    assert 0.84 * AREAS["square"] * 20**2 < stencil.sum() < 1.01 * AREAS["square"] * 20**2


def test_pixels_are_painted_exactly_where_the_mask_says(monkeypatch):
    """With a colour of its own for each surface, the picture itself is the mask."""
    painted = []

    def plain(rng, size, hue, is_background):
        painted.append(is_background)
        return np.full((size, size, 3), len(painted), dtype=np.uint8)

    monkeypatch.setattr(shapes_drawing, "surface", plain)
    for seed in range(20):
        painted.clear()
        scene = draw_scene(np.random.default_rng(seed), 96)
        assert painted == [True] + [False] * len(scene.labels)
        np.testing.assert_array_equal(scene.image[..., 0].astype(int) - 2, scene.owner)


def test_scenes_have_all_classes_and_sizes_and_overlap():
    drawn = scenes(60)
    labels = np.concatenate([scene.labels for scene in drawn])
    assert set(labels) == set(range(len(SCENE_CLASSES)))
    assert {len(scene.labels) for scene in drawn} == {1, 2, 3, 4, 5}
    touching = 0
    sizes = []
    for scene in drawn:
        assert scene.image.shape == (128, 128, 3)
        assert scene.image.dtype == np.uint8
        assert set(np.unique(scene.owner)) == set(range(-1, len(scene.labels)))
        left, right = scene.owner[:, :-1], scene.owner[:, 1:]
        touching += bool(((left != right) & (left >= 0) & (right >= 0)).any())
        sizes += [max(one["bbox"][2:]) for one in coco_annotations(scene, 1, 1)]
    assert touching >= 15
    assert min(sizes) >= 8
    assert max(sizes) <= 68
    assert np.percentile(sizes, 90) > 2.5 * np.percentile(sizes, 10)


def test_shapes_stand_out_from_what_surrounds_them():
    """Across the border of every shape the mean colour changes by more than the grain."""
    for scene in scenes(20):
        for position in range(len(scene.labels)):
            mask = scene.owner == position
            inside = scene.image[mask].mean(axis=0)
            assert np.abs(inside - scene.image[scene.owner == -1].mean(axis=0)).max() > 20


def test_colour_tells_no_class():
    hues = {label: [] for label in range(len(SCENE_CLASSES))}
    for scene in scenes(150, 48):
        for position, label in enumerate(scene.labels):
            hues[label].append(int(scene.image[scene.owner == position].mean(axis=0).argmax()))
    for seen in hues.values():  # each class is red, green and blue alike
        assert np.bincount(seen, minlength=3).min() > 0.2 * len(seen)


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_portrait_is_dominated_by_its_class(label):
    for seed in range(10):
        scene = draw_portrait(np.random.default_rng(seed), 64, label)
        counts = np.bincount(scene.owner[scene.owner >= 0])
        assert scene.labels[-1] == label
        assert label not in scene.labels[:-1]
        assert (counts[:-1] < 0.5 * counts[-1]).all()


def test_pixels_are_those_of_this_version():
    """Fails when the drawing changes: then raise `RECIPE_VERSION` in shapes.py and this digest."""
    digest = hashlib.sha256()
    for seed in range(8):
        scene = draw_scene(np.random.default_rng(seed), 64)
        portrait = draw_portrait(np.random.default_rng(seed), 64, seed % len(CLASSES))
        for drawn in (scene, portrait):
            digest.update(drawn.image.tobytes())
            digest.update(label_map(drawn).tobytes())
    assert digest.hexdigest() == "2bb9344a939d35758b10d8f862999e03fc1e2bab022686f35e67cb61094fa3cc"
