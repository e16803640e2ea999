"""The state of the code: commit, patch and lock, and whether they give the code back."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from poolwise.provenance import checkout as scratch
from poolwise.provenance import code as provenance
from poolwise.provenance.code import code_state
from poolwise.provenance.fingerprints import SOURCE, fingerprint, source_digest, source_files
from poolwise.provenance.stack import versions_of


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


def ignored(root: Path, name: str) -> None:
    """A file that git is told to ignore."""
    (root / ".git" / "info" / "exclude").write_text(f"{Path(name).name}\n")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("ignored\n")


@pytest.mark.parametrize("change", [lambda root: None, edit], ids=["clean", "changed"])
@pytest.mark.parametrize(
    "name",
    [
        "src/poolwise/local.py",
        "src/poolwise/report/templates/x.html",
        "src/x.so",
        "conf/prior/x.yaml",
        "experiments/x.yaml",
    ],
)
def test_a_file_of_the_run_that_git_ignores_is_in_no_patch_and_told(checkout, name, change):
    change(checkout)
    ignored(checkout, name)
    code = code_state(checkout)
    why = f"and the patch does not restore this code: {name} is ignored by git"
    assert code.state == f"changed since {code.commit[:12]}, {why}"


@pytest.mark.parametrize(
    "name",
    ["src/__pycache__/x.py", "src/.venv/lib/x.py", "src/notes.txt", "src/x.pyc", "conf/.x/x.yaml", "conf/x.py", "x.py"],
)
def test_an_ignored_file_that_no_run_reads_matters_not(checkout, name):
    ignored(checkout, name)
    assert code_state(checkout).state.startswith("clean")


def add_repository(root: Path) -> None:
    (root / "src" / "vendored").mkdir()
    (root / "src" / "vendored" / "x.py").touch()
    git(root / "src" / "vendored", "init", "--quiet")  # a repository without a commit: git add refuses it


def add_repository_with_commit(root: Path) -> None:
    add_repository(root)
    git(root / "src" / "vendored", "add", "--all")
    git(root / "src" / "vendored", "commit", "--quiet", "--message", "Start")


def convert(root: Path) -> None:
    """Bytes that git changes on their way in, and does not change back."""
    (root / "src" / ".gitattributes").write_text("*.py text\n")
    (root / "src" / "model.py").write_bytes(b"one\r\ntwo\r\n")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (add_repository, "src/vendored cannot be added"),
        (add_repository_with_commit, "src/vendored is a repository of its own"),
        (lambda root: (root / "src" / "link").symlink_to("model.py"), "src/link is a symbolic link"),
        (convert, "src/model.py differs"),
    ],
    ids=["repository", "repository with commit", "link", "converted"],
)
def test_a_patch_that_does_not_give_the_code_back_says_so_when_it_is_made(checkout, change, why):
    change(checkout)
    code = code_state(checkout)
    assert code.state == f"changed since {code.commit[:12]}, and the patch does not restore this code: {why}"


def test_more_than_one_lost_file_is_counted(checkout):
    (checkout / ".git" / "info" / "exclude").write_text("*.py\n")
    for name in ("a.py", "b.py", "c.py"):
        (checkout / "src" / name).touch()
    assert code_state(checkout).state.endswith("src/a.py is ignored by git (and 2 more)")


def test_the_state_is_one_printable_line_for_a_file_of_any_name(checkout):
    (checkout / ".git" / "info" / "exclude").write_text("*.yaml\n")
    (checkout / "conf" / "a\nb\udcf6.yaml").touch()
    assert code_state(checkout).state.endswith(r"conf/a\nb\udcf6.yaml is ignored by git")


def test_a_clean_tree_pays_for_no_checkout(checkout, monkeypatch):
    monkeypatch.setattr(provenance, "not_given_back", lambda *arguments: pytest.fail("a checkout was made"))
    assert code_state(checkout).state.startswith("clean")


def test_every_byte_is_in_the_patch_also_for_who_has_git_convert_ends_of_lines(checkout):
    git(checkout, "config", "core.autocrlf", "true")
    (checkout / "src" / "dos.py").write_bytes(b"one\r\ntwo\r\n")
    code = code_state(checkout)
    assert code.state == f"changed since {code.commit[:12]}"
    assert content(fresh_clone(checkout, code.patch) / "src") == content(checkout / "src")


def test_the_code_of_a_scratch_checkout_is_the_code_it_was_made_from(checkout):
    edit(checkout)
    code = code_state(checkout)
    with scratch.checkout(checkout, code.commit, code.patch) as again:
        found = code_state(again)
    assert (found.state, found.commit, found.patch) == (code.state, code.commit, code.patch)


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
    files = source_files(SOURCE)
    return provenance.Code(f"no commit, source {source_digest(SOURCE)[:12]}", "", "", "", files)


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


def test_the_files_are_those_of_the_package_that_runs(checkout):
    files = code_state(checkout).files
    model = (SOURCE / "model/count_model.py").read_bytes()
    assert files["model/count_model.py"] == hashlib.sha256(model).hexdigest()
    assert "report/templates/report.html" in files
    assert fingerprint(files) == source_digest(SOURCE)


# The lock.


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of three distributions, poolwise and pip."""
    found = "jax==0.12.0\nNumPyro==0.22.0\npip==26.1\npoolwise==0.1.0\nruamel.yaml==1.0\n"
    monkeypatch.setattr(provenance, "distributions", lambda: found)


LOCKED = """jax[cpu]==0.12.0 \\
    --hash=sha256:00
    # via poolwise
numpyro==0.22.0 ; python_version >= '3.12' \\
    --hash=sha256:01
pywin32==312 ; sys_platform == 'win32' \\
    --hash=sha256:02
ruamel-yaml==1.0 --hash=sha256:03
"""


def test_versions_are_read_from_requirements_and_locks_alike(installed):
    assert versions_of(LOCKED) == {"jax": "0.12.0", "numpyro": "0.22.0", "pywin32": "312", "ruamel-yaml": "1.0"}
    names = {"jax", "numpyro", "pip", "poolwise", "ruamel-yaml"}
    assert versions_of(provenance.distributions()).keys() == names


def commit_lock(root: Path, name: str, text: str) -> str:
    (root / name).write_text(text)
    git(root, "add", name)
    git(root, "commit", "--quiet", "--message", "Lock")
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_lock_of_the_commit_is_told_by_its_hash_alone(checkout, installed):
    sha256 = commit_lock(checkout, "requirements.lock", LOCKED)
    code = code_state(checkout)
    assert (code.state, code.lock) == (
        f"clean {code.commit[:12]}",
        provenance.Lock("requirements.lock", sha256, "", ()),
    )


def test_a_lock_that_is_not_the_one_of_the_commit_is_kept(checkout, installed):
    commit_lock(checkout, "requirements.lock", LOCKED)
    (checkout / "requirements.lock").write_bytes(b"# gr\xf6\xdfe\r\n" + LOCKED.encode())
    kept = code_state(checkout).lock.changed.encode("utf-8", "surrogateescape")
    assert kept == (checkout / "requirements.lock").read_bytes()


def test_a_lock_without_a_commit_is_kept(tmp_path, installed):
    (tmp_path / "requirements.lock").write_text(LOCKED)
    assert code_state(tmp_path.resolve()).lock.changed == LOCKED


@pytest.mark.parametrize(
    ("old", "new", "departures"),
    [
        ("numpyro==0.22.0", "numpyro==0.21.0", ("numpyro==0.22.0",)),
        ("numpyro==0.22.0", "other==1", ("numpyro==0.22.0",)),  # a pin with a condition may be for elsewhere
        ("ruamel-yaml==1.0", "six==1.0", ("ruamel-yaml==1.0", "no six==1.0")),
    ],
)
def test_what_is_installed_otherwise_than_locked_is_told(checkout, installed, old, new, departures):
    commit_lock(checkout, "requirements.lock", LOCKED.replace(old, new))
    assert code_state(checkout).lock.departures == departures


@pytest.mark.parametrize("nearest", ["requirements.lock", "requirements-ray.lock"])
def test_of_two_locks_the_one_that_is_installed_is_told(checkout, installed, nearest):
    for name in ("requirements.lock", "requirements-ray.lock"):
        commit_lock(checkout, name, LOCKED if name == nearest else LOCKED + "ray==2.0\n")
    lock = code_state(checkout).lock
    assert (lock.name, lock.departures) == (nearest, ())


def test_the_first_lock_is_told_where_both_are_installed(checkout, installed):
    for name in ("requirements.lock", "requirements-ray.lock"):
        commit_lock(checkout, name, LOCKED)
    assert code_state(checkout).lock.name == "requirements.lock"
