"""The checks of one config, from cheap to dear; what depends on a failed one is not tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax

from launch.preflight import arithmetic, data_run, fit, places, start_from
from launch.preflight.abstract import make_program
from launch.preflight.compiler import HOW_TO_INSTALL, Request, ask
from launch.preflight.forecast import forecast, forecast_row
from launch.preflight.prices import price
from launch.preflight.rows import FAIL, PASS, SKIP, Row, failed, one_line
from launch.preflight.search import search_row
from launch.preflight.stand_in import StandIn, stand_in_for
from launch.preflight.state_table import state_row
from launch.preflight.topology import Topology
from training.checkpoint.diff import SavedDescription
from training.checkpoint.restore import fitted
from training.config import TrainConfig
from training.errors import ConfigError, InputError, PodvisionError
from training.program import Program
from training.storage import PathLike


@dataclass(frozen=True)
class Options:
    """What the command line asks for, of all stages alike.

    Attributes:
      config, overrides: as given; topology: where the run will be.
      zone: of the slice, where it is known; dollars: of a chip-hour, instead of the list's.
      read_data: whether batches are read; search: whether other settings are tried.
    """

    config: str
    overrides: tuple[str, ...]
    topology: Topology
    zone: str | None = None
    dollars: float | None = None
    read_data: bool = True
    search: bool = False


class Stage:
    """The checks of one config; `rows` gives them as they are made.

    Attributes:
      program: on one device of this machine, for shapes; None where it could not be built.
    """

    def __init__(
        self,
        options: Options,
        name: str,
        config: TrainConfig,
        workdir: PathLike | None,
        previous: Stage | None = None,
    ):
        """`previous`: the stage before, where this one starts from it and it has not run yet."""
        self.options, self.name, self.config = options, name, config
        self.workdir, self.previous = workdir, previous
        self.topology = options.topology
        self.program: Program | None = None
        self.stand_in: StandIn | None = None

    def rows(self) -> Iterator[Row]:
        built, failure = self._build()
        yield from built
        if failure or self.program is None:
            return
        yield arithmetic.batch_row(self.program, self.config, self.topology)
        yield arithmetic.schedule_row(self.program)
        phases = arithmetic.windows_row(self.program)
        yield phases
        data = self._data()
        yield data
        yield self._start()
        yield from self._places()
        if failed([phases]):
            yield Row("compile", SKIP, "not tried: the config must be changed first")
            return
        yield from self._compiled(data)

    def _build(self) -> tuple[list[Row], bool]:
        """The program on one device, with the data or with what stands in for them."""
        # Whether the batch divides over the slice is the child's affair.
        config = fitted(self.config, 1)
        devices = jax.devices()[:1]
        found: list[Row] = []
        if self.options.read_data:
            try:
                self.program = make_program(config, devices)
                # Opened now, so that data that are not there are told before all else.
                self.program.task.sources()
            except (PodvisionError, OSError) as error:
                found.append(Row("data", FAIL, one_line(error)))
                self.program = None
        if self.program is None:
            stand_in = stand_in_for(self.config)
            try:
                self.program = make_program(config, devices, stand_in)
            except (PodvisionError, OSError) as error:
                if not found:
                    found.append(Row("config", FAIL, one_line(error)))
                return found, True
            self.stand_in = stand_in
        resolved = f"system {self.config.system}, {sum(self._counts().values()):,} parameters"
        return [Row("config", PASS, resolved), *found], False

    def _counts(self) -> dict[str, int]:
        assert self.program is not None
        return self.program.task.describe().parameter_counts

    def _data(self) -> Row:
        assert self.program is not None
        if not self.options.read_data:
            figures = "; figures of the system stand in" if self._stands_in() else ""
            return Row("data", SKIP, f"not read, as --no-data asks{figures}")
        if self.stand_in is not None:
            return Row("data rows", SKIP, "no batch was read: the data could not be opened")
        return data_run.data_row(self.program)

    def _stands_in(self) -> bool:
        return self.stand_in is not None and self.stand_in.known

    def _start(self) -> Row:
        assert self.program is not None
        if self.workdir is not None:
            resumed = start_from.resume_row(self.program, self.config, self.workdir)
            if resumed is not None:
                return resumed
        return start_from.init_row(self.program, self._handed_on())

    def _handed_on(self) -> SavedDescription | None:
        if self.previous is None:
            return None
        before = self.previous
        assert before.program is not None
        return start_from.description_of(before.program, before.name, before.facts())

    def facts(self) -> dict[str, Any]:
        """What a checkpoint of this stage says of its task, as far as it is known without data."""
        assert self.program is not None
        if self.stand_in is not None and self.stand_in.known:
            return dict(self.stand_in.metadata or {})
        try:
            facts = self.program.task.metadata()
        except (PodvisionError, OSError):
            return {}  # of data that cannot be opened, which a row of their own says
        return {"train_examples": self.program.train_examples, **facts}

    def _places(self) -> Iterator[Row]:
        if self.workdir is None:
            yield Row("work folder", SKIP, "none was named; --workdir DIR has it looked at")
            return
        yield places.workdir_row(self.workdir, self.topology.hosts)
        region = places.region_row(self.workdir, self.topology, self.options.zone)
        if region is not None:
            yield region

    def _compiled(self, data: Row) -> Iterator[Row]:
        assert self.program is not None
        try:
            answer = self._ask(())
        except ConfigError as error:
            yield Row("mesh", FAIL, one_line(error))
            return
        except InputError as error:
            yield Row("compile", FAIL, one_line(error))
            return
        arrays = answer["state"]
        yield state_row(arrays)
        yield places.host_memory_row(arrays, self.topology)
        if self.workdir is not None:
            total = self.program.total_updates
            yield places.disk_row(arrays, total, self.config.checkpoint, self.workdir)
        if "key" not in answer:
            yield Row("compile", SKIP, HOW_TO_INSTALL)
            return
        if "refused" not in answer:  # else the row of memory says all
            yield self._compile_row(answer)
        yield fit.memory_row(answer, self.topology, self.config)
        if "refused" not in answer:
            yield fit.traffic_row(answer, self.topology)
            at = price(self.topology.family, self.options.dollars)
            yield forecast_row(answer, self.topology, self.program.total_updates, at)
            if data.facts.get("read"):
                seconds = forecast(answer, self.topology).least
                size = self.config.batch_size
                yield data_run.rate_row(data.facts, size, seconds, self.topology)
        if self.options.search:
            yield search_row(self.config, self.topology, self._ask)

    def _compile_row(self, answer: dict[str, Any]) -> Row:
        shape = f", largest of {answer['variants']} shapes {answer['variant']}"
        calls = f", {answer['updates']} updates a call" if answer["updates"] > 1 else ""
        how = "known from before" if answer["cached"] else "compiled just now"
        sentence = (
            f"the update was compiled by libtpu for {self.topology.name}, "
            f"{self.topology.devices} devices ({how}; {answer['compile_seconds']:.0f} CPU seconds)"
            f"{calls}{shape if answer['variant'] else ''}"
        )
        if self._stands_in():
            sentence += "; figures of the system stand in for the data"
        if "cache_note" in answer:
            sentence += f"; {answer['cache_note']}"
        facts = {key: value for key, value in answer.items() if key not in ("state", "collectives")}
        return Row("compile", PASS, sentence, facts)

    def _ask(self, overrides: tuple[str, ...]) -> dict[str, Any]:
        own = tuple(f"{self.name}.{text}" if self.name else text for text in overrides)
        return ask(
            Request(
                self.options.config,
                (*self.options.overrides, *own),
                self.name,
                self.options.topology.name,
                self.stand_in,
            )
        )
