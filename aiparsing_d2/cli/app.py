"""``app``: a web page that shows people and parts of a picture or clip that is dropped on it.

::

    python -m aiparsing_d2 app
"""

from __future__ import annotations

import argparse
import sys
import threading

from .argument_types import positive
from .model_arguments import add_model_arguments, make_predictor

__all__ = ["add_parser", "run"]

_EPILOG = """\
The page needs no internet and nothing leaves the machine. It needs Gradio, and PyAV for clips:
pip install "aiparsing_d2[app]"

examples:
  aiparsing app
  aiparsing app --host 0.0.0.0 --port 8000 --device cuda   # for others in the network too
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "app",
        help="serve a web page: drop a picture or a clip, see people and parts",
        description="Serve a web page: drop a picture or a clip, see its people and their parts, "
        "download masks, labels, video and JSON.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 lets other machines in, without a password; default: "
        "%(default)s, this machine alone",
    )
    server.add_argument(
        "--port", type=int, metavar="N", help="default: the first free one from 7860 on"
    )
    server.add_argument(
        "--max-megabytes",
        type=float,
        default=64,
        metavar="N",
        help="larger files are refused; default: %(default)s",
    )
    server.add_argument(
        "--max-megapixels",
        type=float,
        default=50,
        metavar="N",
        help="larger pictures are refused; default: %(default)s",
    )
    server.add_argument(
        "--max-frames",
        type=positive,
        default=300,
        metavar="N",
        help="of a longer clip every second frame is parsed, or every third, ..., and at five a "
        "second the end is left out; default: %(default)s, which last a minute then",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        from aiparsing_d2.app.page import serving
        from aiparsing_d2.app.upload import UploadParser

        predictor = make_predictor(args)
        parser = UploadParser(predictor, args.max_megapixels, args.max_frames)
        with serving(
            parser,
            threshold=predictor.score_threshold,
            host=args.host,
            port=args.port,
            max_megabytes=args.max_megabytes,
        ) as address:
            print(f"Open {address} in a browser; Ctrl-C ends.", flush=True)
            threading.Event().wait()
    except (ImportError, OSError, ValueError) as error:
        print(f"aiparsing app: {error}", file=sys.stderr)
        return 1
    return 0
