"""Greets people by their names."""


def greeting(names: list[str]) -> str:
    """A sentence for all of them."""
    if not names:
        return "Hello, whoever you are!"
    *others, last = names
    together = f"{', '.join(others)} and {last}" if others else last
    return f"Hello, {together}!"
