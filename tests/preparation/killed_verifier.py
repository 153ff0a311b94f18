"""In a module that worker processes import fast."""

import os
import signal

from aiparsing_d2.preparation.verification import ImageVerifier


class KilledVerifier(ImageVerifier):
    """As if the system killed its process at the second image."""

    def __call__(self, files):
        if files.image_id == "0000002":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(files)
