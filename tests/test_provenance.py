"""What decides a result: fingerprints that change with it and with nothing else, and the state of the code."""

import copy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from poolwise import provenance
from poolwise.config import CONF, Config, check, register_resolvers
from poolwise.provenance import (
    code_state,
    draw_ingredients,
    fingerprint,
    posterior_digests,
    run_ingredients,
    source_digest,
    stack,
)

SHA256 = "0" * 64  # of the data
DRAWS_DECIDED_BY = {
    *("seed", "pooling.name", "likelihood.name"),
    *("prior.mu.name", "prior.mu.concentration", "prior.mu.rate", "prior.sigma.name", "prior.sigma.rate"),
    *(f"sampler.{key}" for key in ("num_warmup", "num_samples", "num_chains", "target_accept", "max_tree_depth")),
    *("device.platform", "device.chain_method", "device.x64"),
}
RUN_DECIDED_BY = DRAWS_DECIDED_BY | {"checks.progress", "predict.num_draws", "predict.exposure", "plots.figures"}


@pytest.fixture(scope="module")
def default() -> Config:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check(compose("config"))


@pytest.fixture
def settings(default: Config) -> dict:
    """The default config, resolved."""
    return default.resolved()


def leaves(tree: dict, prefix: str = "") -> list[str]:
    return [
        leaf
        for key, value in tree.items()
        for leaf in (leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"])
    ]


def changed(settings: dict, dotted: str) -> dict:
    """The settings with another value of one key."""
    other = copy.deepcopy(settings)
    *parents, key = dotted.split(".")
    section = other
    for parent in parents:
        section = section[parent]
    section[key] = "another value"
    return other


def draws_fingerprint(settings: dict, sha256: str = SHA256) -> str:
    return fingerprint(draw_ingredients(settings, sha256))


def run_fingerprint(settings: dict, sha256: str = SHA256) -> str:
    return fingerprint(run_ingredients(settings, sha256))


# Fingerprints.


def test_the_draws_fingerprint_changes_with_what_decides_the_draws_alone(settings):
    # DESIGN: not checkpoint_every nor num_devices, nor the table's name and place, whose content has a hash
    before = draws_fingerprint(settings)
    assert {key for key in leaves(settings) if draws_fingerprint(changed(settings, key)) != before} == DRAWS_DECIDED_BY


def test_the_run_fingerprint_changes_with_checks_predictions_and_plots_too(settings):
    before = run_fingerprint(settings)
    assert {key for key in leaves(settings) if run_fingerprint(changed(settings, key)) != before} == RUN_DECIDED_BY


@pytest.mark.parametrize("of", [draws_fingerprint, run_fingerprint])
def test_fingerprints_change_with_the_data(settings, of):
    assert of(settings, SHA256) != of(settings, "1" + SHA256[1:])


@pytest.mark.parametrize("of", [draws_fingerprint, run_fingerprint])
def test_fingerprints_do_not_depend_on_the_order_of_the_keys(settings, of):
    turned = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(settings.items())
    }
    assert of(turned) == of(settings)


def test_fingerprints_see_the_smallest_change_of_a_prior_value(settings):
    other = copy.deepcopy(settings)
    other["prior"]["mu"]["rate"] = float(np.nextafter(0.2, 1))
    assert draws_fingerprint(other) != draws_fingerprint(settings)


def test_making_ingredients_changes_nothing_in_the_settings(settings):
    before = copy.deepcopy(settings)
    run_ingredients(settings, SHA256)
    assert settings == before


@pytest.mark.parametrize(
    ("name", "decides_draws"),
    [
        *(("data.py", True), ("model.py", True), ("fit.py", True), ("priors.py", True), ("table.py", True)),
        *(("predict.py", False), ("checks.py", False), ("figures.py", False), ("templates/report.html", False)),
    ],
)
def test_fingerprints_change_with_the_source(settings, monkeypatch, tmp_path, name, decides_draws):
    draws, run = draws_fingerprint(settings), run_fingerprint(settings)
    copied = tmp_path / "poolwise"
    shutil.copytree(provenance.SOURCE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "SOURCE", copied)
    with (copied / name).open("a") as file:
        file.write("\n")
    assert (draws_fingerprint(settings) != draws, run_fingerprint(settings) != run) == (decides_draws, True)


def test_the_source_digest_depends_neither_on_place_nor_on_what_python_compiled(monkeypatch, tmp_path):
    before = source_digest(provenance.SOURCE)
    shutil.copytree(provenance.SOURCE, tmp_path / "poolwise", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "poolwise" / "model.pyc").touch()
    monkeypatch.setattr(provenance, "SOURCE", tmp_path / "poolwise")
    assert source_digest(provenance.SOURCE) == before


@pytest.mark.parametrize("library", ["jax", "jaxlib", "numpyro", "numpy"])
def test_fingerprints_change_with_the_version_of_a_library(settings, monkeypatch, library):
    before, version = draws_fingerprint(settings), provenance.importlib.metadata.version
    monkeypatch.setattr(
        provenance.importlib.metadata, "version", lambda name: "0" if name == library else version(name)
    )
    assert draws_fingerprint(settings) != before


def test_fingerprints_change_with_the_version_of_python(settings, monkeypatch):
    before = draws_fingerprint(settings)
    monkeypatch.setattr(provenance.platform, "python_version", lambda: "3.0")
    assert draws_fingerprint(settings) != before


# Digests of the draws.


@pytest.fixture
def posterior() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"mu": rng.random((2, 3)), "lam": rng.random((2, 3, 4))}


@pytest.mark.parametrize("name", ["mu", "lam"])
def test_a_changed_bit_changes_the_digest_of_its_parameter_and_of_all(posterior, name):
    before = posterior_digests(posterior)
    posterior[name].view(np.uint64)[1, 2] ^= 1
    after = posterior_digests(posterior)
    assert {each for each in before if after[each] != before[each]} == {name, "all"}


def test_the_same_draws_under_another_name_have_another_digest():
    draws = np.zeros((2, 3))
    assert posterior_digests({"mu": draws})["all"] != posterior_digests({"sigma": draws})["all"]


@pytest.mark.parametrize(
    "other",
    [np.zeros((3, 2)), np.zeros((2, 3), np.int64), np.zeros((2, 3), ">f8"), np.full((2, 3), -0.0)],
    ids=["shape", "type", "byte order", "sign of zero"],
)
def test_the_same_bytes_of_another_kind_have_another_digest(other):
    assert posterior_digests({"mu": other}) != posterior_digests({"mu": np.zeros((2, 3))})


def test_digests_do_not_depend_on_order_nor_layout(posterior):
    turned = {name: np.asfortranarray(draws) for name, draws in reversed(posterior.items())}
    assert posterior_digests(turned) == posterior_digests(posterior)


# The state of the code.


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git as it is installed: no settings of this machine, no repository named by a hook that runs the tests."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_EXTERNAL_DIFF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project with one commit."""
    root = tmp_path.resolve() / "checkout"
    for name in ("src/model.py", "src/old.py", "conf/config.yaml", "experiments/grid.yaml", "README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"one\ntwo\n{name}\n")
    (root / "src" / "logo.png").write_bytes(bytes(range(256)))
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Start")
    return root


def content(root: Path) -> dict[str, tuple[bytes, bool]]:
    """Every file of a tree: its bytes and whether it can be run."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.read_bytes(), bool(path.stat().st_mode & 0o100)) for path in files}


def fresh_clone(checkout: Path, patch: str) -> Path:
    """A new clone of the commit with the patch applied, as it is stored in `code/changes.patch`."""
    clone, file = checkout.parent / "clone", checkout.parent / "changes.patch"
    file.write_bytes(patch.encode("utf-8", "surrogateescape"))
    git(checkout.parent, "clone", "--quiet", str(checkout), str(clone))
    git(clone, "apply", str(file))
    return clone


def edit(root: Path) -> None:
    (root / "src" / "model.py").write_text("one\n2\n")


def test_a_checkout_as_committed_is_clean(checkout):
    code = code_state(checkout)
    head = git(checkout, "rev-parse", "HEAD").strip()
    assert (code.state, code.commit, code.branch, code.patch) == (f"clean {head[:12]}", head, "main", "")


def stage(root: Path) -> None:
    edit(root)
    git(root, "add", "--all")


@pytest.mark.parametrize(
    "change",
    [
        edit,
        stage,
        lambda root: (root / "src" / "new.py").touch(),
        lambda root: (root / "src" / "old.py").unlink(),
        lambda root: (root / "src" / "old.py").rename(root / "src" / "new.py"),
        lambda root: (root / "src" / "old.py").chmod(0o755),
        lambda root: (root / "conf" / "config.yaml").write_text("other"),
        lambda root: (root / "experiments" / "new.yaml").write_text("new"),
    ],
    ids=["edited", "staged", "untracked", "deleted", "renamed", "mode", "conf", "experiments"],
)
def test_a_change_is_told_and_its_patch_makes_the_same_tree(checkout, change: Callable[[Path], None]):
    change(checkout)
    code = code_state(checkout)
    assert code.state == f"changed since {code.commit[:12]}"
    clone = fresh_clone(checkout, code.patch)
    for folder in ("src", "conf", "experiments"):
        assert content(clone / folder) == content(checkout / folder)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("logo.png", bytes(reversed(range(256)))),  # binary
        ("new.bin", bytes(range(256)) * 20),
        ("Größe 日本.py", "größe = 1\n".encode()),
        ("latin.py", "# gr\xf6\xdfe\n".encode("latin-1")),  # not UTF-8
        ("dos.py", b"one\r\ntwo\r\n"),
        ("open.py", b"no end of line"),
        ("tab\there.py", b"tab\n"),
    ],
)
def test_the_patch_holds_files_of_any_name_and_content(checkout, name, new):
    (checkout / "src" / name).write_bytes(new)
    clone = fresh_clone(checkout, code_state(checkout).patch)
    assert content(clone / "src") == content(checkout / "src")


@pytest.mark.parametrize("name", ["README.md", "notes.txt", "data/private.csv"])
def test_a_change_outside_the_recorded_folders_is_none(checkout, name):
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("private")
    code = code_state(checkout)
    assert (code.state, code.patch) == (f"clean {code.commit[:12]}", "")


def test_a_change_outside_the_recorded_folders_stays_out_of_the_patch(checkout):
    edit(checkout)
    (checkout / "README.md").write_text("private")
    (checkout / "notes.txt").write_text("private")
    assert "private" not in code_state(checkout).patch


@pytest.mark.parametrize(
    "setting",
    [
        *("diff.noprefix=true", "diff.mnemonicPrefix=true", "diff.external=true", "diff.context=0"),
        *("color.ui=always", "core.quotePath=false", "core.autocrlf=false"),
        "diff.upper.textconv=tr a-z A-Z <",  # a driver that shows files otherwise than they are
    ],
)
def test_the_patch_does_not_depend_on_how_the_user_likes_diffs(checkout, setting):
    git(checkout, "config", *setting.split("="))
    (checkout / ".git" / "info" / "attributes").write_text("*.py diff=upper\n")
    edit(checkout)
    clone = fresh_clone(checkout, code_state(checkout).patch)
    assert content(clone / "src") == content(checkout / "src")


def test_a_change_that_git_cannot_add_is_not_called_clean(checkout):
    edit(checkout)
    (checkout / "src" / "vendored").mkdir()
    git(checkout / "src" / "vendored", "init", "--quiet")  # a repository without a commit: git add refuses it
    assert not code_state(checkout).state.startswith("clean")


def test_the_checkout_itself_is_not_touched(checkout):
    edit(checkout)
    git(checkout, "add", "src/model.py")
    (checkout / "src" / "model.py").write_text("three\n")
    (checkout / "src" / "new.py").touch()
    before = content(checkout)  # .git too: its index and its objects
    code_state(checkout)
    assert content(checkout) == before


def test_git_status_is_the_same_before_and_after(checkout):
    stage(checkout)
    (checkout / "src" / "new.py").touch()
    before = git(checkout, "status", "--porcelain")
    code_state(checkout)
    assert git(checkout, "status", "--porcelain") == before


def test_a_worktree_is_a_checkout_too(checkout):
    tree = checkout.parent / "tree"
    git(checkout, "worktree", "add", "--quiet", "-b", "other", str(tree))
    edit(tree)
    code = code_state(tree)
    assert (code.branch, code.state) == ("other", f"changed since {code.commit[:12]}")
    assert "+2" in code.patch


@pytest.fixture
def no_commit() -> provenance.Code:
    """What is known of code that is in no checkout: the digest of its source."""
    return provenance.Code(f"no commit, source {source_digest(provenance.SOURCE)[:12]}", "", "", "")


def test_a_folder_outside_git_has_the_digest_of_the_source(tmp_path, no_commit):
    assert code_state(tmp_path.resolve()) == no_commit


def test_a_repository_without_a_commit_has_the_digest_of_the_source(tmp_path, no_commit):
    git(tmp_path, "init", "--quiet")
    assert code_state(tmp_path.resolve()) == no_commit


def test_a_machine_without_git_has_the_digest_of_the_source(checkout, no_commit, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state(checkout) == no_commit


def test_a_package_inside_another_projects_checkout_is_not_taken_for_it(checkout, no_commit):
    installed = checkout / ".venv" / "lib"
    (installed / "src").mkdir(parents=True)
    assert code_state(installed) == no_commit


# The stack.


def test_the_stack_holds_versions_flags_and_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    found = stack({"platform": "cpu", "num_devices": 2})
    expected = {"platform": "cpu", "num_devices": 2, "xla_flags": "--xla_dump_to=x", "numpy": np.__version__}
    assert expected.items() <= found.items()
    assert {"python", "system", "cpu", "cores", "jax", "jaxlib", "numpyro"} <= found.keys()


def test_distributions_are_pinned_lines_in_alphabetic_order():
    lines = provenance.distributions().splitlines()
    assert lines == sorted(set(lines), key=str.lower)
    assert f"numpy=={np.__version__}" in lines
