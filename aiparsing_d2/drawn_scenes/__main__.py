"""Command line: write a drawn data set, a contact sheet, or both."""

import argparse
import io
import os
import sys
from pathlib import Path

from PIL import Image

from aiparsing_d2.counted import counted
from aiparsing_d2.parallel import WorkerDiedError
from aiparsing_d2.whole_files import whole_file

from .cihp_writer import CIHPRequest
from .contact_sheet import draw_contact_sheet
from .data_set_writer import DataSetRequest, FolderInUseError, write_data_set
from .lv_mhp_v2_writer import LVMHPv2Request
from .vip_writer import VIPRequest

_REQUESTS: dict[str, type[DataSetRequest]] = {
    request.layout: request for request in (CIHPRequest, LVMHPv2Request, VIPRequest)
}


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    def defaults(field: str) -> str:
        sizes = [f"{getattr(r, field)} {r.unit} ({name})" for name, r in _REQUESTS.items()]
        return ", ".join(sizes)

    parser = argparse.ArgumentParser(
        prog="python -m aiparsing_d2.drawn_scenes",
        description="Draw pictures of people with exact part labels, as a data set in the layout "
        "of CIHP, LV-MHP-v2 or VIP.",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the data set")
    parser.add_argument(
        "--layout",
        choices=list(_REQUESTS),
        default=CIHPRequest.layout,
        help="whose labels and folders (default: %(default)s)",
    )
    parser.add_argument(
        "--train", type=int, help=f"training images or videos; default: {defaults('num_train')}"
    )
    parser.add_argument(
        "--val", type=int, help=f"validation images or videos; default: {defaults('num_val')}"
    )
    parser.add_argument("--seed", type=int, default=CIHPRequest.seed)
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="size of all images in pixels (default: varied around 300 x 250)",
    )
    parser.add_argument(
        "--annotated-frames",
        type=int,
        metavar="N",
        help="annotated frames per video, every 25th one is (vip only; "
        f"default: {VIPRequest.annotated_frames})",
    )
    parser.add_argument(
        "--all-frames",
        action="store_true",
        default=None,
        help="also write the pictures of the frames without annotations (vip only)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes to draw with"
    )
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="FILE",
        help="also draw a sheet of scenes and CIHP's labels",
    )
    arguments = parser.parse_args(argv)
    if arguments.output is None and arguments.contact_sheet is None:
        parser.error("give --output, --contact-sheet or both")
    if arguments.contact_sheet is not None and not _picture_format(arguments.contact_sheet):
        parser.error(
            f"--contact-sheet {arguments.contact_sheet} is not named as a picture, as .png"
        )
    if arguments.layout != VIPRequest.layout:
        for option in ("annotated_frames", "all_frames"):
            if getattr(arguments, option) is not None:
                parser.error(f"--{option.replace('_', '-')} is for --layout vip only")
    return arguments


def _picture_format(file: Path) -> str | None:
    """Return Pillow's name of the format that a file is named for, None if it cannot write it."""
    found = Image.registered_extensions().get(file.suffix.lower())
    try:
        # Some formats are only read, others have no colours.
        Image.new("RGB", (16, 16)).save(io.BytesIO(), found)
    except (KeyError, ValueError, OSError):
        return None
    return found


def _make_request(arguments: argparse.Namespace) -> DataSetRequest:
    options = {
        "num_train": arguments.train,
        "num_val": arguments.val,
        "seed": arguments.seed,
        "image_size": None if arguments.size is None else tuple(arguments.size),
        "annotated_frames": arguments.annotated_frames,
        "all_frames": arguments.all_frames,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return _REQUESTS[arguments.layout](**given)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parse_arguments(argv)
    if arguments.contact_sheet is not None:
        try:
            sheet = draw_contact_sheet(arguments.seed)
            with whole_file(arguments.contact_sheet, "wb") as file:
                Image.fromarray(sheet).save(file, _picture_format(arguments.contact_sheet))
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"Contact sheet: {arguments.contact_sheet}")
    if arguments.output is not None:
        try:
            request = _make_request(arguments)
            manifest = write_data_set(arguments.output, request, arguments.workers)
        except (FolderInUseError, ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except WorkerDiedError as error:
            print(f"error: {error} The same command goes on from here.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("Interrupted: the same command goes on from here.", file=sys.stderr)
            return 130
        if manifest is None:
            print(f"{arguments.output} holds these {request.describe()} already; nothing to do.")
        else:
            people = counted(sum(manifest["num_people"].values()), "person")
            print(f"Drew {request.describe()} of {people} into {arguments.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
