"""One study on its way through the stages: inputs opened on demand, what each stage depends on, what is kept.

A stage runs when the digest of what it depends on has changed, or its outputs are gone; otherwise it is skipped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.cluster import Executor
from pipeline.config import RunConfig, ScoreStatistics
from pipeline.errors import ConfigError, suggest
from pipeline.inputs import predictor_files
from pipeline.io.catalogue import Catalogue, StudyVariants, locate_variants, open_catalogue
from pipeline.io.cohort import Cohort, open_cohort
from pipeline.io.null_models import NullModels, read_array, read_null_models
from pipeline.plan import RunDirectory
from pipeline.provenance import digest_arrays, digest_value
from pipeline.schema import PERMUTATION_TESTS
from pipeline.stages.denoise import denoise
from pipeline.stages.pathways import make_parameters
from pipeline.stages.score_statistics import bound_batch, compute_score_statistics, plan_batches
from pipeline.stages.score_statistics.genotypes import open_context, write_context
from pipeline.stages.score_statistics.permute import (
    STRATA,
    PermutationOptions,
    PermuteBatch,
    count_failed_genes,
    gather_permutations,
    plan_permutations,
)
from pipeline.stages.score_statistics.sharing import traits_to_calibrate

MAX_MINOR = 0.5  # a minor allele is no more frequent
log = logging.getLogger("locomass")

#: ``progress(title, total)`` gives a function to call after each step; total None: no steps are known.
Progress = Callable[[str, int | None], Any]


@contextmanager
def no_progress(title: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show nothing."""
    yield lambda: None


@dataclass
class StudyRun:
    """One `locomass run`: configuration, inputs opened on demand, stages.

    Attributes:
        config: the configuration.
        folder: folder of the configuration file, which its paths are relative to.
        directory: the output directory.
        executor: where tasks run.
        progress: how progress is shown.
    """

    config: RunConfig
    folder: Path
    directory: RunDirectory
    executor: Executor
    progress: Progress = no_progress

    @cached_property
    def cohort(self) -> Cohort:
        """Samples, traits and covariates."""
        return open_cohort(self.config, self.folder)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Genes and masks."""
        return open_catalogue(self.config.genes, self.folder)

    @cached_property
    def found(self) -> StudyVariants:
        """Where the genes' variants are in the fileset."""
        return locate_variants(self.catalogue, self.cohort.fileset.variants)

    @property
    def out(self) -> Path:
        """The output directory, absolute for the workers."""
        return self.directory.path.absolute()

    @cached_property
    def cohort_digest(self) -> str:
        """Digest of the analysed samples, phenotypes and covariates."""
        c = self.cohort
        covariates = {k: v.tolist() for k, v in c.covariates.items()}
        return digest_value(
            [c.labels.tolist(), c.rows.tolist(), [(t.name, t.kind) for t in c.traits], c.y.tobytes().hex(), covariates]
        )

    @cached_property
    def predict_digest(self) -> str:
        """Digest of everything the LOCO prediction depends on."""
        p = self.config.predictor
        if p.method == "none":
            return digest_value(["predict", "none"])
        inputs = self.directory.digest_inputs(predictor_files(p, self.folder))
        chromosomes = sorted(map(str, self.cohort.fileset.variants["chromosome"].unique()))
        options = [msgspec.to_builtins(p), chromosomes]
        return self.directory.stage_digest("predict", inputs, options, self.cohort_digest)

    @cached_property
    def denoise_digest(self) -> str:
        """Digest of everything the null models depend on."""
        role = self.config.predictor.role
        return self.directory.stage_digest("denoise", {}, role, self.predict_digest, self.cohort_digest)

    @cached_property
    def score_options(self) -> ScoreStatistics:
        """Options of the bundle; burdens, where it shares any, reach every frequency bound of the tests."""
        options = self.config.score_statistics
        if not options.modes and not traits_to_calibrate(self.cohort, options):
            return options
        bounds = [bound for bound in self.config.tests.max_maf if bound <= MAX_MINOR]
        return msgspec.structs.replace(options, thresholds=sorted({*options.thresholds, *bounds}))

    @cached_property
    def score_digest(self) -> str:
        """Digest of everything the bundle depends on."""
        inputs = self.directory.digest_inputs(self.cohort.fileset.paths)
        f = self.found
        variants = digest_value([f.row.tolist(), f.alt.tolist(), f.members.tolist(), f.offsets.tolist()])
        genes = digest_value([self.catalogue.sets.gene.tolist(), self.catalogue.sets.chromosome.tolist()])
        options = self.score_options
        calibrated = traits_to_calibrate(self.cohort, options)
        if options.modes or calibrated:  # masks count then
            genes = digest_value([genes, self.catalogue.masks, self.catalogue.member.tolist()])
        settings = [
            msgspec.to_builtins(options), calibrated, self.config.study, self.config.genome_build,
            self.config.predictor.method,
        ]  # fmt: skip
        return self.directory.stage_digest("score_statistics", inputs, settings, self.denoise_digest, variants, genes)

    @cached_property
    def batch_bytes(self) -> int:
        """Packed bytes of a batch that the memory of a task allows."""
        c = self.cohort
        designs = {
            t.name if t.kind == "binary" else np.isfinite(y).tobytes() for t, y in zip(c.traits, c.y.T, strict=True)
        }
        n_columns = 3 * len(c.traits) + len(designs) * (1 + sum(map(_n_columns, c.covariates.values())))
        total = len(self.found.members) * c.fileset.beds[0].row_bytes
        return bound_batch(self.executor.task_memory, len(c.rows), n_columns, total)

    @cached_property
    def kept_folder(self) -> Path:
        """Folder of what depends on genotypes, samples and genes only: new predictions leave it as it is."""
        f, c, options = self.found, self.cohort, self.score_options
        inputs = self.directory.digest_inputs(c.fileset.paths)
        members = digest_arrays(f.row, f.a1_is_alt, f.members, f.offsets, c.rows)
        genes = digest_value(
            [self.catalogue.sets.chromosome.tolist(), options.missing, options.max_maf, self.batch_bytes]
        )
        return self.directory.parts_folder(
            "genotypes", self.directory.stage_digest("genotypes", inputs, members, genes)
        )

    def run_predict(self) -> xr.DataArray | None:
        """LOCO predictions of the cohort, or None without a predictor."""
        if self.config.predictor.method == "none":
            return None
        digest = self.predict_digest
        store = self.out / "predict" / "loco_prediction.zarr"
        if self.directory.is_done("predict", digest):
            log.info("predict: up to date")
            return read_array(store, "loco_prediction")
        self.directory.forget("predict")
        from pipeline.stages.predict import predict  # brings scikit-learn: only where something is predicted

        with self._timed("predict"), self.progress("predict", None):
            prediction = predict(
                self.config.predictor, self.folder, self.cohort, self.out, self.executor, self.config.genome_build,
                self.directory.digest_input,
            )  # fmt: skip
        assert prediction is not None
        for message in prediction.messages:
            log.warning(message)
        for trait, record in prediction.record.items():
            log.info("predict: trait %s: %s", trait, _brief(record))
        self.directory.finish("predict", digest, ["predict"])
        return prediction.loco

    def run_denoise(self) -> NullModels:
        """Null models of all traits."""
        digest = self.denoise_digest
        if self.directory.is_done("denoise", digest):
            log.info("denoise: up to date")
            return read_null_models(self.out / "denoise", self.cohort.labels)
        loco = self.run_predict()
        self.directory.forget("denoise")
        with self._timed("denoise"):
            models = denoise(self.cohort, loco, self.config.predictor.role, self.out)
        self.directory.finish("denoise", digest, ["denoise", "null_models.tsv"])
        return models

    def run_score_statistics(self) -> Path:
        """The study bundle."""
        digest = self.score_digest
        bundle = self.out / "bundle"
        if self.directory.is_done("score_statistics", digest):
            log.info("score statistics: up to date")
            return bundle
        models = self.run_denoise()
        parts = self.directory.parts_folder("score_statistics", digest_value([digest, self.batch_bytes]))
        options, name = self.score_options, self.config.study
        tasks = plan_batches(
            self.cohort, self.catalogue, self.found, options, parts, self.kept_folder, name, self.batch_bytes
        )
        self.directory.begin("score_statistics", parts, ("genes", "variants"), len(tasks))
        study = {
            "study": self.config.study,
            "genome_build": self.config.genome_build,
            "predictor": self.config.predictor.method,
        }
        with self._timed("score statistics"), self.progress("score statistics", len(tasks)) as done:
            compute_score_statistics(
                self.cohort, tasks, self.found, models, options, study, parts, self.out / "denoise", bundle,
                self.executor, digest, self.kept_folder, done,
            )  # fmt: skip
        self.directory.finish("score_statistics", digest, ["bundle", "denoise", "null_models.tsv"])
        self.directory.parts_folder("score_statistics", "none")
        return bundle

    def run_permutation(self) -> int:
        """Searches by permutation, if the configuration asks for any; return the number of genes that failed."""
        p, t = self.config.permutation, self.config.tests
        table = self.out / PERMUTATION_TESTS.name
        if not p.tests:
            self.directory.drop("permutation")
            table.unlink(missing_ok=True)
            return 0
        parameters = make_parameters(t.step_up)
        options = PermutationOptions(
            tuple(p.tests), p.variance, tuple(sorted(set(t.max_maf))), parameters, p.strata is not None
        )
        strata = self.read_strata()
        masks = digest_arrays(self.catalogue.member, *self.catalogue.columns.values(), strata)
        digest = self.directory.stage_digest(
            "permutation",
            {},
            [str(options), self.catalogue.masks, list(self.catalogue.columns)],
            self.score_digest,
            masks,
        )
        if self.directory.is_done("permutation", digest):
            log.info("permutation: up to date")
            return count_failed_genes(table)
        models = self.run_denoise()
        parts = self.directory.parts_folder("permutation", digest_value([digest, self.batch_bytes]))
        score = self.score_options
        batches = plan_batches(
            self.cohort, self.catalogue, self.found, score, parts, self.kept_folder, self.config.study, self.batch_bytes
        )
        tasks = plan_permutations(batches, self.catalogue, self.found)
        write_context(parts, self.cohort, open_context(self.cohort, models, score.x_coding, self.config.genome_build))
        np.save(parts / STRATA, strata)
        self.directory.begin("permutation", parts, ("permutation",), len(tasks))
        with self._timed("permutation"), self.progress("permutation", len(tasks)) as done:
            self.executor.run(PermuteBatch(self.out / "denoise", digest, options), tasks, done)
        gather_permutations(tasks, table)
        self.directory.finish("permutation", digest, [PERMUTATION_TESTS.name])
        self.directory.parts_folder("permutation", "none")
        return count_failed_genes(table)

    def read_strata(self) -> NDArray[np.int64]:
        """Return the level of the covariate of `permutation.strata` of every analysed sample; empty without the key.

        Raises:
            ConfigError: there is no such categorical covariate.
        """
        name = self.config.permutation.strata
        if name is None:
            return np.empty(0, np.int64)
        known = [key for key, values in self.cohort.covariates.items() if values.dtype.kind != "f"]
        if name not in known:
            raise ConfigError(
                f"key permutation.strata: no categorical covariate '{name}'{suggest(name, known)}; list it under "
                "covariates: categorical"
            )
        return np.unique(self.cohort.covariates[name].astype(str), return_inverse=True)[1].astype(np.int64)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Log how long a stage took."""
        start = time.perf_counter()
        yield
        log.info("%s: %.1f s", name, time.perf_counter() - start)


def _brief(record: Mapping[str, Any]) -> str:
    """Return the numbers of a predictor record that belong in the log."""
    names = ("method", "variants", "reference_covered", "coverage", "h2", "r2_promised")
    parts = []
    for name in names:
        if name in record:
            value = record[name]
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _n_columns(covariate: NDArray[Any]) -> int:
    """Return the columns that a covariate takes in a design: levels of a categorical one, less the first."""
    return 1 if covariate.dtype.kind == "f" else max(1, len(np.unique(covariate.astype(str))) - 1)
