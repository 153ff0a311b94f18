"""Instance-level human parsing (AIParsing, IEEE TIP 2022) as a Detectron2 extension.

Importing this package is cheap and registers nothing. The registrations happen on import of the
sub-packages that hold the registered parts:

* :mod:`aiparsing_d2.modeling`: meta-architecture, proposal generator, ROI heads and their parts;
* :mod:`aiparsing_d2.data.datasets`: the data set splits.
"""

import warnings

# Detectron2, fvcore and torchvision do so when they are imported, and nobody here can change it.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")

__version__ = "0.1.0"
