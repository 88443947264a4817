"""Bytes of the protocol: framing, messages, keys. No state but buffers, no clock, no transport."""
