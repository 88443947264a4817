"""The tests. STELLAR_OVERLAY_LOG shows our log on standard error, under pytest and trial alike."""

from __future__ import annotations

import sys

from twisted.logger import globalLogPublisher

from stellar_overlay.error import ConfigError
from stellar_overlay.log_levels import LOG_LEVELS, TO_STDERR

try:
    if LOG_LEVELS.configure():
        globalLogPublisher.addObserver(TO_STDERR)  # trial begins logging itself
except ConfigError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
