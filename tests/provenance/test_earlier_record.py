"""A record as version 0.1.0 wrote it: other names of files and keys, one engine, settings as YAML alone."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Metric, Param, RunTag

import poolwise
from poolwise.provenance.fingerprints import EARLIER
from poolwise.tracking import store
from support import called, params_of

pytestmark = pytest.mark.fit

ASKED = ("sampler.num_warmup=300", "sampler.num_samples=400", "plots=none", "device.num_devices=1")
OLD_FILES = {name: f"{number:064}" for number, name in enumerate((*EARLIER, "__init__.py", "report.py", "words.py"))}


@pytest.fixture
def earlier(command, outputs) -> tuple[str, str]:
    """The ids of a run of this version and of the same as 0.1.0 would have recorded it."""
    done = command(*ASKED)
    made = re.search(r"^run     (\w+)$", done.stdout, re.M)[1]
    client = store.connect(f"sqlite:///{outputs}/mlflow.db")
    source = client.get_run(made)
    run = client.create_run(source.info.experiment_id, run_name="hier-pois")
    then, now = (Path(each.info.artifact_uri.removeprefix("file://")) for each in (run, source))
    shutil.copytree(now, then)
    settings = json.loads((then / "config/resolved.json").read_text())
    (then / "config/resolved.json").unlink()
    settings["pooling"] = {"name": "hierarchical", "rates": settings["pooling"]["parameterisation"]}
    del settings["sampler"]["name"], settings["data"]["per"], settings["data"]["multiplicity"]
    (then / "config/resolved.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (then / "config/overrides.yaml").write_text(yaml.safe_dump([*ASKED, "pooling.rates=standardised"]))
    (then / "code/files.json").write_text(json.dumps(OLD_FILES))
    (then / "code/commit.json").write_text(json.dumps({"state": "clean 0123456789ab", "commit": "0" * 40}))
    ingredients = json.loads((then / "environment/fingerprint.json").read_text())
    ingredients |= {"pooling": settings["pooling"], "source": {name: OLD_FILES[name] for name in EARLIER}}
    (then / "environment/fingerprint.json").write_text(json.dumps(ingredients))
    client.log_batch(
        run.info.run_id,
        params=[Param(key, value) for key, value in params_of(settings).items()],
        metrics=[Metric(key, value, 0, 0) for key, value in source.data.metrics.items()],
        tags=[RunTag(key, value) for key, value in source.data.tags.items() if not key.startswith("mlflow.")],
    )
    client.set_tag(run.info.run_id, "draws_fingerprint", "0" * 64)
    client.set_tag(run.info.run_id, "run_fingerprint", "0" * 64)
    client.set_terminated(run.info.run_id)
    return made, run.info.run_id


def test_a_record_of_0_1_0_is_loaded_compared_and_reproduced(earlier, tmp_path):
    made, old = earlier
    assert poolwise.load(old).identical(poolwise.load(made))

    compared = called(made, old, folder=tmp_path, module="poolwise.compare")
    assert (compared.returncode, compared.stderr) == (0, "")
    assert "parameterisation" not in compared.stdout  # standardised in both, whatever the key was called

    judged = called(made, "--against", old, folder=tmp_path, module="poolwise.reproduce")
    assert judged.returncode == 0

    ended = called(old, folder=tmp_path, module="poolwise.reproduce")
    assert (ended.returncode, ended.stderr) == (0, "")
    for done in (judged, ended):
        lines = done.stdout.splitlines()
        verdict = lines.index("bit-identical: all draws have the same sha256")
        deciding, other = lines[verdict + 1 :]  # nothing but the code differs
        assert deciding.startswith("  code: ") and deciding.endswith("have changed, without changing draws")
        assert "checkpoint.py (only " in deciding
        assert other.startswith("  code: __init__.py, ") and other.endswith("have changed (decides no draw)")
