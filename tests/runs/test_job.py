"""From a configuration to a job."""

from hydra import compose, initialize_config_dir

from poolwise.config import check
from poolwise.paths import CONF, register_resolvers
from poolwise.runs.job import prepare


def test_a_job_reads_the_columns_that_its_configuration_names(tmp_path):
    path = tmp_path / "grouped.csv"
    path.write_text("plant,defects,hours,n\na,3,2,2\nb,4,1,1\n")
    columns = ("group=plant", "count=defects", "exposure=hours", "per=2", "multiplicity=n")
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        asked = compose("config", ["data=table", f"data.path={path}", *(f"data.{each}" for each in columns)])
    counts = prepare(check(asked), ()).counts
    assert (counts.labels, counts.cell_multiplicity.tolist(), counts.cell_exposure.tolist()) == (
        ("a", "b"),
        [2, 1],
        [1.0, 0.5],
    )
