"""The authors' AIParsing R-50 on CIHP, from their checkpoint, with the conventions of their code.

python -m aiparsing_d2 convert-weights authors <their>.pth output/authors_R_50_cihp.pth \
    --config-file configs/cihp/aiparsing_R_50_FPN_cihp_authors.py
python train_net.py --config-file configs/cihp/aiparsing_R_50_FPN_cihp_authors.py --eval-only
"""

from ..common.authors_conventions import use_authors_conventions
from .aiparsing_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

use_authors_conventions(model, dataloader, test_time_augmentation)
train.init_checkpoint = "output/authors_R_50_cihp.pth"
train.output_dir = "./output/aiparsing_R_50_FPN_cihp_authors"
