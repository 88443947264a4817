"""Many peers, seen only through the ports of :mod:`stellar_overlay.interfaces`."""
