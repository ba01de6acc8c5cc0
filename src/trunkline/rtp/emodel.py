"""How good a call sounds: the E-model (ITU-T G.107) reduced to what a media engine knows."""

from typing import Final

R0: Final = 93.2
"""Rating with G.107's default values and no impairment."""
BPL: Final = 25.1
"""Robustness of G.711 with concealment against random loss (G.113 Appendix I)."""
_KNEE_MS: Final = 177.3


def rating(loss: float, delay_ms: float) -> float:
    """R, 0 to 93.2. `loss`: share of packets lost (0 to 1); `delay_ms`: from mouth to ear."""
    percent = min(max(loss, 0.0), 1.0) * 100
    effective = 95 * percent / (percent + BPL)
    delay = 0.024 * delay_ms + max(0.0, 0.11 * (delay_ms - _KNEE_MS))
    return max(0.0, R0 - effective - delay)


def mos(loss: float, delay_ms: float) -> float:
    """Mean opinion score, 1 to 4.5 (G.107 Annex B), rounded to two places."""
    r = rating(loss, delay_ms)
    return round(max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6), 2)
