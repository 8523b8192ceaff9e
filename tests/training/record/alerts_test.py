"""Alerts reach a webhook with what happened, and never disturb the run."""

from __future__ import annotations

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.training.toy import CONFIG, ToyTask, task_with
from training.capabilities import Guards
from training.config import Duration
from training.errors import ConfigError, GuardStop
from training.loop import fit
from training.record import alerts
from training.record.alerts import URL, Alerts
from training.verdict import Verdict


@pytest.fixture
def webhook():
    """A server at `address` that keeps what is posted in `received` and answers with `code`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.received.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(server.code)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.code = [], 200
    server.address = f"http://127.0.0.1:{server.server_port}/secret"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_message_says_what_happened_in_the_words_of_the_common_services(webhook):
    Alerts("eyes", "gs://lab/eyes", True, {URL: webhook.address}).send(
        "stopped", 1200, "no gradient"
    )
    ((kind, body),) = webhook.received
    assert kind == "application/json"
    assert body["text"] == body["content"]
    assert body["text"] == "eyes: stopped at step 1,200: no gradient (gs://lab/eyes)"
    facts = {name: body[name] for name in ("run", "workdir", "event", "step", "sentence")}
    assert facts == {
        "run": "eyes", "workdir": "gs://lab/eyes", "event": "stopped", "step": 1200,
        "sentence": "no gradient",
    }  # fmt: skip


def test_other_processes_and_runs_without_an_address_send_nothing(webhook):
    Alerts("eyes", "run", False, {URL: webhook.address}).send("done", 1, "all")
    Alerts("eyes", "run", True, {}).send("done", 1, "all")
    assert webhook.received == []


@pytest.mark.parametrize("code", [404, 500])
def test_an_answer_that_is_an_error_is_said_without_the_address(webhook, capsys, code):
    webhook.code = code
    Alerts("eyes", "run", True, {URL: webhook.address}).send("done", 1, "all")
    said = capsys.readouterr().err
    assert f"it answered {code}" in said and "secret" not in said


def test_a_webhook_that_is_not_there_or_never_answers_is_said(monkeypatch, capsys):
    monkeypatch.setattr(alerts, "SECONDS", 0.2)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # accepts, answers nothing
        address = f"http://127.0.0.1:{silent.server_port}/"
        Alerts("eyes", "run", True, {URL: address}).send("done", 1, "all")
        assert "no alert was sent" in capsys.readouterr().err
    Alerts("eyes", "run", True, {URL: address}).send("done", 1, "all")
    assert "no alert was sent" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["hooks.example.com/x", "file:///etc", "https://", "http://[x", "http://a\nb"]
)
def test_what_is_no_address_is_refused_before_the_run(tmp_path, monkeypatch, address):
    monkeypatch.setenv(URL, address)
    # The whole sentence: what may be a secret is not in it.
    sentence = f"^{URL} must be the address of a webhook: https://HOST/...$"
    with pytest.raises(ConfigError, match=sentence):
        fit(ToyTask(), tmp_path / "run")


@pytest.mark.usefixtures("quick_compilation")
def test_the_end_of_a_run_is_told_with_its_reason(webhook, monkeypatch, tmp_path):
    monkeypatch.setenv(URL, webhook.address)
    config = dataclasses.replace(CONFIG, total=Duration(updates=4))
    fit(ToyTask(config), tmp_path / "done")
    refusal = Verdict("collapse", False, "features have collapsed")
    task = task_with(config, guards=lambda: Guards(names=("collapse",), start=lambda *_: [refusal]))
    with pytest.raises(GuardStop):
        fit(task, tmp_path / "stopped")
    (_, done), (_, stopped) = webhook.received
    assert done["event"] == "done" and done["step"] == 4
    assert stopped["event"] == "stopped" and "features have collapsed" in stopped["sentence"]
    assert stopped["workdir"].endswith("stopped")
