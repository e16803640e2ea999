"""What a run left, read by somebody who trusts none of it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from poolwise.counts.cells import read_counts
from poolwise.provenance import recorded_run
from poolwise.provenance.recorded_run import RecordedRun, ReproductionError, counts_of, of_folder, plain_values
from support import params_of

TABLE = "location,chips\nA,3\nA,5\nB,0\n"
COLUMNS = {"group": "location", "count": "chips", "exposure": None, "name": "cookies"}
SETTINGS: dict[str, Any] = {
    "data": {"name": "cookies", "path": "tables/cookies.csv"}
    | {"group": "location", "count": "chips", "exposure": None, "per": 1.0, "multiplicity": None},
    "pooling": {"name": "pooled"},
    "likelihood": {"name": "poisson"},
    "prior": {"lam": {"name": "Gamma", "concentration": 2.0, "rate": 0.2}},
    "sampler": {
        **{"name": "nuts", "num_warmup": 150, "num_samples": 200, "num_chains": 4, "target_accept": 0.9},
        **{"max_tree_depth": 10, "checkpoint_every": 1000},
    },
    "device": {"platform": "cpu", "num_devices": 2, "chain_method": "map", "x64": True},
    "checks": {"progress": 10},
    "predict": {"num_draws": 1000, "exposure": 1.0},
    "plots": {"figures": []},
    "tracking": {"uri": None, "table_limit_mb": 10.0},
    "sweep": {"dry_run": False, "compare": True},
    "seed": 0,
    "reuse": None,
}
SECTIONS = [name for name, value in SETTINGS.items() if isinstance(value, dict)]
SUMMARY = "parameter,mean,sd,mcse_mean,mcse_sd,ess_bulk,ess_tail,r_hat\nlam,3.0,0.5,0.01,0.01,400,400,1.0\n"
NESTED = "[" * 100_000 + "]" * 100_000
JSON_FILES = [
    *("code/commit.json", "code/files.json", "code/lock.json", "environment/stack.json"),
    *("environment/fingerprint.json", "posterior/sha256.json"),
]


def changed(**sections: Any) -> dict[str, Any]:
    """The settings with some sections changed; None takes one out."""
    settings = copy.deepcopy(SETTINGS)
    for name, value in sections.items():
        settings[name] = settings.get(name, {}) | value if isinstance(value, dict) else value
    return settings


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """The working directory, with nothing in it."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def record(tmp_path, elsewhere) -> Callable[..., Path]:
    """`record(settings, {"code/commit.json": None}, params={...})`: the folder of a run; None leaves a file out."""

    def make(
        settings: Any = SETTINGS,
        files: dict[str, str | bytes | None] | None = None,
        *,
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
        name: str = "pooled-pois",
    ) -> Path:
        (tmp_path / "table.csv").write_text(TABLE)
        sha256 = read_counts(tmp_path / "table.csv", **COLUMNS).sha256
        written = {
            **({"config/resolved.yaml": settings} if isinstance(settings, str) else {}),
            **({} if isinstance(settings, str) else {"config/resolved.json": json.dumps(settings)}),
            "config/overrides.yaml": "- pooling=pooled\n",
            "code/commit.json": json.dumps({"state": "clean 0123456789ab", "commit": "0" * 40, "branch": "main"}),
            "code/files.json": json.dumps({"model/count_model.py": "m1", "text.py": "w1"}),
            "code/lock.json": json.dumps({"name": "requirements.lock", "sha256": "l1", "departures": []}),
            "environment/requirements.txt": "jax==0.12.0\n",
            "environment/stack.json": json.dumps({"python": "3.12.1", "jax": "0.12.0"}),
            "environment/fingerprint.json": json.dumps(
                {"data_sha256": sha256, "source": {"model/count_model.py": "m1"}}
            ),
            "posterior/sha256.json": json.dumps({"lam": "d1", "all": "d2"}),
            "tables/summary.csv": SUMMARY,
            "data/cookies.csv": TABLE,
        } | (files or {})
        folder = tmp_path / "run"
        for path, content in written.items():
            if content is not None:
                file = folder / "artifacts" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content if isinstance(content, bytes) else content.encode())
        told = {
            "name": name,
            "experiment": "cookies",
            "status": "FINISHED",
            "params": params_of(settings) if isinstance(settings, dict) and params is None else params or {},
            "metrics": {"elpd_loo": -6.5, "elpd_loo_mcse": 0.01},
            "tags": {"posterior_sha256": "d2", "data_sha256": sha256} | (tags or {}),
            "run_id": "0123456789abcdef0123456789abcdef",
        }
        (folder / "record.json").write_text(json.dumps(told))
        return folder

    return make


def refusal(folder: Path) -> str:
    """The one line that says why a record is not read."""
    with pytest.raises(ReproductionError) as caught:
        of_folder(folder)
    message = str(caught.value)
    assert message.isprintable()
    assert caught.value.exit_code == 2
    return message


# A record that is whole.


def test_a_record_is_read(record):
    found = of_folder(record())
    assert found.settings == SETTINGS
    assert found.overrides == ("pooling=pooled",)
    assert (found.facts.files, found.facts.libraries) == (
        {"model/count_model.py": "m1", "text.py": "w1"},
        {"jax": "0.12.0"},
    )
    assert found.outcome.digests == {"lam": "d1", "all": "d2"}
    assert (found.outcome.elpd_loo, found.outcome.elpd_loo_mcse, found.outcome.num_chains) == (-6.5, 0.01, 4)
    assert found.outcome.summary.loc["lam", "mean"] == 3.0
    assert (found.commit, found.patch, found.name) == ("0" * 40, "", "run 012345")


@pytest.mark.parametrize("name", [*JSON_FILES, "config/overrides.yaml", "environment/requirements.txt"])
def test_a_run_of_an_older_version_lacks_a_file_and_is_read(record, name):
    assert of_folder(record(files={name: None})).settings == SETTINGS


def test_an_older_run_has_the_files_of_its_fingerprint(record):
    assert of_folder(record(files={"code/files.json": None})).facts.files == {"model/count_model.py": "m1"}


def test_an_older_run_has_its_digests_as_tags_alone(record):
    found = of_folder(record(files={"posterior/sha256.json": None, "environment/fingerprint.json": None}))
    assert found.outcome.digests == {"all": "d2"}
    assert counts_of(found, given="").num_rows == 3


def test_a_section_or_key_that_a_run_did_not_have_is_no_fault(record):
    settings = copy.deepcopy(SETTINGS)
    del settings["sweep"], settings["predict"]["exposure"]
    assert of_folder(record(settings, params=params_of(SETTINGS))).settings == settings


def test_a_command_line_may_have_had_something_to_resolve(record):
    overrides = ["data.path=${oc.env:HOME}/x.csv", "seed=1e3", "prior.lam.rate=null"]
    assert of_folder(record(files={"config/overrides.yaml": yaml.safe_dump(overrides)})).overrides == tuple(overrides)


@pytest.mark.parametrize(
    "text",
    ["1e3", "007", "2020-01-01", "on", "~", "null", "a: b", "Zürich", "x\ny", "<<", "!a", "&a", "*a", "a#b", "'"],
)
def test_a_text_comes_back_as_it_was_written(record, text):
    settings = changed(data={"group": text})
    assert of_folder(record(settings)).settings == settings


@pytest.mark.parametrize("text", ["1e3", "2020-01-01", "null", "a: b", "x\ny", "!a", "&a", "*a"])
def test_a_run_of_an_older_version_has_its_settings_as_yaml_alone(record, text):
    settings = changed(data={"group": text})
    found = of_folder(record(yaml.safe_dump(settings), params=params_of(settings)))
    assert found.settings == settings


def test_keys_of_an_older_version_are_read_as_those_of_this_one(record):
    then = changed(pooling={"name": "hierarchical", "rates": "integrated"})
    del then["sampler"]["name"], then["data"]["per"], then["data"]["multiplicity"]  # there was one engine, and one unit
    overrides = ["pooling.rates=sampled", "seed=1", "prior/sigma=half_normal"]
    found = of_folder(record(then, {"config/overrides.yaml": yaml.safe_dump(overrides)}))
    assert found.settings == then  # as its own code wants it
    assert found.facts.settings == SETTINGS | {
        "pooling": {"name": "hierarchical", "population": "gamma", "parameterisation": "marginal"},
        "checks": SETTINGS["checks"] | {"rate_ratios": False, "exposure_law": False, "zeros": False},
    }
    assert found.overrides == ("pooling.parameterisation=centred", *overrides[1:])


# A config that is more than plain values.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: !!python/object/apply:os.system ['true']", "cannot be read: could not determine a constructor"),
        ("%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system x", "cannot be read: could not determine"),
        ("a: !!binary aGk=", "a bytes"),
        ("a: !!set {x}", "a set"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]", "an alias"),
        ("base: &b {x: 1}\na:\n  <<: *b", "an alias"),
        ("a: ${oc.env:HOME}", "an interpolation, '${oc.env:HOME}'"),
        ("a: x${b}y", "an interpolation"),
        ("a: \\${b}", "an interpolation"),
        ("${a}: x", "an interpolation"),
        ("a: {b: [c, {d: '${poolwise.outputs:}'}]}", "an interpolation"),
        ('a: "$\\x7bb}"', "an interpolation, '${b}'"),
        ("a: 2020-01-01", "a date, '2020-01-01'"),
        (f"a: {2**64}", "a number of more than 64 bits"),
        ('a: "\\0"', "an invalid string"),
        ("x" * 100_001, "100001 characters"),
        (NESTED[:50_000], "more than 1000 brackets"),
        ("- " * 10_000, "cannot be read"),
        ("a: " + "9" * 5000, "cannot be read: Exceeds the limit"),
        ("a: [", "cannot be read: expected the node content"),
    ],
)
def test_what_is_more_than_plain_values_is_refused(text, told):
    refuses(text, "the config", told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": {"b": ["${oc.env:HOME}"]}}', "an interpolation, '${oc.env:HOME}'"),
        ('{"$\\u007ba}": 1}', "an interpolation, '${a}'"),
        ('{"a": "\\u0000"}', "an invalid string"),
        ('{"a": "\\ud800"}', "an invalid string"),
        (f'{{"a": {2**64}}}', "a number of more than 64 bits"),
        ("9" * 5000, "cannot be read: Exceeds the limit"),
        (NESTED[:50_000], "cannot be read"),
        (" " * 100_001, "100001 characters"),
        ("{", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_json_that_is_more_than_plain_values_is_refused(text, told):
    refuses(text, "config/resolved.json", told)


def refuses(text: str, what: str, told: str) -> None:
    with pytest.raises(ReproductionError) as caught:
        plain_values(text, what=what)
    assert str(caught.value).startswith(f"{what} ")
    assert told in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "extra",
    [
        {"_target_": "os.system"},
        {"prior": {"lam": {"_target_": "os.system", "name": "Gamma"}}},
        {"sampler": {"_partial_": True}},
        {"data": {"_args_": ["x"]}},
        {"_x_": {}},
        {"plots": {"a": {"b": {"_target_": {}}}}},
        {"prior": {"a._target_": 1}},
        {"hydra": {"callbacks": {"x": {"name": "y"}}}},
        {"hydra": {}},
        {"hydra": None},
        {"hydra.searchpath": ["file:///tmp"]},
        {"defaults": ["/data: cookies"]},
        {"defaults": []},
        {"experiments": "model_grid"},
    ],
)
def test_a_key_that_a_library_would_obey_is_refused(record, extra):
    assert ": refused. A run records plain values only." in refusal(record(changed(**extra)))


@pytest.mark.parametrize("value", [None, [], ["name"], "pooled", 3, True, ""])
@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_that_is_none_is_refused(record, name, value):
    assert f"has no keys in {name}: refused" in refusal(record(SETTINGS | {name: value}))


@pytest.mark.parametrize("text", ["[]", "- data: {}", "text", "3", "null", "1: {}", "{[1]: 2}"])
def test_a_config_without_sections_is_refused(record, text):
    assert "config/resolved.yaml of run 0123456789abcdef" in refusal(record(text))


@pytest.mark.parametrize("text", ["{}", "text", "3", "[1]", "[[a]]", "null", "[{a: b}]", "[2020-01-01]"])
def test_a_command_line_that_is_no_list_of_texts_is_refused(record, text):
    assert "config/overrides.yaml" in refusal(record(files={"config/overrides.yaml": text}))


# A record that was changed, or is not whole.


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (changed(seed=1), "seed is 1 in config/resolved.json, '0' in its parameters"),
        (changed(sampler={"num_samples": 2000}), "sampler.num_samples is 2000"),
        (changed(prior={"lam": {"name": "Gamma", "concentration": 2.0, "rate": 0.3}}), "prior.lam.rate is 0.3"),
        (changed(data={"exposure": "hours"}), "data.exposure is 'hours'"),
    ],
)
def test_a_config_that_is_not_what_the_parameters_say_is_refused(record, settings, told):
    message = refusal(record(settings, params=params_of(SETTINGS)))
    assert "contradicts itself: " + told in message


def test_a_long_parameter_that_the_store_cut_is_no_contradiction(record):
    settings = changed(data={"path": "x" * 3000})
    params = params_of(settings) | {"data.path": "x" * 500}
    assert of_folder(record(settings, params=params)).settings == settings


@pytest.mark.parametrize("tag", ["posterior_sha256", "data_sha256"])
def test_a_digest_that_is_another_as_a_tag_is_refused(record, tag):
    assert f"contradicts itself: {tag} is 'other' as a tag" in refusal(record(tags={tag: "other"}))


@pytest.mark.parametrize(
    ("tag", "file"),
    [("posterior_sha256", "posterior/sha256.json"), ("data_sha256", "environment/fingerprint.json")],
)
def test_nothing_is_judged_without_a_digest(record, tag, file):
    assert f"recorded no {tag}" in refusal(record(files={file: None}, tags={tag: ""}))


@pytest.mark.parametrize(
    ("name", "told"),
    [("config/resolved.json", "it is not a fit of poolwise"), ("tables/summary.csv", "to compare with")],
)
def test_what_has_to_be_there_is_missed(record, name, told):
    assert told in refusal(record(files={name: None}))


@pytest.mark.parametrize(
    "content", ["{", "3", "[1]", '"text"', '{"a": 1}x', NESTED, "[[1, 2, 3]]", b"\xff\xfe", "9" * 5000]
)
@pytest.mark.parametrize("name", JSON_FILES)
def test_a_damaged_table_of_a_record_is_told_in_a_line(record, name, content):
    assert "is damaged (" in refusal(record(files={name: content}))


@pytest.mark.parametrize(
    "content",
    [
        *("no table", "parameter\n", SUMMARY.splitlines()[0], SUMMARY + SUMMARY.splitlines()[1], "\n", '"'),
        *(SUMMARY.replace("3.0", "three"), SUMMARY.replace("r_hat", "rhat"), SUMMARY.replace("parameter", "name")),
        *(SUMMARY + "mu,1,2\n,,,,,,,,,,,,,,\n", b"\xff\xfe\x00"),
    ],
)
def test_a_summary_that_is_none_is_told_in_a_line(record, content):
    assert "is damaged (" in refusal(record(files={"tables/summary.csv": content}))


def test_a_file_without_end_is_not_read(record):
    folder = record()
    with (folder / "artifacts/code/changes.patch").open("wb") as file:
        file.truncate(recorded_run.LARGEST_FILE + 1)  # sparse: no disk is filled
    assert "code/changes.patch of run" in refusal(folder)


def test_a_name_cannot_write_to_the_terminal(record):
    message = refusal(
        record(files={"tables/summary.csv": None}, name="\x1b]0;gone\x07\nReproductionError: all is well")
    )
    assert "\\x1b]0;gone" in message


def test_the_draws_are_not_opened(record):
    # neither by a library for netCDF nor by any other: what is there may be anything
    folder = record(files={"posterior/posterior.nc": b"\x80\x04cos\nsystem\n"})
    assert of_folder(folder).outcome.digests["all"] == "d2"


# The counts.


def counts(found: RecordedRun, given: str = "") -> Any:
    return counts_of(found, given=given)


def no_counts(found: RecordedRun, given: str = "") -> str:
    with pytest.raises(ReproductionError) as caught:
        counts(found, given)
    assert str(caught.value).isprintable()
    return str(caught.value)


def write(path: Path, text: str = TABLE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_counts_come_from_the_artifact(record):
    folder = record()
    assert Path(counts(of_folder(folder)).path) == folder / "artifacts/data/cookies.csv"


@pytest.mark.parametrize(
    "content", [None, TABLE.replace("5", "6"), "", "\x89PNG", b"\x1f\x8b\x08", b"PAR1", "location\nA\n"]
)
def test_counts_come_from_the_recorded_path_where_the_artifact_is_not_what_was_fitted(record, elsewhere, content):
    here = write(elsewhere / "tables/cookies.csv")
    assert Path(counts(of_folder(record(files={"data/cookies.csv": content}))).path) == here


def test_counts_that_were_changed_are_refused_wherever_they_are(record, elsewhere):
    write(elsewhere / "tables/cookies.csv", TABLE.replace("3", "4"))
    message = no_counts(of_folder(record(files={"data/cookies.csv": TABLE.replace("5", "6")})))
    assert "its artifact has other counts (sha256 " in message
    assert f"{elsewhere}/tables/cookies.csv has other counts" in message
    assert message.endswith("Give the table: --data PATH.")


def test_rows_in_another_order_are_the_same_counts(record):
    lines = TABLE.splitlines()
    assert counts(of_folder(record(files={"data/cookies.csv": "\n".join([lines[0], *lines[:0:-1]])}))).num_rows == 3


def test_a_given_table_is_taken_whatever_it_holds(record, tmp_path):
    given = write(tmp_path / "given.csv", TABLE.replace("5", "6"))
    assert Path(counts(of_folder(record()), str(given)).path) == given


@pytest.mark.parametrize("root", ["working directory", "checkout"])
def test_a_recorded_path_is_looked_up_in_both_working_folders(record, elsewhere, tmp_path, monkeypatch, root):
    monkeypatch.setattr(recorded_run, "ROOT", tmp_path / "checkout")
    roots = {"working directory": elsewhere, "checkout": tmp_path / "checkout"}
    for name, folder in roots.items():
        write(folder / "tables/cookies.csv", TABLE if name == root else TABLE.replace("5", "6"))
    found = counts(of_folder(record(files={"data/cookies.csv": None})))
    assert Path(found.path) == roots[root] / "tables/cookies.csv"


def test_an_absolute_path_is_read_where_it_leads_into_a_working_folder(record, elsewhere):
    path = write(elsewhere / "deep/cookies.csv")
    found = of_folder(record(changed(data={"path": str(path)}), {"data/cookies.csv": None}))
    assert Path(counts(found).path) == path


@pytest.mark.parametrize(
    "path",
    [
        "{outside}/cookies.csv",
        "link.csv",
        "folder/cookies.csv",
        "~/cookies.csv",
        "file://{outside}/cookies.csv",
        "/dev/stdin",
        "/dev/zero",
        "/",
        "",
        ".",
        "tables",
        "x" * 5000,
        "/".join("x" * 5000),
        "a\nb",
    ],
)
def test_a_path_that_leads_out_is_not_read(record, elsewhere, tmp_path, monkeypatch, path):
    outside = write(tmp_path / "outside/cookies.csv").parent
    (elsewhere / "link.csv").symlink_to(outside / "cookies.csv")
    (elsewhere / "folder").symlink_to(outside)
    (elsewhere / "tables").mkdir()
    monkeypatch.setenv("HOME", str(outside))
    settings = changed(data={"path": path.format(outside=outside)})
    message = no_counts(of_folder(record(settings, {"data/cookies.csv": None})))
    assert "its artifacts have no table, and its path is not a file in the working folders" in message


@pytest.mark.parametrize(
    "path", ["../outside/cookies.csv", "tables/../../outside/cookies.csv", "/tmp/../etc/passwd", ".."]
)
def test_a_path_with_steps_upwards_is_refused_even_with_an_artifact(record, tmp_path, path):
    write(tmp_path / "outside/cookies.csv")
    assert "is outside the working folders: refused" in no_counts(of_folder(record(changed(data={"path": path}))))


def test_who_trusts_a_path_can_give_it(record, tmp_path):
    given = write(tmp_path / "outside/cookies.csv")
    found = of_folder(record(changed(data={"path": "../outside/cookies.csv"})))
    assert counts(found, str(given)).sha256 == found.facts.data_sha256


@pytest.mark.parametrize("name", ["..", "../../x", "/tmp/../x", "x" * 501])
@pytest.mark.parametrize("given", [False, True])
def test_a_name_that_is_a_way_out_is_refused(record, tmp_path, name, given):
    path = str(write(tmp_path / "given.csv")) if given else ""
    assert ": refused. It is not a name." in no_counts(of_folder(record(changed(data={"name": name}))), path)


@pytest.mark.parametrize(
    "data",
    [
        *({key: value} for key in ("path", "group", "count", "name") for value in (None, 3, ["x"], {"x": "y"}, True)),
        *({key: value} for key in ("exposure", "multiplicity") for value in (3, ["x"], {"x": "y"}, True)),
    ],
)
def test_columns_that_are_no_texts_are_refused(record, data):
    assert "did not record the table and columns" in no_counts(of_folder(record(changed(data=data))))


def test_an_artifact_is_not_followed_out_of_its_folder(record, tmp_path):
    folder = record(files={"data/cookies.csv": None})
    (folder / "artifacts/data").mkdir()
    (folder / "artifacts/data/cookies.csv").symlink_to(write(tmp_path / "outside.csv"))
    assert "its artifacts have no table" in no_counts(of_folder(folder))


def test_an_artifact_that_should_be_a_folder_and_is_a_file_is_no_table(record):
    assert "its artifacts have no table" in no_counts(
        of_folder(record(files={"data/cookies.csv": None, "data": TABLE}))
    )


# Folders of runs.


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "3", '{"name": "x", "params": 3}'])
def test_a_folder_without_a_whole_record_is_told(record, content):
    folder = record()
    if content is None:
        (folder / "record.json").unlink()
    else:
        (folder / "record.json").write_text(content)
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("per", [0, -1.0, True, "1000", None, 1e301])
def test_a_unit_that_is_not_a_number_is_refused(per, record):
    found = of_folder(record(settings=changed(data={"per": per})))
    assert "must be a number > 0" in no_counts(found)
