"""Put pictures with predictions side by side, for the README.

    python docs/pictures/draw_predictions.py FOLDER [FOLDER ...] [--pick N N N N] [--out OUT.png]

The folders are those that `mmvanilla visualize predict` wrote, one for each row. The committed
picture was made by these commands; the network sees each image at 128×128, and the predictions are
drawn at 384×384:

    mmvanilla make_shapes data/shapes
    mmvanilla train shapes/maskrcnn_vanillanet_shapes.py --work-dir work_dirs/mask
    mmvanilla make_shapes large --layouts coco --num-train 1 --num-val 8 --image-size 384 --seed 5
    mmvanilla visualize predict shapes/maskrcnn_vanillanet_shapes.py work_dirs/mask/epoch_3.pth \
        large/coco/val found --score-thr 0.6
    python docs/pictures/draw_predictions.py found/vis --pick 1 5 6 7

What is drawn above a score of 0.6 is right; the blue square in the second picture is missed.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import cv2
import numpy as np

OUT = Path(__file__).parent / "predictions.png"
HEIGHT, GAP = 300, 12  # pixels


def load(path: Path) -> np.ndarray:
    """Read a picture and scale it to the height of a row."""
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} is not an image")
    width = round(image.shape[1] * HEIGHT / image.shape[0])
    return cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def make_row(folder: Path, numbers: list[int]) -> np.ndarray:
    """Put pictures of a folder beside each other, on white, by their numbers in it."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    if len(paths) <= max(numbers):
        raise ValueError(f"{folder} has {len(paths)} pictures, none is number {max(numbers)}")
    gap = np.full((HEIGHT, GAP, 3), 255, dtype=np.uint8)
    parts = [part for number in numbers for part in (gap, load(paths[number]))]
    return np.hstack(parts[1:])


def main() -> None:
    """Write the picture."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--pick", nargs="+", type=int, default=[0, 1, 2, 3], metavar="N")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    rows = [make_row(folder, args.pick) for folder in args.folders]
    space = np.full((GAP, rows[0].shape[1], 3), 255, dtype=np.uint8)
    picture = np.vstack([part for row in rows for part in (space, row)][1:])
    cv2.imwrite(str(args.out), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
