"""What workers say reaches the parent, in order; a worker that breaks off harms nobody."""

import subprocess
import sys
from multiprocessing.connection import Client

import pytest

from bnsuite.channel import Channel, send


def test_messages_arrive_in_order() -> None:
    heard: list[tuple[str, str]] = []
    with Channel(lambda name, text: heard.append((name, text))) as channel:
        for i in range(20):
            send(channel.address, "cell", f"λ = {i}")
    assert heard == [("cell", f"λ = {i}") for i in range(20)]


def test_a_worker_that_breaks_off_is_passed_over() -> None:
    heard: list[str] = []
    with Channel(lambda name, text: heard.append(text)) as channel:
        place, key = channel.address
        Client(place, authkey=key).close()
        with Client(place, authkey=key) as connection:
            connection.send_bytes(b"not JSON")
        send(channel.address, "cell", "still here")
    assert heard == ["still here"]


def test_a_parent_that_is_gone_ends_the_worker() -> None:
    with Channel(lambda name, text: None) as channel:
        pass
    with pytest.raises(OSError, match=r"."):
        send(channel.address, "cell", "anyone?")


def test_a_worker_leaves_with_a_parent_that_was_killed() -> None:
    worker = (
        "import os, time; from bnsuite.channel import leave_with_parent; leave_with_parent(os.getppid()); "
        "print('ready', flush=True); time.sleep(60)"
    )
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        parent.communicate(timeout=20)  # ends when the worker lets go of the pipe, too
