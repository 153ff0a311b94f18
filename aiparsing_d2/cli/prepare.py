"""``prepare``: check a data set as downloaded, write COCO-style annotations and statistics.

::

    python -m aiparsing_d2 prepare cihp data/instance-level_human_parsing --output prepared/cihp
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from pathlib import Path

from aiparsing_d2.counted import counted
from aiparsing_d2.data import layouts

from .argument_types import positive

__all__ = ["add_parser", "run"]

# Name on the command line -> title, layout.
_DATA_SETS = {
    "cihp": ("CIHP", layouts.CIHP),
    "lv_mhp_v2": ("LV-MHP-v2", layouts.LV_MHP_V2),
    "vip": ("VIP", layouts.VIP),
}

_EPILOG = """\
files in DIR:
  report.md                    what was found, what to do about it, how to train on the result
  findings.csv                 every finding: kind, file, reason, and whether the image is left out
  annotations/*.json           images and people of each split in COCO's format, with part maps
  statistics.json, *.png       people per image, part frequencies, box sizes
  {train,val}_parsing/*.png    a label map for each person, with --person-maps

An interrupted run goes on where it was when the same command is given again. The exit status is 0
if the data set was prepared, whatever was found, and 1 if not.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "prepare",
        help="check a downloaded data set, write annotations in COCO's format and statistics",
        description="Check a data set as downloaded, write COCO-style annotations and statistics.",
        epilog="example:\n  aiparsing prepare cihp datasets/CIHP --output prepared/cihp",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data_sets = parser.add_subparsers(title="data sets", metavar="DATA_SET", required=True)
    for name, (title, layout) in _DATA_SETS.items():
        contents = ", ".join(layouts.top_level_names(layout))
        data_set = data_sets.add_parser(
            name,
            help=f"{title}: a folder of {contents}",
            description=f"Prepare {title}.",
            epilog=f"{_EPILOG}\nexample:\n"
            f"  aiparsing prepare {name} datasets/{title} --output prepared/{name}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        data_set.add_argument("root", type=Path, metavar="ROOT", help=f"the folder of {contents}")
        _add_options(data_set, has_person_files=layout["train"].person_maps is not None)
        data_set.set_defaults(run=run, data_set=name)

    _add_ccp(data_sets)


def _add_ccp(data_sets: argparse._SubParsersAction) -> None:
    contents = "photos/, annotations/pixel-level/ and label_list.mat"
    parser = data_sets.add_parser(
        "ccp",
        help=f"Clothing Co-Parsing: a folder of {contents}",
        description="Write Clothing Co-Parsing as a data set in CIHP's layout. The folder of the "
        "authors' repository (bearpaw/clothing-co-parsing) is read as it is.",
        epilog="An interrupted run goes on where it was when the same command is given again.\n"
        "The exit status is 0 if the data set was written, and 1 if not.\n\n"
        "example:\n  aiparsing prepare ccp clothing-co-parsing --output datasets/ccp",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help=f"the folder of {contents}")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="new folder for the data set"
    )
    parser.add_argument(
        "--labels",
        choices=("cihp", "tags"),
        default="cihp",
        help="the 20 labels of CIHP, told from the tags and from body landmarks that come with "
        "this package, or the 59 tags as they are (default: %(default)s)",
    )
    parser.add_argument(
        "--last",
        type=positive,
        default=1004,
        metavar="NUMBER",
        help="the last photograph to take; training is 1..804, validation what follows "
        "(default: %(default)s, the last that has labels)",
    )
    _add_workers(parser)
    parser.set_defaults(run=run_ccp)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes to work with (default: %(default)s)",
    )


def _add_options(parser: argparse.ArgumentParser, has_person_files: bool) -> None:
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for what is written"
    )
    parser.add_argument(
        "--own-data",
        action="store_true",
        help="ROOT is a data set of your own in this layout and with these parts: the published "
        "counts, frame numbers and Instance_ids are not expected",
    )
    parser.add_argument(
        "--split",
        nargs="+",
        choices=("train", "val", "test"),
        default=[],
        help="splits to prepare (default: all whose lists are there)",
    )
    parser.add_argument(
        "--on-bad",
        nargs="+",
        default=[],
        metavar="ACTION",
        help="what to do about bad files: 'name' them (default: images that can be read stay in), "
        "'skip' their images, or 'raise' an error at the first. KIND=ACTION makes an exception "
        "for a kind of finding; --list-kinds shows them",
    )
    parser.add_argument(
        "--list-kinds", action=_ListKinds, help="show the kinds of findings and exit"
    )
    parser.add_argument(
        "--rle", action="store_true", help="also write each person's pixels as 'segmentation'"
    )
    if not has_person_files:
        parser.add_argument(
            "--person-maps", action="store_true", help="also write a label map for each person"
        )
    _add_workers(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run has written"
    )


class _ListKinds(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from aiparsing_d2.preparation import Kind

        for kind in Kind:
            print(f"{kind.slug} ({kind.severity.value})")
            print(
                textwrap.fill(
                    f"{kind.meaning} {kind.remedy}",
                    96,
                    initial_indent="    ",
                    subsequent_indent="    ",
                )
            )
        parser.exit()


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from aiparsing_d2 import preparation
    from aiparsing_d2.parallel import WorkerDiedError

    data_set = preparation.DATA_SETS[args.data_set]
    try:
        request = preparation.PreparationRequest(
            data_set=data_set.as_own_data() if args.own_data else data_set,
            root=args.root,
            output=args.output,
            splits=tuple(dict.fromkeys(args.split)),
            on_bad=preparation.OnBadPolicy.parse(args.on_bad),
            num_workers=args.workers,
            with_rle=args.rle,
            write_person_maps=getattr(args, "person_maps", False),
            overwrite=args.overwrite,
        )
        report = preparation.prepare_data_set(request)
    except (
        preparation.BadDataError,
        preparation.JournalError,
        preparation.OutputExistsError,
        OSError,
        ValueError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except WorkerDiedError as error:
        print(f"error: {error} The same command goes on from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on from here.", file=sys.stderr)
        return 130
    print(report.summary())
    return 0


def run_ccp(args: argparse.Namespace) -> int:
    """Run the command for CCP; returns the exit status."""
    from aiparsing_d2.parallel import WorkerDiedError
    from aiparsing_d2.preparation.ccp import CCPRequest, FolderInUseError, convert_ccp

    request = CCPRequest(args.root, args.output, args.labels, args.last, args.workers)
    try:
        manifest = convert_ccp(request)
    except (FolderInUseError, ModuleNotFoundError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except WorkerDiedError as error:
        print(f"error: {error} The same command goes on from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on from here.", file=sys.stderr)
        return 130
    for split in ("train", "val"):
        if split in manifest:
            photographs = counted(manifest[split]["images"], "photograph")
            print(f"{split}: {photographs} of one person each")
    if manifest["left_out"]:
        print(f"Left out, as nobody's head is labelled: {', '.join(manifest['left_out'])}")
    print("Other people in the background have no labels. 0078 and 0984 are nearly the same.")
    print(f"In {args.output}; the pixels and people of each label are in ccp.json.")
    return 0
