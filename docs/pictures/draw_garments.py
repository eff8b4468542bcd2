"""Draw scenes of garments, and below each the masks of its garments, for the page on Fashion-MNIST.

    python docs/pictures/draw_garments.py DATA [--pick N N N N N N] [--out OUT.png]

DATA is the coco layout. The committed picture shows validation images:

    python -m projects.toy_data.make_garments data/garments
    python docs/pictures/draw_garments.py data/garments/coco
"""

import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import cv2
import numpy as np

OUT = Path(__file__).parent / "garments.png"
TIMES, GAP = 2, 6  # enlargement; pixels between pictures
# The colours of the classes, as in projects/toy_data/configs.
PALETTE = [
    *[(220, 20, 60), (0, 114, 189), (60, 179, 75), (237, 177, 32), (126, 47, 142)],
    *[(77, 190, 238), (245, 130, 48), (154, 99, 36), (240, 50, 230), (70, 153, 144)],
]


def draw(folder: Path, number: int) -> np.ndarray:
    """Put an image above its masks, which have the colours of their classes."""
    content = json.loads((folder / "annotations" / "instances_val.json").read_text())
    info = content["images"][number]
    image = cv2.imread(str(folder / "val" / info["file_name"]))
    masks = np.full_like(image, 255)
    for one in content["annotations"]:
        if one["image_id"] == info["id"]:
            counts = one["segmentation"]["counts"]
            mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            red, green, blue = PALETTE[one["category_id"] - 1]
            masks[mask.reshape(image.shape[:2], order="F")] = (blue, green, red)
    gap = np.full((GAP // TIMES, image.shape[1], 3), 255, dtype=np.uint8)
    column = np.vstack([image, gap, masks])
    size = (column.shape[1] * TIMES, column.shape[0] * TIMES)
    return cv2.resize(column, size, interpolation=cv2.INTER_NEAREST)


def main() -> None:
    """Write the picture."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DATA")
    parser.add_argument("--pick", nargs="+", type=int, default=[0, 1, 2, 3, 4, 5], metavar="N")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    columns = [draw(args.folder, number) for number in args.pick]
    gap = np.full((columns[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    picture = np.hstack([part for column in columns for part in (gap, column)][1:])
    cv2.imwrite(str(args.out), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
