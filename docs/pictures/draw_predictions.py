"""Put the first pictures of the demo on one sheet, for the README.

    python docs/pictures/draw_predictions.py FOLDER [--number N] [--out OUT.png]

The committed picture was made by these commands, in a clone; nothing was picked:

    make demo
    python docs/pictures/draw_predictions.py work_dirs/demo/pictures

The network sees each image at 128×128 pixels; the pictures are twice as large.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from mmvanilla.apis.contact_sheet import save_contact_sheet
from mmvanilla.apis.images import find_images

OUT = Path(__file__).parent / "predictions.png"


def main() -> None:
    """Write the picture."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--number", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    pictures = find_images(args.folder, args.number)
    save_contact_sheet(pictures, args.out, titles=("ground truth", "prediction"), overwrite=True)


if __name__ == "__main__":
    main()
