"""A message to whoever watches a run: that it is done, was stopped, or hangs.

`PODVISION_ALERT_URL` is the address of a webhook, such as those of Slack, Mattermost and Discord.
It is no key of the config, because such an address is a secret and configs are saved and shown.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from training.errors import ConfigError

URL = "PODVISION_ALERT_URL"
SECONDS = 10.0  # a run that has ended holds its devices until then


class Alerts:
    """Sends messages from the main process; a no-op on the others and without an address."""

    def __init__(
        self, run: str, workdir: str, main: bool, environment: Mapping[str, str] = os.environ
    ):
        """Looks at the address; nothing is sent.

        Args:
          run: name in the message.
          workdir: of the run, in the message as well.

        Raises:
          ConfigError: the address is none of http.
        """
        self._run, self._workdir = run, workdir
        self._url = environment.get(URL, "")
        if self._url and not _is_http(self._url):
            raise ConfigError(f"{URL} must be the address of a webhook: https://HOST/...")
        if not main:
            self._url = ""

    def send(self, event: str, step: int, sentence: str) -> None:
        """Posts JSON; a webhook that does not take it is said, and is no reason to stop.

        Args:
          event: done, preempted, stopped or hang.
          step: updates made so far.
          sentence: what happened.
        """
        if not self._url:
            return
        text = f"{self._run}: {event} at step {step:,}: {sentence} ({self._workdir})"
        facts = {"run": self._run, "workdir": self._workdir, "event": event, "step": step}
        # Slack and Mattermost show `text`, Discord `content`.
        body = {"text": text, "content": text, "sentence": sentence, **facts}
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS):
                pass
        except (OSError, http.client.HTTPException) as error:
            # Without the address, which would be in logs from then on.
            print(f"note: no alert was sent to {URL} ({_reason(error)})", file=sys.stderr)


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and address.isprintable()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    return str(getattr(error, "reason", None) or error) or type(error).__name__
