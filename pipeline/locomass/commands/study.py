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

from locomass.config import RunConfig, ScoreStatistics
from locomass.denoise import Roles, denoise, screen_traits, transform_traits, warn_of_residuals
from locomass.errors import ConfigError, suggest
from locomass.executors import Executor
from locomass.files.parts import write_arrays
from locomass.meta.pathways import make_parameters
from locomass.null_models.base import NullModels
from locomass.null_models.risk_sets import BINS
from locomass.null_models.store import read_array, read_null_models
from locomass.run.directory import RunDirectory
from locomass.run.inputs import predictor_files
from locomass.run.provenance import digest_arrays, digest_value
from locomass.schema import PERMUTATION_TESTS
from locomass.scores import BatchBound, bound_batch, compute_score_statistics, plan_batches
from locomass.scores.genotypes import BatchTask, ContextSource, open_context, write_context
from locomass.scores.permute import (
    STRATA,
    PermutationOptions,
    PermuteBatch,
    count_failed_genes,
    gather_permutations,
    plan_permutations,
)
from locomass.tables.catalogue import Catalogue, StudyVariants, locate_variants, open_catalogue
from locomass.tables.cohort import Cohort, open_cohort
from locomass.variants.chromosomes import X
from locomass.variants.match import make_identifiers

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
        """Samples, covariates, and the traits that can be fitted."""
        return transform_traits(screen_traits(open_cohort(self.config, self.folder)))

    @cached_property
    def catalogue(self) -> Catalogue:
        """Genes and masks."""
        return open_catalogue(self.config.genes, self.folder, make_identifiers(lambda: self.cohort.fileset.variants))

    @cached_property
    def found(self) -> StudyVariants:
        """Where the genes' variants are in the fileset."""
        fileset = self.cohort.fileset
        return locate_variants(self.catalogue, fileset.variants, fileset.same_calls)

    @property
    def out(self) -> Path:
        """The output directory, absolute for the workers."""
        return self.directory.path.absolute()

    @cached_property
    def cohort_digest(self) -> str:
        """Digest of the analysed samples, phenotypes and covariates."""
        c = self.cohort
        covariates = {k: v.tolist() for k, v in c.covariates.items()}
        traits = [(t.name, t.kind) for t in c.traits]
        unfit = [(u.trait.name, u.reason) for u in c.unfit]
        times = {k: digest_arrays(*vars(own).values()) for k, own in c.follow_up.items()}
        more = [*([unfit] if unfit else []), *([times] if times else [])]
        return digest_value([c.labels.tolist(), c.rows.tolist(), traits, c.y.tobytes().hex(), covariates, *more])

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

    @property
    def roles(self) -> Roles:
        """How null models use the LOCO prediction: one of a time to event has no scale unless `use` says so."""
        p = self.config.predictor
        return Roles(p.role, p.use or "covariate")

    @cached_property
    def denoise_digest(self) -> str:
        """Digest of everything the null models depend on."""
        options: Any = self.config.predictor.role
        if self.cohort.follow_up:
            options = [options, vars(self.roles)]
        if self.config.predictor.method != "none":
            options = [options, sorted(self.needed)]
        elif X in self.needed:
            options = [options, "sex on X"]
        return self.directory.stage_digest("denoise", {}, options, self.predict_digest, self.cohort_digest)

    @property
    def needed(self) -> set[str]:
        """Chromosomes of the genes' variants: these must have a prediction."""
        return set(self.found.chromosome.tolist())

    @cached_property
    def score_options(self) -> ScoreStatistics:
        """Options of the bundle; burdens, where it shares any, reach every frequency bound of the tests."""
        options = self.config.score_statistics
        if not options.modes:
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
        if options.share == "protected":  # pseudo-variants are by category
            genes = digest_value([genes, self.catalogue.category.tolist()])
        if options.modes:  # masks count then
            genes = digest_value([genes, self.catalogue.masks, self.catalogue.member.tolist()])
        settings = [
            msgspec.to_builtins(options),
            self.config.study,
            self.config.genome_build,
            self.config.predictor.method,
        ]
        return self.directory.stage_digest("score_statistics", inputs, settings, self.denoise_digest, variants, genes)

    @cached_property
    def batch_bound(self) -> BatchBound:
        """What a batch may hold, as the memory of a task allows."""
        c = self.cohort
        designs = {
            t.name if t.kind != "quantitative" else np.isfinite(y).tobytes()
            for t, y in zip(c.traits, c.y.T, strict=True)
        }
        n_columns = (3 + BINS * bool(c.follow_up)) * len(c.traits) + len(designs) * (
            1 + sum(map(_n_columns, c.covariates.values()))
        )
        cost = c.fileset.cost(self.found.row).take(self.found.members)
        return bound_batch(self.executor.task_memory, len(c.rows), n_columns, float(cost.carriers.sum()))

    def plan_batches(self, parts: Path, shared: bool = True) -> list[BatchTask]:
        """Return the batches of genes, whose parts go to a folder; what is not shared needs no protection."""
        options, kept = self.score_options, self.kept_folder
        if not shared and options.share == "protected":
            options, kept = msgspec.structs.replace(options, share="exact"), parts
        return plan_batches(
            self.cohort,
            self.catalogue,
            self.found,
            options,
            folder=parts,
            kept=kept,
            study=self.config.study,
            bound=self.batch_bound,
        )

    @cached_property
    def kept_folder(self) -> Path:
        """Folder of what depends on genotypes, samples and genes only: new predictions leave it as it is."""
        f, c, options = self.found, self.cohort, self.score_options
        inputs = self.directory.digest_inputs(c.fileset.paths)
        members = digest_arrays(f.row, f.a1_is_alt, f.members, f.offsets, c.rows)
        genes = digest_value(
            [
                self.catalogue.sets.chromosome.tolist(),
                [options.missing, options.max_maf, options.max_missing, options.min_info, options.share],
                vars(self.batch_bound),
            ]
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
        from locomass.predict import predict  # brings scikit-learn: only where something is predicted

        with self._timed("predict"), self.progress("predict", None):
            prediction = predict(
                self.config.predictor,
                self.folder,
                self.cohort,
                self.out,
                self.executor,
                self.config.genome_build,
                self.directory.digest_input,
            )
        assert prediction is not None
        for message in prediction.messages:
            log.warning(message)
        for trait, record in prediction.record.items():
            log.info("predict: trait %s: %s", trait, _brief(record))
            if record.get("verdict"):
                said = "; try next: ".join(filter(None, (record["verdict"], record["advice"])))
                log.info("predict: trait %s: %s", trait, said)
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
            models = denoise(self.cohort, loco, self.roles, self.out, self.needed)
        for message in warn_of_residuals(models.rows):
            log.warning(message)
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
        parts = self.directory.parts_folder("score_statistics", digest_value([digest, vars(self.batch_bound)]))
        tasks = self.plan_batches(parts)
        self.directory.begin("score_statistics", parts, len(tasks))
        study = {
            "study": self.config.study,
            "genome_build": self.config.genome_build,
            "predictor": self.config.predictor.method,
            **self._predictor_record(),
        }
        with self._timed("score statistics"), self.progress("score statistics", len(tasks)) as done:
            compute_score_statistics(
                self.cohort,
                tasks,
                self.found,
                models,
                self.score_options,
                study,
                folder=parts,
                null_models=self.out / "denoise",
                bundle=bundle,
                executor=self.executor,
                stamp=digest,
                kept=self.kept_folder,
                done=done,
            )
        self.directory.finish("score_statistics", digest, ["bundle", "denoise", "null_models.tsv"])
        self.directory.parts_folder("score_statistics", "none")
        return bundle

    def _predictor_record(self) -> dict[str, Any]:
        """Return what the bundle says of how the predictions were made; nothing without a predictor."""
        if self.config.predictor.method == "none":
            return {}
        from locomass.predict.record import read_record  # brings scikit-learn

        record = read_record(self.out / "predict")
        return {"predictors": record["traits"], "messages": record["messages"]}

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
        parts = self.directory.parts_folder("permutation", digest_value([digest, vars(self.batch_bound)]))
        tasks = plan_permutations(self.plan_batches(parts, shared=False), self.catalogue, self.found)
        context = open_context(self.cohort, models, self.score_options.x_coding, self.config.genome_build)
        write_context(parts, self.cohort, context)
        write_arrays(parts / STRATA, {"strata": strata})
        self.directory.begin("permutation", parts, len(tasks))
        with self._timed("permutation"), self.progress("permutation", len(tasks)) as done:
            source = ContextSource(parts, self.out / "denoise", digest, context)
            self.executor.run(PermuteBatch(source, options), tasks, done)
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
