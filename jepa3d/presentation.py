"""How the metrics of V-JEPA3D are named in charts."""

from __future__ import annotations

TITLES = {
    "rankme": ("RankMe", "effective rank"),
    "rankme_centered": ("RankMe, centered", "effective rank"),
}
SPELLINGS = {"knn": "kNN", "rankme": "RankMe"}
