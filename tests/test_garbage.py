"""Garbage collection in the processes of the commands."""

import gc

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
