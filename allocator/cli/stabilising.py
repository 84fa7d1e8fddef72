"""`allocator stability FILE`."""


def stability_command() -> None:
    """x."""
