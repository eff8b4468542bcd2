import hashlib

import numpy as np
import pytest

from mmvanilla.datasets import garments_drawing
from mmvanilla.datasets.fashion_mnist import CLASSES, Photographs
from mmvanilla.datasets.garments_drawing import Wardrobe, draw_scene, silhouette
from mmvanilla.datasets.scenes import label_map
from tests.fashion_files import draw_photographs

SHIRT, BAG, SANDAL = (CLASSES.index(name) for name in ("Shirt", "Bag", "Sandal"))


@pytest.fixture(scope="module")
def wardrobe() -> Wardrobe:
    return Wardrobe.of(Photographs(*draw_photographs(3, seed=0), ""), "test")


def photograph(*parts: tuple[slice, slice]) -> np.ndarray:
    image = np.zeros((28, 28), dtype=np.uint8)
    for part in parts:
        image[part] = 200
    return image


def test_silhouette_is_the_garment_without_noise():
    image = photograph(np.s_[4:20, 6:20], np.s_[22:27, 6:20])  # two parts of it
    garment = image > 0
    image[0:2, 0:3] = 150  # a spot that is too small to be a part
    image[:, 27] = 5  # and a faint border
    np.testing.assert_array_equal(silhouette(image, SHIRT), garment)


def test_holes_are_fabric_unless_one_looks_through():
    image = photograph(np.s_[4:24, 4:24])
    whole = image > 0
    image[8:12, 8:16] = 0  # 32 pixels: a handle's
    image[20:22, 20:22] = 0  # 4 pixels: too small to look through
    open_handle = whole.copy()
    open_handle[8:12, 8:16] = False
    np.testing.assert_array_equal(silhouette(image, SHIRT), whole)
    np.testing.assert_array_equal(silhouette(image, BAG), open_handle)
    np.testing.assert_array_equal(silhouette(image, SANDAL), open_handle)


def test_a_hole_that_is_open_to_the_side_is_no_hole():
    image = photograph(np.s_[4:24, 4:24])
    image[10:28, 12:16] = 0  # between the legs
    image[12:14, 16:] = 0
    np.testing.assert_array_equal(silhouette(image, CLASSES.index("Trouser")), image > 0)


def test_a_garment_up_to_every_edge_is_whole():
    image = np.full((28, 28), 99, dtype=np.uint8)
    image[10:20, 10:20] = 0
    assert silhouette(image, SHIRT).all()


def test_enlarging_keeps_the_values_and_gets_no_fringe():
    image = photograph(np.s_[5:23, 8:20])
    image[5, 8:20] = 60  # mixed with the background
    grey, inside = garments_drawing._enlarge(image, image > 0)
    fine = garments_drawing._FINE
    assert inside.shape == (28 * fine, 28 * fine)
    assert inside.sum() == pytest.approx(fine**2 * 18 * 12, rel=0.02)
    np.testing.assert_allclose(grey[inside], 200 / 255, atol=1e-12)
    assert (grey[~inside] == 0).all()


def test_weights_of_the_enlargement_are_exact_in_binary():
    matrix = garments_drawing._ENLARGE * 1024
    np.testing.assert_array_equal(matrix, np.rint(matrix))
    np.testing.assert_array_equal(matrix[8:-8].sum(axis=1), 1024)


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_a_garment_lies_where_it_is_put(turn, is_mirrored):
    """Against a plain loop over the pixels of a rectangle that is turned by geometry."""
    grey = np.full((112, 112), 0.5)
    inside = np.zeros((112, 112), dtype=bool)
    inside[28:84, 56:84] = True  # rows 7 to 21 and columns 14 to 21 of 28
    width, centre = 40.0, (35.0, 22.0)
    shade, stencil = garments_drawing._place(grey, inside, 64, width, centre, turn, is_mirrored)
    expected = np.zeros((64, 64), dtype=bool)
    for row in range(64):
        for column in range(64):
            x, y = column + 0.5 - centre[0], row + 0.5 - centre[1]
            along = (x * np.cos(turn) + y * np.sin(turn)) / width * (-1 if is_mirrored else 1)
            down = (y * np.cos(turn) - x * np.sin(turn)) / width
            expected[row, column] = abs(down) <= 0.25 and 0 <= along <= 0.25
    # Pixels that an edge cuts are the garment's if half of them is; the loop takes their centres.
    assert np.count_nonzero(stencil != expected) <= 0.06 * expected.sum()
    assert stencil.sum() == pytest.approx(20 * 10, rel=0.03)
    np.testing.assert_allclose(shade[stencil], 0.5)


def test_pixels_are_painted_exactly_where_the_mask_says(monkeypatch, wardrobe):
    """With a colour of its own for each garment, the picture itself is the mask."""
    painted = []

    def plain(rng, shade):
        painted.append(len(painted))
        return np.full((*shade.shape, 3), len(painted), dtype=np.uint8)

    monkeypatch.setattr(garments_drawing, "_dye", plain)
    monkeypatch.setattr(
        garments_drawing, "surface", lambda rng, size, *_, **__: np.zeros((size, size, 3), np.uint8)
    )
    for seed in range(20):
        painted.clear()
        scene = draw_scene(np.random.default_rng(seed), 96, wardrobe)
        assert len(painted) == len(scene.labels)
        np.testing.assert_array_equal(scene.image[..., 0].astype(int) - 1, scene.owner)


def test_scenes_have_all_classes_and_sizes_and_overlap(wardrobe):
    drawn = [draw_scene(np.random.default_rng(seed), 96, wardrobe) for seed in range(60)]
    assert {label for scene in drawn for label in scene.labels} == set(range(len(CLASSES)))
    assert {len(scene.labels) for scene in drawn} >= {3, 4, 5, 6}
    touching = 0
    for scene in drawn:
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        assert set(np.unique(scene.owner)) == set(range(-1, len(scene.labels)))
        left, right = scene.owner[:, :-1], scene.owner[:, 1:]
        touching += bool(((left != right) & (left >= 0) & (right >= 0)).any())
    assert touching >= 15


def test_the_texture_of_a_garment_stays():
    """From a dark to a light colour, in the order of the photograph's values."""
    shade = np.linspace(0, 1, 256).reshape(16, 16)
    greys = 0
    for seed in range(40):
        colours = garments_drawing._dye(np.random.default_rng(seed), shade).reshape(-1, 3)
        steps = np.diff(colours.astype(int), axis=0)
        assert all((steps[:, i] >= 0).all() or (steps[:, i] <= 0).all() for i in range(3))
        assert colours[-1].max() > colours[0].max() + 100
        greys += bool((colours == colours[:, :1]).all())
    assert 4 <= greys <= 20


def test_empty_photographs_are_left_out_and_missing_classes_refused():
    images, labels = draw_photographs(2, seed=0)
    images[0] = 0  # one of two T-shirts
    wardrobe = Wardrobe.of(Photographs(images, labels, ""), "test")
    assert [len(indices) for indices in wardrobe.by_class] == [1] + [2] * 9
    images[1] = 0
    with pytest.raises(ValueError, match="the test photographs show no garment of the class T-s"):
        Wardrobe.of(Photographs(images, labels, ""), "test")


def test_pixels_are_those_of_this_version(wardrobe):
    """Fails when the drawing changes: then raise `RECIPE_VERSION` in garments.py and the digest."""
    digest = hashlib.sha256()
    for seed in range(8):
        scene = draw_scene(np.random.default_rng(seed), 64, wardrobe)
        digest.update(scene.image.tobytes())
        digest.update(label_map(scene).tobytes())
    assert digest.hexdigest() == "60cf214e9536228ee5abbf29364c43b095eeecc82bc7ac27c00c18905b1105a4"
