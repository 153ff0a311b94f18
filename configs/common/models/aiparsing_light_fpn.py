"""AIParsing-light with ResNet-50 FPN, 20 classes (paper, Table IX and "Runtime Analysis").

Outside the backbone half the channels, and half the serial convolutions of the detection towers and
the parsing head. Goes with smaller images: short side 580 to 600 for training, 600 at test, long
side at most 1000.
"""

from .aiparsing_fpn import model

model.backbone.out_channels = 128
model.proposal_generator.head.num_convs = 2
_head = model.roi_heads.parsing_head
_head.context.out_channels = 256
_head.conv_dims = [256, 256]
_head.score_head.in_channels = 256
_head.score_head.conv_dim = 64
_head.score_head.fc_dim = 128
