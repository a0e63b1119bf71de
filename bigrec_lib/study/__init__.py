"""What runs the study; it knows nothing of the findings.

Its rooms:

    provenance           which code, data, model and machine a result came from, by content
    row_keys             what tells one row of results from another
    run_names            names of jobs and runs, taken apart
    parameters_checks    what checks parameters: types, and what all their classes share
    parameters_runs      what a job belongs to: a data set, a run, an adapter, texts
    parameters_steps     what 00 to 06 take
    parameters_measures  what 13a to 17a take
    parameters_analyses  what 07 to 18 take
    parameters           the class of every notebook's parameters
    manifests            what a finished artefact came from, holds and took to make
    jobs                 one notebook's run: lock, begin, finish
    results              ranks, lists and metrics: written one way, read one way
    steps                the heavy cells of 02 and 03 as functions
    cost_job             the job of 17a: every contestant, measured in a process of its own
    schema               what a study file may say
    run_keys             the runs that a study asks for, by what tells them apart
    expansion            the jobs that a study file asks for, and what each waits for
    studies              study files: read, and refused
    data                 a study's data before anything runs: there, readable, enough
    environment          what a batch tells its processes: threads, waiting, what is kept where
    notebook             execute one, and record it
    publish              runs/<study> -> results/<study>
    resume               what 02 and 03 made, taken from the results
    explorer             the page on which single examples are seen, and lists follow γ
    cards                adapters, published with their model cards
    recommender          from titles to items in one call, with what a study has published
    form                 recommendations for people: the widgets of 00_try_it
    plan                 what is done, stale or missing, why, how long the rest takes
    accept               a change of code that changes no results, said by a person
    new                  begin a study of one's own table: guess its columns, write the file
    runner               one job of a batch
    verify               a published study checked against itself
    batch                run a study: `python -m bigrec_lib.study.batch`
"""
