"""Decodes lossless JPEG (process 14) in a process of its own.

GDCM is the one permissively licensed decoder of it, and it ends the whole process on some damaged
streams. This file is its own worker: `decode` starts it as a script, sends the frames through a
pipe and reads the pixels back; a frame that ends the worker is reported and the next ones go on.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from typing import Any, BinaryIO

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

_ANSWER = struct.Struct("<BI")  # 1 for pixels or 0 for an error text; length
_SECONDS_PER_FRAME = 20


def decode(frames: list[bytes], options: dict[str, Any], allowed_errors: int) -> list[Any]:
    """Decodes frames one by one.

    Args:
      frames: compressed streams.
      options: keyword arguments of pydicom's `Decoder.as_array`, as JSON can hold them.
      allowed_errors: after more errors than this the rest is not tried.

    Returns:
      For each frame its array [row, column] or an error text.
    """
    results: list[Any] = []
    while len(results) < len(frames):
        results += _run_worker(frames[len(results) :], options)
        if len(results) < len(frames):
            # Answers come in order, so the frame after the last answer ended the worker.
            results.append("the decoder crashed on this frame")
        if sum(isinstance(result, str) for result in results) > allowed_errors:
            results += ["not tried"] * (len(frames) - len(results))
    return results


def _run_worker(frames: list[bytes], options: dict[str, Any]) -> list[Any]:
    """Answers of one worker, fewer than frames when it was brought down."""
    head = json.dumps({"options": options, "lengths": [len(f) for f in frames]}).encode()
    request = struct.pack("<I", len(head)) + head + b"".join(frames)
    # -P keeps this folder, whose files have common names, off the worker's search path.
    try:
        answer = subprocess.run(
            [sys.executable, "-P", __file__],
            input=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS_PER_FRAME * (1 + len(frames)),
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as error:
        # What was answered before the time ran out counts; the next frame is taken to have hung.
        answer = error.stdout or b""
    return _parse(answer, options)


def _parse(answer: bytes, options: dict[str, Any]) -> list[Any]:
    results: list[Any] = []
    position = 0
    shape = (options["rows"], options["columns"])
    while position + _ANSWER.size <= len(answer):
        good, length = _ANSWER.unpack_from(answer, position)
        value = answer[position + _ANSWER.size : position + _ANSWER.size + length]
        position += _ANSWER.size + length
        if len(value) < length:
            break
        if not good:
            results.append(value.decode(errors="replace"))
            continue
        words = np.frombuffer(value, np.dtype(f"<u{options['bits_allocated'] // 8}"))
        signed = words.view(words.dtype.str.replace("u", "i"))
        pixels = signed if options["pixel_representation"] else words
        results.append(
            pixels.reshape(shape) if pixels.size == shape[0] * shape[1] else "wrong size"
        )
    return results


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The worker: reads one request and answers frame by frame."""
    (length,) = struct.unpack("<I", requests.read(4))
    request = json.loads(requests.read(length))
    options = request["options"]
    options["transfer_syntax_uid"] = UID(options["transfer_syntax_uid"])
    decoder = get_decoder(options["transfer_syntax_uid"])
    for size in request["lengths"]:
        frame = requests.read(size)
        try:
            array, _ = decoder.as_array(
                encapsulate([frame]), index=0, raw=True, decoding_plugin="gdcm", **options
            )
            good, value = 1, np.ascontiguousarray(array).tobytes()
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            good, value = 0, str(error).encode()
        answers.write(_ANSWER.pack(good, len(value)) + value)
        # At once: what was decoded before a crash must not be lost with the buffer.
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
