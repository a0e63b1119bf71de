"""Every notebook's class of parameters, in the order in which a study runs them.

Import them from here, wherever they are defined, as a notebook's second cell does to check the
first: `parameters.TuneLLM.check(globals())`. Default values are declared in these classes alone;
the notebooks' first cells are tested against them.
"""

from __future__ import annotations

from bigrec_lib.study.parameters_analyses import (
    CheaperGrounding,
    Cost,
    CrossDomain,
    Domains,
    EmbeddingAlignment,
    LLMSize,
    OverallPerformance,
    RecommendationSpaces,
    SampleSelection,
    StatisticalInformation,
    TrainingSize,
    TuningSettings,
)
from bigrec_lib.study.parameters_checks import Parameters
from bigrec_lib.study.parameters_measures import (
    GroundInSpaces,
    MeasureAlignment,
    MeasureCost,
    MeasureGrounders,
    MergeAdapters,
    SelectSamples,
)
from bigrec_lib.study.parameters_steps import (
    GenerateTitles,
    GroundToItems,
    PrepareData,
    ReweightByStatistics,
    TrainBaselines,
    TryIt,
    TuneLLM,
)

NOTEBOOKS: dict[str, type[Parameters]] = {
    cls.notebook: cls
    for cls in (
        TryIt,
        PrepareData,
        SelectSamples,
        TuneLLM,
        MergeAdapters,
        GenerateTitles,
        GroundToItems,
        TrainBaselines,
        ReweightByStatistics,
        MeasureGrounders,
        MeasureCost,
        GroundInSpaces,
        MeasureAlignment,
        OverallPerformance,
        TrainingSize,
        StatisticalInformation,
        CrossDomain,
        TuningSettings,
        LLMSize,
        SampleSelection,
        RecommendationSpaces,
        CheaperGrounding,
        Cost,
        Domains,
        EmbeddingAlignment,
    )
}
