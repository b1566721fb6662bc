"""How numbers are written for people who watch a run. What is not known is a dash."""


def percent(share: float | None) -> str:
    """A share of 0 to 1."""
    return "-" if share is None else f"{100 * share:.0f} %"


def number(value: float | None) -> str:
    """Three digits."""
    return "-" if value is None else f"{value:.3g}"


def duration(seconds: float) -> str:
    """In the unit that fits: "40 s", "4 min", "2 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def join(parts: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
