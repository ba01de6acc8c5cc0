"""`python -m trunkline.media.native`: build the helper now rather than when the first media process starts."""

import sys

from trunkline.media.native.build import BuildFailed, library

try:
    library()
except BuildFailed as error:
    sys.exit(f"the media engine's helper in C cannot be built: {error}")
