"""Makes ``twist stellar-overlay`` and ``twistd stellar-overlay`` known."""

from twisted.application.service import ServiceMaker

stellar_overlay = ServiceMaker(
    "stellar-overlay", "stellar_overlay.tap", "A Stellar overlay node", "stellar-overlay"
)
