"""Rows of the table that `make bench` ends with (`benches/run.sh` collects them)."""

from __future__ import annotations


def row(what: str, measured: str, beside: str, ratio: float, *, most: float | None = None, least: float | None = None) -> None:
    """What was measured beside what, the first as a multiple of the second, and whether that is the goal.

    Beside an absolute goal the ratio is the part of it that is taken.
    """
    goal = f"at most {most}" if most is not None else f"at least {least}" if least is not None else ""
    missed = (most is not None and ratio > most) or (least is not None and ratio < least)
    print(f"| {what} | {measured} | {beside} | {ratio:.2f} | {goal} | {'missed' if missed else ''} |", flush=True)
