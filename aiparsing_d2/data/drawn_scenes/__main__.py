"""Command line: write a drawn data set, a contact sheet, or both."""

import argparse
import os
import sys
from pathlib import Path

from PIL import Image

from .cihp_writer import DataSetRequest, FolderInUseError, write_data_set
from .contact_sheet import draw_contact_sheet


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    defaults = DataSetRequest()
    parser = argparse.ArgumentParser(
        prog="python -m aiparsing_d2.data.drawn_scenes",
        description="Draw pictures of people with CIHP's part labels, in CIHP's layout.",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the data set")
    parser.add_argument("--train", type=int, default=defaults.num_train, help="training images")
    parser.add_argument("--val", type=int, default=defaults.num_val, help="validation images")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="size of all images in pixels (default: varied around 240 x 320)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes to draw with"
    )
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="FILE", help="also draw a sheet of scenes and labels"
    )
    arguments = parser.parse_args(argv)
    if arguments.output is None and arguments.contact_sheet is None:
        parser.error("give --output, --contact-sheet or both")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parse_arguments(argv)
    if arguments.contact_sheet is not None:
        sheet = draw_contact_sheet(arguments.seed)
        arguments.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(arguments.contact_sheet)
        print(f"Contact sheet: {arguments.contact_sheet}")
    if arguments.output is not None:
        try:
            request = DataSetRequest(
                num_train=arguments.train,
                num_val=arguments.val,
                seed=arguments.seed,
                image_size=None if arguments.size is None else tuple(arguments.size),
            )
            manifest = write_data_set(arguments.output, request, arguments.workers)
        except (FolderInUseError, ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("Interrupted: the same command goes on from here.", file=sys.stderr)
            return 130
        images = f"{request.num_train} training and {request.num_val} validation images"
        if manifest is None:
            print(f"{arguments.output} holds these {images} already; nothing to do.")
        else:
            people = sum(manifest["num_people"].values())
            print(f"Drew {images} of {people} people into {arguments.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
