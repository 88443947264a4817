"""One connection: bytes and the time go in, messages and bytes come out."""
