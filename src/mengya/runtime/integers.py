"""Integer arithmetic that Python has no name for. Needs no library."""


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up; b above 0."""
    return -(-a // b)
