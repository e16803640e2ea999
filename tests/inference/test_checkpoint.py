"""Chunks to files and back: whatever breaks, what is loaded is whole."""

import errno
import hashlib
import itertools
import os
import resource
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolwise.inference import checkpoint
from poolwise.inference.engines import nuts
from poolwise.inference.snapshot import Snapshot
from poolwise.model.priors import prior_values
from support import DEVICE, PRIORS, SAMPLER, at_once, digest, model_of, same_bits

NUM_WARMUP = 10
TRUTH = np.random.default_rng(0).normal(size=(4, 30, 2))  # all draws of a fit that was never made
SHORT = replace(SAMPLER, num_warmup=150, num_samples=200, checkpoint_every=70)
SCRIPT = """
import jax, os, signal
from pathlib import Path
sys.path.insert(0, 'tests/inference')
from poolwise.counts.cells import read_counts
from poolwise.inference import checkpoint, devices
from support import Device, digest
from test_checkpoint import fit_short
n, folder = {n}, Path({folder!r})
devices.start_devices(platform='cpu', num_devices=n, x64=True, num_chains=4, cache_dir='unused')
table = read_counts('data/cookies.csv', group='location', count='chips')
"""
GO_ON = """
seen = []
device = Device(platform='cpu', num_devices=n, chain_method='map', x64=True)
begin = checkpoint.load(folder)
done = fit_short(table, device=device, resume_from=begin, on_chunk=lambda chunk: seen.append(chunk.steps))
assert jax.device_count() == n
print(seen, digest(done.posterior), digest(done.sample_stats), sep='|')
"""
KILLED = """
calls, sync = [], os.fsync
def fsync(file):
    calls.append(file)
    os.kill(os.getpid(), signal.SIGKILL) if len(calls) == {call} else sync(file)
os.fsync = fsync
fit_short(table, on_chunk=lambda chunk: checkpoint.save(folder, chunk))
"""


def fit_short(counts, **changes):
    """Hierarchical negative binomial, chunks after 70, 140, 150, 220, 290 and 350 steps."""
    values = prior_values(PRIORS, sites=("mu", "sigma", "delta"))
    model = model_of("hierarchical", "negative_binomial")
    return nuts.sample(model, counts, values, **({"seed": 0, "sampler": SHORT, "device": DEVICE} | changes))


def warmed_up(steps):
    return Snapshot(steps, {".i": np.full(4, steps)}, {}, seconds=steps / 8)


def sampled(begin, end):
    """The chunk between these draws of `TRUTH`."""
    return replace(warmed_up(NUM_WARMUP + end), drawn={"site/lam": TRUTH[:, begin:end]})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def saved(folder, chunk):
    """The file that a chunk is kept in."""
    before = contents(folder) if folder.exists() else {}
    checkpoint.save(folder, chunk)
    (name,) = contents(folder).keys() - before.keys()
    return folder / name


def write_named(folder, steps, content):
    """A file of this content under the name that makes it a chunk."""
    path = folder / f"{steps:09d}.{hashlib.sha256(content).hexdigest()}.npz"
    path.write_bytes(content)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two chunks of the warm-up, and of sampling those that end after 5, 10 and 15 draws."""
    chunks = (warmed_up(5), warmed_up(10), sampled(0, 5), sampled(5, 10), sampled(10, 15))
    for chunk in chunks:
        checkpoint.save(tmp_path / "chunks", chunk)
    return tmp_path / "chunks"


def test_chunk_comes_back_to_the_bit(tmp_path):
    state = {
        ".z['lam']": np.asfortranarray(TRUTH[:, 0]),
        ".adapt_state.mm_state[('delta', 'lam')][0]": np.array([-0.0, np.nan, np.inf, 5e-324]),
        ".rng_key": np.arange(8, dtype=np.uint32).reshape(4, 2),
        "file": np.zeros(4, dtype=np.float32),
    }
    drawn = {"site/lam": TRUTH[:, :7], "diverging": TRUTH[:, :7, 0] > 0, "num_steps": np.arange(28).reshape(4, 7)}
    checkpoint.save(tmp_path, Snapshot(7, state, drawn, seconds=0.1))
    found = checkpoint.load(tmp_path)
    assert (found.steps, found.seconds) == (7, 0.1)
    for kept, back in ((state, found.state), (drawn, found.drawn)):
        assert same_bits(kept, back)
        assert [(v.dtype, v.shape) for v in kept.values()] == [(back[k].dtype, back[k].shape) for k in kept]


def test_no_folder_and_an_empty_folder_hold_no_chunk(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "never made") is None


def test_loading_joins_the_draws_and_takes_the_last_state(folder):
    found = checkpoint.load(folder)
    assert (found.steps, found.seconds, found.state[".i"][0]) == (25, 25 / 8, 25)
    assert same_bits(found.drawn, {"site/lam": TRUTH[:, :15]})


def test_warm_up_is_one_state_and_no_draws(tmp_path):
    for steps in (10, 5):  # the order in which they were written says nothing
        checkpoint.save(tmp_path, warmed_up(steps))
    found = checkpoint.load(tmp_path)
    assert (found.steps, found.drawn) == (10, {})


@given(
    runs=st.lists(
        st.lists(st.integers(0, 12), min_size=2, max_size=8, unique=True).map(sorted), min_size=1, max_size=4
    ),
    torn=st.sets(st.integers(0, 40)),
)
def test_chunks_of_runs_with_other_lengths_make_the_longest_row(runs, torn):
    spans = sorted({span for ends in runs for span in itertools.pairwise(ends)})
    kept = [span for k, span in enumerate(spans) if k not in torn]
    reachable = {0}
    for _ in kept:
        reachable |= {end for begin, end in kept if begin in reachable}
    with tempfile.TemporaryDirectory() as name:
        checkpoint.save(Path(name), warmed_up(NUM_WARMUP))
        for k, span in enumerate(spans):
            path = saved(Path(name), sampled(*span))
            os.truncate(path, path.stat().st_size // (2 if k in torn else 1))
        found = checkpoint.load(Path(name))
    assert found.steps == found.state[".i"][0] == NUM_WARMUP + max(reachable)
    assert same_bits(found.drawn, {"site/lam": TRUTH[:, : max(reachable)]} if max(reachable) else {})


@given(which=st.integers(0, 4), data=st.data())
def test_cutting_a_file_anywhere_leaves_the_row_before_it(which, data):
    # every state of the warm-up stands alone, so what comes after the first one needs it not
    chunks = (warmed_up(5), warmed_up(10), sampled(0, 5), sampled(5, 10), sampled(10, 15))
    left = (25, 5, 10, 15, 20)[which]
    with tempfile.TemporaryDirectory() as name:
        path = [saved(Path(name), chunk) for chunk in chunks][which]
        os.truncate(path, data.draw(st.integers(0, path.stat().st_size - 1)))
        found = checkpoint.load(Path(name))
    assert found.steps == found.state[".i"][0] == left
    assert same_bits(found.drawn, {"site/lam": TRUTH[:, : left - 10]} if left > 10 else {})


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_byte_that_changed_makes_a_file_worthless(position, change):
    with tempfile.TemporaryDirectory() as name:
        path = saved(Path(name), warmed_up(5))
        content = bytearray(path.read_bytes())
        content[position % len(content)] ^= change
        path.write_bytes(content)
        assert checkpoint.load(Path(name)) is None


def test_what_is_no_chunk_is_left_out(folder):
    whole = checkpoint.load(folder)
    last = max(folder.iterdir())
    (folder / f"{30:09d}.{'0' * 64}.npz").write_bytes(b"garbage")
    (folder / f"{31:09d}.{'1' * 64}.npz").mkdir()
    (folder / "000000032.npz").write_bytes(last.read_bytes())
    (folder / "000000033.part").write_bytes(last.read_bytes())
    for content in (b"", b"garbage", b"PK\x05\x06" + bytes(18)):  # the last is an archive of nothing
        write_named(folder, 34, content)
    found = checkpoint.load(folder)
    assert found.steps == whole.steps
    assert same_bits(found.drawn, whole.drawn)


def test_a_pickle_in_a_chunk_is_never_opened(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "opened",)

    arrays = {"steps": np.array(10), "seconds": np.array(0.0), "state .i": np.array([Payload()], dtype=object)}
    np.savez(tmp_path / "pickled.npz", allow_pickle=True, **arrays)
    write_named(tmp_path, 10, (tmp_path / "pickled.npz").read_bytes())
    assert checkpoint.load(tmp_path) is None
    assert not (tmp_path / "opened").exists()


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("called", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [full_disk, interrupt])
def test_chunk_that_cannot_be_kept_leaves_no_trace(called, failure, folder, monkeypatch):
    before = contents(folder)
    monkeypatch.setattr(os, called, failure)
    with pytest.raises(OSError, match="No space left") if failure is full_disk else pytest.raises(KeyboardInterrupt):
        checkpoint.save(folder, sampled(15, 20))
    assert contents(folder) == before


def test_chunk_that_is_written_in_part_leaves_no_trace(folder):
    before = contents(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))  # bytes; a chunk has more than a thousand
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(folder, sampled(15, 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(folder) == before


def test_chunk_has_its_name_only_when_it_is_on_the_disk(tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(os, "fsync", lambda _: named.append([path.suffix for path in tmp_path.iterdir()]))
    checkpoint.save(tmp_path, warmed_up(5))
    assert named == [[".part"], [".npz"]]  # the file, then the folder


@pytest.fixture(scope="module")
def unbroken(cookies):
    """The short fit that goes through, and its chunks."""
    chunks = []
    return fit_short(cookies, on_chunk=chunks.append), chunks


@pytest.fixture(scope="module")
def elsewhere(unbroken, tmp_path_factory):
    """Processes that go on from four chunks on 1 and 4 devices, and two that are killed while they keep a chunk.

    By the number of devices, and by the call of fsync that kills: (what became of the process, its folder).
    """
    folders = {key: tmp_path_factory.mktemp(f"at-{key}") for key in ("on 1", "on 4", "call 1", "call 7")}
    for chunk in unbroken[1][:4]:
        for num_devices in (1, 4):
            checkpoint.save(folders[f"on {num_devices}"], chunk)
    codes = {f"on {n}": SCRIPT.format(n=n, folder=str(folders[f"on {n}"])) + GO_ON for n in (1, 4)}
    codes |= {f"call {k}": SCRIPT.format(n=2, folder=str(folders[f"call {k}"])) + KILLED.format(call=k) for k in (1, 7)}
    return {key: (done, folders[key]) for key, done in zip(codes, at_once(*codes.values()), strict=True)}


@pytest.mark.process
@pytest.mark.parametrize("num_devices", [1, 4])
def test_fit_goes_on_from_files_on_another_number_of_devices(num_devices, elsewhere, unbroken):
    whole, (done, _) = unbroken[0], elsewhere[f"on {num_devices}"]
    assert done.returncode == 0, done.stderr
    steps, posterior, stats = done.stdout.split("|")
    assert steps == "[290, 350]"
    assert (posterior, stats.strip()) == (digest(whole.posterior), digest(whole.sample_stats))


@pytest.mark.process
@pytest.mark.parametrize("call", [1, 7], ids=["the first chunk", "the fourth"])
def test_fit_that_was_killed_while_it_kept_a_chunk_goes_on(call, cookies, elsewhere, unbroken):
    killed, folder = elsewhere[f"call {call}"]
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(folder.glob("*.part"))) == 1
    begin = checkpoint.load(folder)
    assert begin is None if call == 1 else begin.steps == 150
    again = fit_short(cookies, resume_from=begin, on_chunk=lambda chunk: checkpoint.save(folder, chunk))
    assert same_bits(again.posterior, unbroken[0].posterior)
    assert same_bits(fit_short(cookies, resume_from=checkpoint.load(folder)).posterior, unbroken[0].posterior)
