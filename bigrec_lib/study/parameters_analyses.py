"""What analyses take, 07 to 18: the study whose results they read."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bigrec_lib.study.parameters_checks import Parameters


class Analysis(Parameters):
    """A notebook that reads what the study has published, and nothing else.

    compares: what it is about, if not every study has that: a key that is set in rows of results,
    or the notebook of a step.
    """

    compares: ClassVar[str] = ""

    @property
    def output(self) -> Path:
        return self.runs / self.notebook.partition("_")[2]


class OverallPerformance(Analysis):
    notebook = "07_overall_performance"


class TrainingSize(Analysis):
    notebook = "08_training_size"


class StatisticalInformation(Analysis):
    notebook = "09_statistical_information"


class CrossDomain(Analysis):
    notebook = "10_cross_domain"


class TuningSettings(Analysis):
    notebook = "11_tuning_settings"
    compares = "setting"


class LLMSize(Analysis):
    notebook = "12_llm_size"
    compares = "lm"


class SampleSelection(Analysis):
    notebook = "13_sample_selection"
    compares = "13a_select_samples"


class RecommendationSpaces(Analysis):
    notebook = "14_recommendation_spaces"
    compares = "14b_ground_in_spaces"


class CheaperGrounding(Analysis):
    notebook = "15_cheaper_grounding"
    compares = "15a_measure_grounders"


class Cost(Analysis):
    notebook = "17_cost"
    compares = "17a_measure_cost"


class Domains(Analysis):
    notebook = "18_domains"
    compares = "06_train_baselines"


class EmbeddingAlignment(Analysis):
    notebook = "16_embedding_alignment"
    compares = "16a_measure_alignment"
