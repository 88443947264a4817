"""Placeholder until the generated walker lands."""


def check(body: bytes) -> None:
    """Refuse a body that is not canonical."""
