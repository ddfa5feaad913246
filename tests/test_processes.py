"""What workers say reaches the parent, in order; whoever breaks off harms nobody."""

import signal
import subprocess
import sys
from multiprocessing.connection import Client
from threading import Thread

import pytest

from bnsuite.processes import Channel, interrupts_wait, send


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
        "import os, time; from bnsuite.processes import leave_with_parent; leave_with_parent(os.getppid()); "
        "print('ready', flush=True); time.sleep(3600)"
    )
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        parent.communicate(timeout=600)  # ends when the worker lets go of the pipe, too


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    reached = []

    def interrupted() -> None:
        with interrupts_wait():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == ["the end"]
    with pytest.raises(KeyboardInterrupt):  # and after it comes as ever
        signal.raise_signal(signal.SIGINT)


def test_interrupts_are_the_main_threads_alone() -> None:
    reached = []

    def elsewhere() -> None:
        with interrupts_wait():
            reached.append("the end")

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert reached == ["the end"]
