import numpy as np
import pytest

from mmvanilla.datasets.scenes import Scene, coco_annotations, encode_rle, label_map, stack
from mmvanilla.datasets.shapes_drawing import draw_scene


def decode_rle(rle: dict) -> np.ndarray:
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape(rle["size"], order="F")


def test_stack_puts_the_last_on_top_and_drops_what_is_nearly_hidden():
    below, hidden, top = (np.zeros((8, 8), dtype=bool) for _ in range(3))
    below[0:4, 0:4] = True
    hidden[3:6, 2:6] = True  # 12 pixels, 3 to be seen
    top[2:6, 3:8] = True
    owner, kept = stack([below, hidden, top])
    assert kept == [0, 2]
    expected = np.full((8, 8), -1)
    expected[below] = 0
    expected[top] = 1
    np.testing.assert_array_equal(owner, expected)


def test_label_map_is_one_for_background_and_from_two_on_for_classes():
    owner = np.array([[-1, 0], [1, 2]])
    scene = Scene(np.zeros((2, 2, 3), np.uint8), owner, (2, 0, 1))
    np.testing.assert_array_equal(label_map(scene), np.array([[1, 4], [2, 3]], dtype=np.uint8))


def test_rle_counts_run_down_the_columns():
    mask = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    assert encode_rle(mask) == {"size": [2, 3], "counts": [2, 3, 1]}
    assert encode_rle(~mask) == {"size": [2, 3], "counts": [0, 2, 3, 1]}


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_rle_returns_the_mask(density):
    mask = np.random.default_rng(7).random((17, 23)) < density
    np.testing.assert_array_equal(decode_rle(encode_rle(mask)), mask)


def test_rle_is_what_pycocotools_reads():
    mask_utils = pytest.importorskip("pycocotools.mask")
    for scene in (draw_scene(np.random.default_rng(seed), 128) for seed in range(5)):
        for one in coco_annotations(scene, 1, 1):
            compressed = mask_utils.frPyObjects(one["segmentation"], 128, 128)
            mask = mask_utils.decode(compressed)
            np.testing.assert_array_equal(mask, decode_rle(one["segmentation"]))
            assert mask_utils.area(compressed) == one["area"]
            assert mask_utils.toBbox(compressed).tolist() == one["bbox"]
