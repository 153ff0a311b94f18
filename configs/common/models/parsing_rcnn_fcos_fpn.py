"""Parsing R-CNN's parsing branch on the FCOS detector, ResNet-50 FPN, 20 classes.

"Anchor-free-parsing" of the paper's Table IV and "Parsing R-CNN (w/ FCOS)" of Table VII: AIParsing
with ASPP in place of PGEC and without edges, group normalisation and refinement.
"""

from aiparsing_d2.modeling.roi_heads import ASPP

from .aiparsing_fpn import model

_head = model.roi_heads.parsing_head
_head.context._target_ = ASPP
_head.norm = ""
_head.edge_on = False
_head.miou_loss_weight = 0.0
_head.score_head = None
# Part logits of 128x128.
_head.upsample_factor = 2
