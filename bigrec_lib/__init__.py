"""BIGRec, step by step: the tested library behind the notebooks.

The modules follow the way the data goes; each imports only from those before it:
files, assets, datasets, sequences, prompts, llm, tuning, generation, embedding, grounding,
reweighting, metrics, runs, tables, plots, report.
"""
