"""A scratch checkout gives the files back, touches nothing else, and takes no patch that no run records."""

import os
import subprocess
from pathlib import Path

import pytest

from poolwise.provenance.checkout import CheckoutError, checkout, not_given_back

FOLDERS = ("src", "conf", "experiments")


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git without the settings of this machine, and a folder of its own for what is temporary."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def make_repository(root: Path, *init: str) -> Path:
    for name in ("src/model.py", "conf/config.yaml", "experiments/grid.yaml", "README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"one\ntwo\n{name}\n")
    git(root, "init", "--quiet", *init)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Start")
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small project with one commit."""
    return make_repository(tmp_path.resolve() / "repository")


def head(root: Path) -> str:
    return git(root, "rev-parse", "HEAD").strip()


def patch_of(root: Path) -> str:
    """What was staged, as a patch; the repository is clean again after it."""
    git(root, "add", "--all")
    patch = git(root, "diff", "--cached", "--binary", "HEAD")
    git(root, "reset", "--quiet", "--hard")
    return patch


def edited(root: Path) -> str:
    (root / "src" / "model.py").write_text("one\n2\nsrc/model.py\n")
    return patch_of(root)


def content(root: Path) -> dict[str, bytes]:
    """Every file of a tree, those of git too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def without_git(root: Path) -> dict[str, bytes]:
    return {name: each for name, each in content(root).items() if not name.startswith(".git/")}


def refused(root: Path, commit: str, patch: str = "") -> str:
    """The message of a checkout that is refused; that nothing is left is a claim of every test that uses it."""
    with pytest.raises(CheckoutError) as caught, checkout(root, commit, patch):
        pass
    assert not list((root.parent / "scratch").iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What it gives.


def test_a_commit_comes_back_whole(repository):
    with checkout(repository, head(repository), "") as again:
        assert without_git(again) == without_git(repository)


def test_an_older_commit_comes_back_without_what_came_later(repository):
    commit, before = head(repository), without_git(repository)
    (repository / "src" / "model.py").write_text("later\n")
    (repository / "src" / "new.py").write_text("later\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Later")
    with checkout(repository, commit, "") as again:
        assert without_git(again) == before


def test_a_patch_is_applied(repository):
    (repository / "src" / "model.py").write_text("one\n2\n")
    (repository / "src" / "new.bin").write_bytes(bytes(range(256)) * 5)
    (repository / "conf" / "config.yaml").unlink()
    expected = without_git(repository)
    patch = patch_of(repository)
    with checkout(repository, head(repository), patch) as again:
        assert without_git(again) == expected


def test_the_checkout_knows_its_commit_and_only_the_patch_differs_from_it(repository):
    patch = edited(repository)
    with checkout(repository, head(repository), patch) as again:
        assert head(again) == head(repository)
        assert git(again, "status", "--porcelain").split() == ["M", "src/model.py"]


def test_a_commit_that_no_branch_leads_to_is_found(repository):
    git(repository, "commit", "--quiet", "--amend", "--message", "Lost")
    lost = head(repository)
    git(repository, "reset", "--quiet", "--hard", "HEAD@{1}")
    assert lost != head(repository)
    with checkout(repository, lost, "") as again:
        assert head(again) == lost


def test_a_worktree_serves_as_well_as_the_repository(repository):
    git(repository, "worktree", "add", "--quiet", str(repository.parent / "tree"))
    with checkout(repository.parent / "tree", head(repository), edited(repository)) as again:
        assert (again / "src" / "model.py").read_text() == "one\n2\nsrc/model.py\n"


def test_a_repository_of_sha256_serves_too(tmp_path):
    repository = make_repository(tmp_path.resolve() / "long", "--object-format=sha256")
    with checkout(repository, head(repository), edited(repository)) as again:
        assert (len(head(again)), (again / "src" / "model.py").read_text()) == (64, "one\n2\nsrc/model.py\n")


def test_a_shallow_clone_has_its_last_commit(repository):
    shallow = repository.parent / "shallow"
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "Second")
    git(repository.parent, "clone", "--quiet", "--depth=1", f"file://{repository}", str(shallow))
    with checkout(shallow, head(repository), "") as again:
        assert without_git(again) == without_git(repository)


# What it leaves alone.


def test_nothing_is_left_behind_and_the_repository_is_as_it_was(repository):
    patch, commit = edited(repository), head(repository)
    before = content(repository)
    with checkout(repository, commit, patch) as again:
        (again / "src" / "__pycache__").mkdir()
    assert content(repository) == before
    assert not list((repository.parent / "scratch").iterdir())


def test_nothing_is_left_behind_by_a_failure_within(repository):
    with pytest.raises(ZeroDivisionError), checkout(repository, head(repository), ""):
        raise ZeroDivisionError
    assert not list((repository.parent / "scratch").iterdir())


def hostile_settings(folder: Path) -> str:
    """Settings of a user under which git would write other bytes, or run something that leaves `folder/ran`."""
    run = f"touch {folder}/ran"
    for place in ("hooks", "template/hooks"):
        (folder / place).mkdir(parents=True)
        for name in ("post-checkout", "post-index-change", "reference-transaction", "applypatch-msg"):
            (folder / place / name).write_text(f"#!/bin/sh\n{run}\n")
            (folder / place / name).chmod(0o755)
    (folder / "attributes").write_text("*.py text eol=crlf filter=shout\n")
    return (
        f"[core]\nautocrlf = true\nfsmonitor = {run}\n"
        f"hooksPath = {folder}/hooks\nattributesFile = {folder}/attributes\n"
        f"[init]\ntemplateDir = {folder}/template\ndefaultObjectFormat = sha256\n"
        "[apply]\nwhitespace = fix\nignoreWhitespace = change\n"
        f'[filter "shout"]\nsmudge = "{run}; tr a-z A-Z"\nrequired = true\n'
        "[diff]\nnoprefix = true\nrenames = copies\n[clone]\ndefaultRemoteName = other\n"
    )


@pytest.mark.parametrize("where", ["global", "environment", "attributes of the user"])
def test_the_users_settings_change_no_byte_and_run_nothing(repository, monkeypatch, tmp_path, where):
    (repository / "src" / "model.py").write_text("one \n\ttwo\n \t three  \n\n\n")  # what whitespace=fix would mend
    expected = without_git(repository)
    patch = patch_of(repository)
    settings = tmp_path / "user" / "git" / "config"
    settings.parent.mkdir(parents=True)
    settings.write_text(hostile_settings(tmp_path / "user"))
    if where == "global":
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    elif where == "environment":
        for name, value in (("KEY_0", "core.autocrlf"), ("VALUE_0", "true"), ("COUNT", "1")):
            monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
        monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "user" / "template"))
    else:
        (settings.parent / "attributes").write_text("*.py text eol=crlf\n")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    with checkout(repository, head(repository), patch) as again:
        assert without_git(again) == expected
    assert not (tmp_path / "user" / "ran").exists()


def test_the_hooks_and_attributes_of_the_repository_itself_are_not_used(repository, tmp_path):
    for name in ("post-checkout", "post-index-change", "reference-transaction"):
        (repository / ".git" / "hooks" / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (repository / ".git" / "hooks" / name).chmod(0o755)
    (repository / ".git" / "info" / "attributes").write_text("*.py text eol=crlf\n")
    with checkout(repository, head(repository), "") as again:
        assert without_git(again) == without_git(repository)
        assert not (again / ".git" / "hooks").exists()  # nor do later commands in the checkout run any
    assert not (tmp_path / "ran").exists()


def test_a_repository_that_the_environment_names_is_not_taken(repository, monkeypatch, tmp_path):
    other = make_repository(tmp_path.resolve() / "other")
    commit = head(repository)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    before = content(other)
    with checkout(repository, commit, "") as again:
        assert (again / "src" / "model.py").exists()
    assert content(other) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_is_read_where_this_user_calls_it_safe(repository, monkeypatch, tmp_path):
    commit = head(repository)
    for path in (repository, repository / ".git"):
        os.chown(path, 12345, 12345)
    assert "dubious ownership" in refused(repository, commit)
    (tmp_path / "settings").write_text(f"[safe]\ndirectory = {repository}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    with checkout(repository, commit, "") as again:
        assert (again / "src" / "model.py").exists()


# What it refuses.


@pytest.mark.parametrize("commit", ["", "HEAD", "--help", "../x", "A" * 40, "a" * 39, "a" * 41, "a" * 40 + "\n"])
def test_what_is_no_commit_id_is_refused(repository, commit):
    assert "is not a commit id" in refused(repository, commit)


def test_an_unknown_commit_is_told_with_how_to_get_it(repository):
    assert f"has no commit {'a' * 40}. Fetch it: git fetch origin {'a' * 40}" in refused(repository, "a" * 40)


def test_an_object_that_is_no_commit_is_refused(repository):
    assert "has no commit" in refused(repository, git(repository, "rev-parse", "HEAD:README.md").strip())


def test_a_folder_outside_git_is_refused(repository, tmp_path):
    (tmp_path / "plain").mkdir()
    assert "is not a readable git repository" in refused(tmp_path.resolve() / "plain", head(repository))


def test_a_machine_without_git_is_told_so(repository, monkeypatch, tmp_path):
    commit = head(repository)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Install git" in refused(repository, commit)


def test_a_patch_of_another_commit_is_refused_with_gits_reason(repository):
    patch = edited(repository).replace("-two", "-2")
    assert "does not apply to commit" in (message := refused(repository, head(repository), patch))
    assert "patch failed: src/model.py:1" in message


def test_what_is_no_patch_is_refused(repository):
    assert "does not apply" in refused(repository, head(repository), "no patch\n")


def new_file(name: str, *, mode: str = "100644", text: str = "evil") -> str:
    return (
        f"diff --git a/{name} b/{name}\nnew file mode {mode}\n--- /dev/null\n+++ b/{name}\n"
        f"@@ -0,0 +1 @@\n+{text}\n\\ No newline at end of file\n"
    )


@pytest.mark.parametrize("name", ["setup.py", "data/x.csv", "Src/x.py", "srcx/x.py", ".gitattributes", "src"])
def test_a_patch_of_other_folders_is_refused(repository, name):
    git(repository, "rm", "-r", "--quiet", "--cached", "src")
    git(repository, "commit", "--quiet", "--message", "Without src")
    message = refused(repository, head(repository), new_file("conf/x.yaml") + new_file(name))
    assert f"changes {name}, which is outside src, conf, experiments" in message


@pytest.mark.parametrize("name", ["../x.py", "src/../../x.py", "/tmp/x.py", "src/.git/config", ".git/hooks/post-merge"])
def test_a_patch_that_leads_out_of_the_checkout_is_refused(repository, name):
    refused(repository, head(repository), new_file(name))


@pytest.mark.parametrize(("old", "new"), [("README.md", "src/readme.py"), ("src/model.py", "model.py")])
@pytest.mark.parametrize("how", ["rename", "copy"])
def test_a_rename_or_copy_counts_at_both_ends(repository, old, new, how):
    patch = f"diff --git a/{old} b/{new}\nsimilarity index 100%\n{how} from {old}\n{how} to {new}\n"
    if (how, old) == ("copy", "README.md"):  # changes nothing but src
        with checkout(repository, head(repository), patch) as again:
            assert (again / new).exists()
    else:
        assert "which is outside" in refused(repository, head(repository), patch)


def test_a_patch_that_makes_a_symbolic_link_is_refused(repository):
    patch = new_file("src/link", mode="120000", text="/etc")
    assert "changes src/link, which is a symbolic link" in refused(repository, head(repository), patch)


def test_a_patch_that_turns_a_symbolic_link_elsewhere_is_refused(repository):
    (repository / "src" / "link").symlink_to("model.py")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Link")
    (repository / "src" / "link").unlink()
    (repository / "src" / "link").symlink_to("/etc/passwd")
    assert "changes src/link, which is a symbolic link" in refused(repository, head(repository), patch_of(repository))


def test_a_patch_that_writes_through_a_link_of_the_commit_is_refused(repository, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (repository / "src" / "link").symlink_to(tmp_path / "elsewhere")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Link")
    refused(repository, head(repository), new_file("src/link/x.py"))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_patch_that_adds_a_submodule_is_refused(repository):
    patch = new_file("src/vendored", mode="160000", text=f"Subproject commit {'a' * 40}").replace(
        "\\ No newline at end of file\n", ""
    )
    assert "changes src/vendored, which is a repository of its own" in refused(repository, head(repository), patch)


def test_names_in_messages_stay_on_one_line(repository):
    patch = new_file('"b\\nd"').replace('a/"', '"a/').replace('b/"', '"b/')
    assert "changes b\\nd, which" in refused(repository, head(repository), patch)


# Comparing.


def test_what_a_patch_does_not_give_back_is_named(repository):
    patch = edited(repository)
    (repository / "src" / "model.py").write_text("one\n2\nsrc/model.py\n")
    commit = head(repository)
    assert not_given_back(repository, FOLDERS, commit, patch) == []
    assert not_given_back(repository, FOLDERS, commit, "") == ["src/model.py differs"]
    (repository / "conf" / "config.yaml").unlink()
    assert not_given_back(repository, FOLDERS, commit, patch) == ["conf/config.yaml differs"]


def test_links_are_compared_by_where_they_lead(repository):
    (repository / "src" / "link").symlink_to("model.py")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Link")
    assert not_given_back(repository, FOLDERS, head(repository), "") == []
    (repository / "src" / "link").unlink()
    (repository / "src" / "link").write_bytes((repository / "src" / "model.py").read_bytes())
    assert not_given_back(repository, FOLDERS, head(repository), "") == ["src/link differs"]


def test_why_a_patch_does_not_apply_is_said_in_short(repository):
    reasons = not_given_back(repository, FOLDERS, head(repository), edited(repository).replace("-two", "-2"))
    assert reasons == ["it does not apply (patch failed: src/model.py:1)"]
