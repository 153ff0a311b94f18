#!/usr/bin/env python
"""Puts the weights of a finished run into the package, in half precision.

    python tools/publish_weights.py photographs/aiparsing_lite0_FPN_ccp \
        --checkpoint output/aiparsing_lite0_FPN_ccp/model_final.pth --licence "..."

The weights must fit the config's model, tensor by tensor. Of a run with train.ema.enabled they are
the averaged ones. Compare their figures with the checkpoint's before you commit them:

    python train_net.py --config-file configs/photographs/aiparsing_lite0_FPN_ccp.py --eval-only \
        train.init_checkpoint=aiparsing_d2/model_zoo/weights/photographs/aiparsing_lite0_FPN_ccp.safetensors
"""

import argparse

import aiparsing_d2  # isort: skip  # noqa: F401  before Detectron2: ignores its deprecation warnings

from detectron2.config import instantiate

from aiparsing_d2 import __version__
from aiparsing_d2.engine import FittingCheckpointer, check_init_checkpoint
from aiparsing_d2.model_zoo import get_config
from aiparsing_d2.model_zoo.shipped_weights import write_shipped_weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the config, e.g. photographs/aiparsing_lite0_FPN_ccp")
    parser.add_argument("--checkpoint", required=True, help="model_final.pth of a run with it")
    parser.add_argument("--licence", required=True, help="what the file says about its use")
    args = parser.parse_args()

    check_init_checkpoint(args.checkpoint)
    model = instantiate(get_config(args.name).model)
    FittingCheckpointer(model).load(args.checkpoint)
    metadata = {
        "format": "pt",
        "config": args.name,
        "licence": args.licence,
        "model_card": "docs/MODEL_CARD.md",
        "version": __version__,
    }
    file = write_shipped_weights(args.name, model.state_dict(), metadata)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
