# twistd -ny tac/overlay.tac: a node with the settings of $STELLAR_OVERLAY_CONFIG, else the defaults.
import os

from stellar_overlay.tap import application as node

config = os.environ.get("STELLAR_OVERLAY_CONFIG")
application = node([config] if config else [])
