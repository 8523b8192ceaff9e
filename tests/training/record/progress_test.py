"""The meter against hand-made clocks, and the lines that a user reads."""

from __future__ import annotations

import io
import time

import pytest

from training.record.presentation import presentation_of
from training.record.progress import Meter, Progress, device_peak, format_duration, format_number


class Clock:
    """A clock that moves only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def tick(self, seconds):
        self.now += seconds


def test_median_and_p95_per_update():
    clock = Clock()
    meter = Meter(batch_size=8, clock=clock)
    meter.step()
    for index in range(100):
        clock.tick(1.0 if index < 94 else 5.0)
        meter.step()
    summary = meter.summary()
    assert summary["perf/step_seconds"] == pytest.approx(1.0)
    assert summary["perf/step_seconds_p95"] == pytest.approx(5.0)
    assert summary["perf/examples_per_second"] == pytest.approx(800 / (94 + 30))


def test_the_first_call_and_the_pauses_do_not_count():
    clock = Clock()
    meter = Meter(batch_size=4, clock=clock)
    clock.tick(60.0)
    meter.step()
    with meter.pause():
        clock.tick(1000.0)
    clock.tick(2.0)
    meter.step()
    assert meter.median_seconds() == pytest.approx(2.0)
    assert meter.summary()["perf/examples_per_second"] == pytest.approx(2.0)


def test_several_updates_in_one_call_are_shared_out():
    clock = Clock()
    meter = Meter(batch_size=4, clock=clock)
    meter.step()
    clock.tick(3.0)
    meter.step(updates=30)
    assert meter.median_seconds() == pytest.approx(0.1)
    assert meter.summary()["perf/examples_per_second"] == pytest.approx(40.0)


def test_waiting_for_data_is_a_fraction_of_the_step_and_leaves_the_lap():
    clock = Clock()
    meter = Meter(batch_size=1, clock=clock)
    meter.step()
    with meter.waiting():
        clock.tick(1.0)
    clock.tick(3.0)
    meter.step()
    assert meter.summary()["perf/data_wait_fraction"] == pytest.approx(0.25)
    assert meter.lap() == pytest.approx((1, 3.0, 1.0))
    assert meter.lap() == (0, 0.0, 0.0)


def test_only_the_window_counts():
    clock = Clock()
    meter = Meter(batch_size=1, window=3, clock=clock)
    meter.step()
    for seconds in (50.0, 1.0, 1.0, 1.0):
        clock.tick(seconds)
        meter.step()
    assert meter.summary()["perf/step_seconds_p95"] == pytest.approx(1.0)


def test_mfu_is_one_when_the_devices_run_at_their_peak():
    clock = Clock()
    meter = Meter(10, flops_per_example=275e12, device_kind="TPU v4", device_count=5, clock=clock)
    meter.step()
    clock.tick(2.0)
    meter.step()
    assert meter.summary()["perf/mfu"] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["cpu", "", "TPU v4 lite", "Apple M9"])
def test_unknown_devices_have_no_mfu(kind):
    clock = Clock()
    meter = Meter(1, flops_per_example=1e12, device_kind=kind, clock=clock)
    meter.step()
    clock.tick(1.0)
    meter.step()
    assert device_peak(kind) is None and "perf/mfu" not in meter.summary()


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("TPU v6e", 918e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
    ],
)
def test_device_peaks_follow_the_data_sheets(kind, peak):
    assert device_peak(kind) == peak


def test_before_the_second_call_nothing_is_claimed():
    meter = Meter(batch_size=1)
    assert meter.summary() == {} and meter.median_seconds() is None
    meter.step()
    assert meter.summary() == {}


def test_meter_and_progress_cost_far_less_than_a_millisecond_per_step():
    meter, stream = Meter(batch_size=1), io.StringIO()
    progress = Progress(total=2000, stream=stream)
    began = time.process_time()
    for step in range(2000):
        with meter.waiting():
            pass
        meter.step()
        progress.step(step)
        if step % 10 == 0:
            progress.log(step, {"train/loss": 1.0, **meter.summary()})
    assert (time.process_time() - began) / 2000 < 0.3e-3


def test_plain_lines_are_aligned_and_hold_loss_rate_and_eta():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(total=1000, stream=stream, clock=clock)
    for step, loss in ((1, 12.5), (10, 0.5), (500, 1e-5)):
        clock.tick(9.0 if step == 10 else 1.0)
        progress.step(step)
        progress.log(
            step,
            {"train/loss": loss, "train/learning_rate": 1e-4, "perf/examples_per_second": 64.0},
        )
    lines = stream.getvalue().splitlines()
    assert lines[1] == (
        "step    10/1000    1.0 %  loss 0.5000      rate 1.000e-04    64.00 examples/s  eta 16 min"
    )
    assert len({line.index("eta") for line in lines}) == 1
    assert lines[0].endswith("eta ?")


def test_other_processes_print_nothing():
    stream = io.StringIO()
    progress = Progress(total=10, main=False, stream=stream)
    progress.step(1)
    progress.log(1, {"train/loss": 1.0})
    progress.say("hello")
    progress.close()
    assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_bar_with_loss_and_eta():
    clock, stream = Clock(), Terminal()
    progress = Progress(total=100, stream=stream, clock=clock)
    progress.step(1)
    clock.tick(10.0)
    progress.step(11)
    progress.log(11, {"train/loss": 0.123456})
    progress.evaluation(11, {"psnr": 24.125})
    progress.close()
    text = stream.getvalue()
    assert "loss 0.1235" in text and "eta 89 s" in text and "eval  11  psnr 24.12" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(48, "48 s"), (720, "12 min"), (11100, "3 h 05 min"), (187200, "2 d 04 h"), (-1, "0 s")],
)
def test_durations_read_naturally(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4312, "0.4312"),
        (1.2345e-5, "1.234e-05"),
        (12345.6, "12346"),
        (0.0, "0"),
        (1, "1.000"),
        (1382, "1382"),
    ],
)
def test_numbers_have_four_digits(value, text):
    assert format_number(value) == text


def test_the_lines_of_a_system_follow_each_logged_step():
    out = io.StringIO()
    metrics = {
        "train/loss": 0.04,
        "train/grad_norm_data/means": 4.0e-10,
        "train/grad_norm_data/shN": 0.0,
        "train/grad_norm/means": 3.0,
    }
    progress = Progress(10, stream=out, lines=presentation_of("splats").progress_lines)
    progress.log(5, metrics)
    assert out.getvalue().splitlines()[1].strip() == (
        "gradient norms of the data terms: means 4.0e-10  shN 0.0e+00"
    )
    progress.log(6, {"train/loss": 0.04})
    assert len(out.getvalue().splitlines()) == 3


def test_a_system_may_choose_the_metrics_of_an_evaluation_that_are_shown():
    metrics = {"AR": 0.1, "AP": 0.5, "AP50": 0.75}
    for headline, shown in (
        ((), "AR 0.1000  AP 0.5000  AP50 0.7500"),
        (("AP50", "F1"), "AP50 0.7500"),
    ):
        out = io.StringIO()
        Progress(10, stream=out, headline=headline).evaluation(5, metrics)
        assert out.getvalue().rstrip("\n") == f"eval  5  {shown}"
