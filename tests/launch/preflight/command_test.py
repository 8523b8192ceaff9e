"""The command as a user gives it; the compiler's answers are recorded or those of the CPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from launch import cli
from launch.preflight import checks, child, compiler
from launch.preflight.stand_in import stand_in_for
from tests.launch.preflight.examples import answer
from training.errors import ConfigError, InputError
from training.registry import load_config

SMOKE = ("preflight", "--config", "configs/jepa3d/smoke.py", "--topology", "v4-8", "--no-data")


@pytest.fixture
def asked(monkeypatch):
    """Requests to the compiler, which answers with the figures given."""
    requests = []

    def install(*answers):
        given = list(answers)

        def ask(request):
            requests.append(request)
            found = given.pop(0) if len(given) > 1 else given[0]
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(checks, "ask", ask)
        return requests

    return install


def rows_of(capsys, *argv):
    code = cli.main([*argv, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] == (code == 0)
    return code, {(row["stage"], row["check"]): row for row in printed["rows"]}


def test_a_run_that_fits_is_let_go(asked, capsys):
    requests = asked(answer())
    assert cli.main([*SMOKE]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1].startswith("nothing speaks against the run")
    for text in (
        "200 updates of 8 examples",
        "█",
        "10.50 of 30.75 GiB",
        "an update takes at least",
    ):
        assert text in shown
    assert requests[0].topology == "v4-8"


def test_a_run_that_does_not_fit_is_refused_with_numbers(asked, capsys):
    asked({**answer(), "refused": "Ran out.", "needed_gib": 40.0, "available_gib": 30.75})
    assert cli.main([*SMOKE]) == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("refused: memory: ") and "by 9.25 GiB" in last


def test_missing_data_are_a_sentence_and_the_program_is_weighed_all_the_same(asked, capsys):
    asked(answer())
    code, rows = rows_of(capsys, *SMOKE[:-1])
    assert code == 2
    assert rows["", "data"]["state"] == "FAIL"
    assert "does not exist; run `podvision prepare" in rows["", "data"]["sentence"]
    assert rows["", "memory"]["state"] == "pass"


def test_a_mesh_that_does_not_fit_the_slice_is_refused(asked, capsys):
    asked(ConfigError("config.mesh does not fit 4 devices"))
    code, rows = rows_of(capsys, *SMOKE)
    assert code == 2 and rows["", "mesh"]["sentence"] == "config.mesh does not fit 4 devices"


def test_without_the_compiler_the_row_says_how_to_install_it(asked, capsys):
    asked({"state": answer()["state"], "variant": None, "variants": 0})
    code, rows = rows_of(capsys, *SMOKE)
    assert code == 0 and rows["", "compile"]["state"] == "skipped"
    assert "pip install 'podvision[tpu]'" in rows["", "compile"]["sentence"]


def test_a_start_that_is_not_there_is_refused(asked, capsys, tmp_path):
    asked(answer())
    code, rows = rows_of(capsys, *SMOKE, "--init-from", str(tmp_path))
    assert code == 2 and "no complete checkpoint" in rows["", "checkpoint"]["sentence"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--topology", "v4-9"], "--topology v4-9 is not known; did you mean v4-8?"),
        (["--price", "-1"], "--price -1.0 must be above 0"),
        (["--config.batch_sise=3"], "did you mean batch_size?"),
    ],
)
def test_bad_arguments_are_one_sentence(capsys, more, sentence):
    assert cli.main([*SMOKE, *more]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_a_detector_without_data_has_the_numbers_of_coco(asked, capsys):
    requests = asked(answer(variant="(64, 64)", variants=2))
    code, rows = rows_of(
        capsys, "preflight", "--config", "configs/rtdetr/smoke.py", "--topology", "v4-8",
        "--no-data",
    )  # fmt: skip
    assert code == 0, rows
    assert requests[0].stand_in.train_examples == 118_287
    assert "stand in for the data" in rows["", "compile"]["sentence"]
    assert "largest of 2 shapes (64, 64)" in rows["", "compile"]["sentence"]


@pytest.mark.parametrize(
    ("recipe", "known", "classes"), [("rtdetr/smoke.py", True, 80), ("jepa3d/smoke.py", False, 0)]
)
def test_a_system_may_say_what_stands_in_for_its_data(recipe, known, classes):
    found = stand_in_for(load_config(f"configs/{recipe}"))
    assert found.known == known and len((found.metadata or {}).get("classes", ())) == classes


PIPELINE = """
from configs.jepa3d import smoke


def get_pipeline(arg):
    first, second = smoke.get_config(), smoke.get_config()
    second.checkpoint = dict(init_from="previous")
    second.model.encoder.dim = int(arg)
    return [("first", first), ("second", second)]
"""


@pytest.mark.parametrize(("width", "code"), [(96, 0), (48, 2)])
def test_every_stage_is_checked_against_what_the_one_before_will_leave(
    asked, capsys, tmp_path, width, code
):
    requests = asked(answer())
    (tmp_path / "both.py").write_text(PIPELINE)
    recipe = f"{tmp_path / 'both.py'}:{width}"
    found, rows = rows_of(capsys, "preflight", "--config", recipe, *SMOKE[3:])
    assert [request.stage for request in requests] == ["first", "second"]
    row = rows["second", "checkpoint"]
    assert found == code and "stage first, still to run" in row["sentence"]
    assert row["state"] == ("FAIL" if code else "pass")
    assert rows["second", "phases"]["facts"]["windows"]


@pytest.mark.slow
def test_the_stages_of_hands_and_objects_fit_each_other(asked, capsys):
    asked(answer())
    recipe = "configs/hand_object/pipeline.py:synthetic,smoke"
    code, rows = rows_of(capsys, "preflight", "--config", recipe, *SMOKE[3:])
    assert code == 0, [row for row in rows.values() if row["state"] == "FAIL"]
    assert "stage rgb, still to run" in rows["sds", "checkpoint"]["sentence"]


def request(**changes):
    facts = dict(config="configs/jepa3d/smoke.py", overrides=[], stage="", topology="v4-16")
    return facts | {"stand_in": None, "libtpu": False} | changes


def test_the_child_says_what_a_device_holds():
    overrides = ["mesh.fsdp=4", "mesh.fsdp_min_bytes=1000"]
    found = child.answered(request(overrides=overrides))
    rows = {row["path"]: row for row in found["state"]}
    kernel = rows["params/encoder/layers/fc1/kernel"]
    assert kernel["bytes"] == 4 * 96 * 384 * 4 == 4 * kernel["bytes_per_device"]
    assert "fsdp" in kernel["spec"] and rows["step"]["spec"] == "replicated"
    assert "key" not in found
    # Volumes of 16 x 64 x 64 voxels and less: one of eight a device.
    assert 0 < found["batch_gib_per_device"] < 1e-3


def test_the_child_refuses_what_does_not_divide(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["child", json.dumps(request(overrides=["batch_size=12"]))])
    assert child.main() == 0
    assert "is not divisible by" in json.loads(capsys.readouterr().out)["error"]


def done(monkeypatch, **result):
    ran = []

    def run(command, **options):
        ran.append(options["env"])
        return subprocess.CompletedProcess(command, **result)

    monkeypatch.setattr(compiler.subprocess, "run", run)
    return ran


def test_the_compiler_runs_apart_from_other_processes(monkeypatch):
    ran = done(monkeypatch, returncode=0, stdout='noise\n{"state": []}\n', stderr="")
    asked = compiler.Request("x.py", (), "", "tpu7x-32")
    assert compiler.ask(asked) == {"state": []}
    for name in ("ALLOW_MULTIPLE_LIBTPU_LOAD", "TPU_SKIP_MDS_QUERY"):
        assert ran[0][name] == "1"
    assert ran[0]["JAX_PLATFORMS"] == "cpu"


def test_without_libtpu_as_many_devices_stand_for_the_slice(monkeypatch):
    monkeypatch.setattr(compiler, "has_libtpu", lambda: False)
    ran = done(monkeypatch, returncode=0, stdout="{}", stderr="")
    compiler.ask(compiler.Request("x.py", (), "", "tpu7x-32"))
    assert ran[0]["XLA_FLAGS"].endswith("device_count=32")


def test_a_crash_of_the_compiler_is_a_sentence(monkeypatch):
    done(monkeypatch, returncode=-6, stdout="", stderr="one\nF1128 check failed\n\n")
    with pytest.raises(InputError, match="ended with code -6; its last words: F1128 check failed"):
        compiler.ask(compiler.Request("x.py", (), "", "v4-8"))


def test_an_error_of_the_child_is_a_sentence(monkeypatch):
    done(monkeypatch, returncode=0, stdout='{"error": "config.x is wrong"}', stderr="")
    with pytest.raises(ConfigError, match=r"config\.x is wrong"):
        compiler.ask(compiler.Request("x.py", (), "", "v4-8"))
