"""What an hour of a chip costs, in US dollars: on demand, and the range of spot prices.

List prices of US regions, as catalogs gave them in November 2026; that of v4 is from an older one.
They change and differ between regions and contracts: `--price` gives the one that counts.
"""

from __future__ import annotations

from dataclasses import dataclass

DATE = "November 2026"
# Generation -> (on demand, cheapest spot, dearest spot); those that are not here have no list price
# that could be trusted.
PER_CHIP_HOUR = {
    "v4": (3.22, 0.97, 0.97),
    "v5p": (4.20, 0.84, 1.68),
    "v6e": (2.70, 0.54, 1.35),
}


@dataclass(frozen=True)
class Price:
    """Dollars for an hour of one chip; spot is None where only one price was given."""

    on_demand: float
    spot: tuple[float, float] | None = None


def price(family: str, given: float | None = None) -> Price | None:
    """The price of a generation, or the one that the user gave; None where neither is known."""
    if given is not None:
        return Price(given)
    if family not in PER_CHIP_HOUR:
        return None
    on_demand, *spot = PER_CHIP_HOUR[family]
    return Price(on_demand, (spot[0], spot[1]))


def cost_sentence(hours: tuple[float, float], chips: int, at: Price | None) -> str:
    """What so many hours, from the least to the most, cost on all chips."""
    if at is None:
        return "no list price is known for these chips; give one by --price DOLLARS"
    on_demand = _range(hours[0] * chips * at.on_demand, hours[1] * chips * at.on_demand)
    if at.spot is None:
        return f"{on_demand} at ${at.on_demand:.2f} a chip-hour (--price)"
    spot = _range(hours[0] * chips * at.spot[0], hours[1] * chips * at.spot[1])
    return f"{on_demand} on demand, {spot} spot (list prices of {DATE}; --price overrides)"


def _range(low: float, high: float) -> str:
    low_text, high_text = f"${low:,.2f}", f"${high:,.2f}"
    if low >= 100:
        low_text, high_text = f"${low:,.0f}", f"${high:,.0f}"
    return low_text if low_text == high_text else f"{low_text} to {high_text}"
