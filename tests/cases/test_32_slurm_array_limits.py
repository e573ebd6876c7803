"""Case 32: no array is above the site's limit, memory is asked for as the site wants, no key is ignored."""

from __future__ import annotations

import pytest

from locomass.commands.outcome import Resources
from locomass.commands.partitions import finalise_partitions, init_partitions, list_missing, run_partitions, write_array
from locomass.errors import ConfigError
from locomass.executors.cluster_file import ClusterConfig, load_cluster_config
from locomass.executors.credentials import credentials_file
from locomass.executors.jobs import make_job_cluster
from tests.factories import make_study


@pytest.fixture
def one_gene_per_batch(monkeypatch):
    monkeypatch.setattr("locomass.scores.BATCH_PAIRS", 0)
    monkeypatch.setattr("locomass.meta.tasks.GENES_PER_TASK", 1)


def numbers_of(array: str) -> list[int]:
    """Return the jobs that Slurm starts for ``--array``."""
    found = []
    for part in array.split(","):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found


@pytest.mark.parametrize("limit", [1000, 4, 1])
def test_four_thousand_batches_are_an_array_below_the_limit(limit):
    jobs = numbers_of(write_array(range(4_000), limit))
    assert max(jobs) < limit
    assert len(jobs) == limit
    # job k runs the batches k, k + limit, ...: each once
    assert sorted(b for k in jobs for b in range(k, 4_000, limit)) == list(range(4_000))


@pytest.mark.parametrize("limit", [4, 1])
def test_an_array_of_few_jobs_runs_every_batch(one_gene_per_batch, tmp_path, limit):
    study = make_study(2).write(tmp_path / "study")
    planned = init_partitions(study, tmp_path / "out", Resources(threads=1))
    assert len(planned.missing) > limit
    for job in numbers_of(write_array(planned.missing, limit)):
        list(run_partitions(tmp_path / "out", [job], limit))
    assert list_missing(tmp_path / "out") == []
    assert finalise_partitions(study, tmp_path / "out", Resources(threads=1))


@pytest.mark.parametrize(
    ("request_", "lines"), [("job", ["--mem=8G"]), ("core", ["--mem-per-cpu=1908M"]), ("none", [])]
)
def test_memory_is_asked_for_as_the_site_wants(tmp_path, monkeypatch, request_, lines):
    monkeypatch.chdir(tmp_path)
    config = ClusterConfig(scheduler="slurm", queue="long", cores=4, memory="8 GB", memory_request=request_)
    with credentials_file(tmp_path / "logs") as credentials, make_job_cluster(config, credentials) as cluster:
        script = cluster.job_script()
    found = [line.split()[1] for line in script.splitlines() if line.startswith("#SBATCH") and "mem" in line]
    assert found == lines


@pytest.mark.parametrize("scheduler", ["slurm", "lsf"])
def test_resource_spec_is_refused_where_it_is_not_used(tmp_path, scheduler):
    path = tmp_path / "cluster.yaml"
    path.write_text(f"scheduler: {scheduler}\nqueue: main\nresource_spec: h_vmem=2G\n")
    with pytest.raises(ConfigError, match=rf"key resource_spec: is for SGE and PBS; with {scheduler} use job_extra"):
        load_cluster_config(path)
