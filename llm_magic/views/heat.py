"""How unlikely a token was, as a tint: the less likely, the stronger; below one in ten it is underlined too."""

from __future__ import annotations

UNDERLINE_BELOW = 0.1
_TINT_RGB = (240, 130, 20)  # an orange that leaves black and white text readable on it at the alphas used
_MAX_ALPHA = 0.5
_TERMINAL_TINTS = ((0.02, 208), (0.1, 215), (0.3, 222), (0.6, 230))  # below this probability: that colour of 256


def tint_style(probability: float | None) -> str:
    """CSS that survives JupyterLab's sanitiser; empty for a token that was nearly sure.

    >>> tint_style(0.02)
    'background:rgba(240,130,20,0.49);border-bottom:2px solid rgba(240,130,20,1)'
    >>> tint_style(0.99)
    ''
    """
    if probability is None:
        return ""
    alpha = round(_MAX_ALPHA * (1 - probability), 2)
    if alpha < 0.03:
        return ""
    rgb = ",".join(map(str, _TINT_RGB))
    underline = f";border-bottom:2px solid rgba({rgb},1)" if probability < UNDERLINE_BELOW else ""
    return f"background:rgba({rgb},{alpha}){underline}"


def tint_ansi(text: str, probability: float | None) -> str:
    """Text for a terminal of 256 colours: black on the tint, so that it is readable on any background."""
    if probability is None or not text.strip("\n"):
        return text
    colour = next((colour for limit, colour in _TERMINAL_TINTS if probability < limit), None)
    if colour is None:
        return text
    underline = ";4" if probability < UNDERLINE_BELOW else ""
    # a tint ends at each line's end: a newline with a background colours the rest of the screen's line
    lines = (f"\x1b[38;5;16;48;5;{colour}{underline}m{line}\x1b[0m" if line else "" for line in text.split("\n"))
    return "\n".join(lines)
