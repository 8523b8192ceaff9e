"""What became of every input file: counts by scanner and reason, and the verdict on the ok rate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from jepa3d.data.index import Row
from jepa3d.data.volume import SkipReason

COLUMNS = ("scanner", "volumes", "skipped", "ok rate", "reasons")


@dataclass
class ScannerCount:
    """Counts of one scanner. A series of single-frame files is one volume of several files."""

    volumes: int = 0
    files_of_volumes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> int:
        """Skipped files that should have been volumes."""
        return sum(n for name, n in self.skipped.items() if not SkipReason(name).is_exclusion)

    @property
    def ok_fraction(self) -> float:
        """ok / (ok + faults); 1 when there is nothing to judge."""
        judged = self.files_of_volumes + self.faults
        return self.files_of_volumes / judged if judged else 1.0


@dataclass
class Account:
    """The result of `prepare`.

    Attributes:
      scanners: counts by scanner.
      splits: volumes by split.
      files: number of files that could have been volumes, or part of one.
      new_volumes: volumes that this run converted; 0 when nothing had changed.
      other_files: by their ending, files that are no candidates (tables, texts, single images).
      sparse_volumes: volumes that cover less than a tenth of the grid.
      minimum_ok_fraction: floor for every scanner that has a name.
    """

    scanners: dict[str, ScannerCount]
    splits: dict[str, int]
    files: int
    new_volumes: int
    other_files: Counter[str]
    sparse_volumes: int
    minimum_ok_fraction: float

    @property
    def volumes(self) -> int:
        """Number of prepared volumes."""
        return sum(count.volumes for count in self.scanners.values())

    @property
    def below_floor(self) -> list[str]:
        """Scanners whose ok rate is below the floor; files of no known scanner are not judged."""
        return [
            name
            for name, count in sorted(self.scanners.items())
            if name != "unknown" and count.ok_fraction < self.minimum_ok_fraction
        ]

    def fault(self) -> str:
        """One sentence when too little could be used, "" when all is well."""
        if self.volumes == 0:
            return f"none of the {self.files} input files gave a volume; see the reasons above"
        if not self.below_floor:
            return ""
        parts = [f"{name} {self.scanners[name].ok_fraction:.0%}" for name in self.below_floor]
        return (
            f"the share of usable files is below {self.minimum_ok_fraction:.0%} for "
            f"{', '.join(parts)}; look up the reasons in index.jsonl, then repair the files or "
            "lower --minimum-ok-fraction"
        )

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """A row for each scanner, under `COLUMNS`."""
        rows = []
        for name, count in sorted(self.scanners.items()):
            reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(count.skipped.items()))
            skipped, share = str(sum(count.skipped.values())), f"{count.ok_fraction:.0%}"
            rows.append((name, str(count.volumes), skipped, share, reasons or "-"))
        return rows

    def table(self) -> str:
        """Plain-text table: per scanner the kept volumes and the skipped files by reason."""
        rows = [COLUMNS, *self.rows()]
        # The reasons come last and are not padded.
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))])
            + f"  {row[4]}"
            for row in rows
        ]
        shares = ", ".join(f"{split} {n}" for split, n in sorted(self.splits.items())) or "none"
        lines.append(f"{self.files} files, {self.volumes} volumes ({shares})")
        if self.other_files:
            kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self.other_files.items()))
            lines.append(
                f"{self.other_files.total()} other file(s), each named in index.jsonl: {kinds}"
            )
        if self.sparse_volumes:
            lines.append(f"{self.sparse_volumes} volume(s) cover less than 10 % of the grid")
        return "\n".join(lines)


def account_of(rows: list[Row], new_volumes: int, minimum_ok_fraction: float) -> Account:
    """Counts the rows of an index."""
    scanners: dict[str, ScannerCount] = {}
    splits: Counter[str] = Counter()
    others: Counter[str] = Counter()
    sparse = 0
    for row in rows:
        if row["reason"] == SkipReason.OTHER_FILE:
            others[PurePosixPath(row["path"]).suffix.lower() or "without ending"] += 1
            continue
        count = scanners.setdefault(row["scanner"], ScannerCount())
        if row["status"] != "ok":
            count.skipped[row["reason"]] += 1
            continue
        count.files_of_volumes += 1
        # The other files of a series have no volume of their own.
        if row["part_of"] is None:
            count.volumes += 1
            splits[row["split"]] += 1
            sparse += row["valid_fraction"] < 0.1
    files = len(rows) - others.total()
    return Account(scanners, dict(splits), files, new_volumes, others, sparse, minimum_ok_fraction)
