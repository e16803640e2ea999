"""Garbage collection in the processes of the commands."""

import gc
import subprocess
import sys

import pytest

from poolwise import exit_codes
from poolwise.garbage import NEW_OBJECTS
from poolwise.sweeps.launch import Carry


@pytest.fixture
def often():
    before = gc.get_threshold()
    gc.set_threshold(700)
    yield
    gc.set_threshold(*before)


def test_a_command_collects_rarely(often, monkeypatch):
    monkeypatch.setattr(exit_codes.signal, "signal", lambda *_: None)
    with exit_codes.exit_codes():
        assert gc.get_threshold()[0] == NEW_OBJECTS


def test_a_job_in_another_process_collects_rarely(often):
    Carry().on_job_start(None)
    assert gc.get_threshold()[0] == NEW_OBJECTS


def test_after_its_first_job_a_process_looks_through_nothing_that_existed_then():
    code = """
import gc
from poolwise.sweeps.launch import Carry

kept = [[number] for number in range(100_000)]
Carry().on_job_end(None, None)
before = gc.get_freeze_count()
more = [[number] for number in range(1000)]
Carry().on_job_end(None, None)  # of the second job, whose objects may be garbage
print(before > len(kept), gc.get_freeze_count() - before)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["True", "0"]
