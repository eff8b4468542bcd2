"""Put the first pictures of the demo on one sheet, for the README.

    python docs/pictures/draw_predictions.py FOLDER [--number N] [--out OUT.png]

The committed picture was made by these commands, in a clone; nothing was picked:

    make demo
    python docs/pictures/draw_predictions.py work_dirs/demo/pictures

The network sees each image at 128×128 pixels; on the sheet they are twice as large.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import cv2
import numpy as np

OUT = Path(__file__).parent / "predictions.png"
GAP = 12  # pixels
COLUMNS = 2
TITLES = ("ground truth", "prediction")


def main() -> None:
    """Write the picture."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--number", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.png"))[: args.number]
    if not paths:
        parser.error(f"no .png file in {args.folder}")
    # The network sees 128×128 pixels; twice as large, they can be looked at.
    images = [cv2.resize(cv2.imread(str(path)), None, fx=2, fy=2) for path in paths]
    pictures = [_framed(image) for image in images]
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % COLUMNS)
    rows = [np.hstack(pictures[at : at + COLUMNS]) for at in range(0, len(pictures), COLUMNS)]
    sheet = np.vstack([np.full((2 * GAP, *rows[0].shape[1:]), 255, np.uint8), *rows])
    share = sheet.shape[1] / COLUMNS / len(TITLES)
    for place in range(COLUMNS * len(TITLES)):
        title, x = TITLES[place % len(TITLES)], round((place + 0.5) * share)
        (width, _), _ = cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
        corner = (x - width // 2, 2 * GAP)
        cv2.putText(sheet, title, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(args.out), sheet)


def _framed(picture: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(picture, *[GAP // 2] * 4, cv2.BORDER_CONSTANT, value=(255,) * 3)


if __name__ == "__main__":
    main()
